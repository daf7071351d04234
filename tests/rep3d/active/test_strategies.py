"""Which image comes next: scores do not grow with the image, and each strategy does what its name says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from rep3d.active.strategies import NEEDS, STRATEGIES, ImageScore, assess, check_strategy, select, select_batch
from rep3d.checkpoint import Checkpoint
from rep3d.errors import ConfigError
from rep3d.inference.predictor import Predictor
from rep3d.inference.uncertainty import mean_entropy, mean_margin, mean_variance, voxel_entropy
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

MEASURES = (mean_entropy, mean_margin)


def _ball(side: int, radius: float, softness: float = 1.5) -> torch.Tensor:
    """Return probabilities (2, side, side, side) of a ball whose border is blurred; certain elsewhere."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")) - (side - 1) / 2
    inside = 1 / (1 + np.exp((np.linalg.norm(grid, axis=0) - radius) / softness))
    inside[inside < 1e-4] = 0.0
    return torch.tensor(np.stack([1 - inside, inside]), dtype=torch.float32)


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _choose(strategy: str, scores: Mapping[str, float], features: Mapping[str, list[float]], labelled: list) -> str:
    known = {id_: ImageScore(entropy=value, margin=1 - value) for id_, value in scores.items()}
    vectors = {id_: np.array(value, np.float32) for id_, value in features.items()}
    ids = sorted({*scores, *features})
    choice = select(strategy, ids, known, vectors, [np.array(v, np.float32) for v in labelled], _rng())
    assert choice is not None
    return choice.id


# Scores ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
def test_background_around_the_image_changes_no_score(measure: Callable[[torch.Tensor], float]) -> None:
    small = _ball(24, 6)
    large = torch.zeros(2, 60, 48, 40)
    large[0] = 1
    large[:, 20:44, 10:34, 3:27] = small
    assert measure(large) == pytest.approx(measure(small), rel=1e-5)
    faint = small.clone()  # nothing is found, but something is suspected
    faint[1] *= 0.4
    faint[0] = 1 - faint[1]
    large[:, 20:44, 10:34, 3:27] = faint
    assert measure(faint) > 0.1
    assert measure(large) == pytest.approx(measure(faint), rel=1e-5)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_larger_organ_is_not_preferred_for_being_large(measure: Callable[[torch.Tensor], float]) -> None:
    # Eight times the volume with the same relative blur; a sum over voxels would be several times as large.
    small, large = _ball(24, 6, 1.0), _ball(48, 12, 2.0)
    assert voxel_entropy(large).sum() > 6 * voxel_entropy(small).sum()
    assert measure(large) / measure(small) == pytest.approx(1, abs=0.4)


def test_scores_are_bounded_and_order_doubt() -> None:
    certain, clueless = torch.zeros(3, 8, 8, 8), torch.full((3, 8, 8, 8), 1 / 3)
    certain[1] = 1
    for measure in MEASURES:
        assert measure(certain) == pytest.approx(0, abs=1e-4)
        assert measure(clueless) == pytest.approx(1, abs=1e-4)
        assert measure(_ball(24, 6, 2.0)) > measure(_ball(24, 6, 0.5))
    # Two classes in doubt, the third excluded: the margin says "cannot decide", the entropy "not quite clueless".
    two = torch.tensor([0.0, 0.5, 0.5])[:, None, None, None].expand(3, 8, 8, 8)
    assert mean_margin(two) == pytest.approx(1, abs=1e-4)
    assert mean_entropy(two) == pytest.approx(np.log(2) / np.log(3), abs=1e-4)


def test_variance_is_zero_where_views_agree_and_one_where_they_cannot_disagree_more() -> None:
    ball = _ball(16, 4)
    assert mean_variance([ball] * 4) == pytest.approx(0, abs=1e-6)
    classes = torch.eye(2)[:, :, None, None, None].expand(2, 2, 6, 6, 6)
    assert mean_variance(classes) == pytest.approx(1)
    # By hand: p = 0.2 and 0.4 has the variance 0.01 in each of two classes; the largest sum for two views is 1/2.
    views = [torch.tensor([1 - p, p])[:, None, None, None].expand(2, 4, 4, 4) for p in (0.6, 0.8)]
    assert mean_variance(views) == pytest.approx(0.02 / 0.5)
    assert mean_variance([ball]) == 0


class _Blurred(torch.nn.Module):
    """A network for tests: the brighter, the likelier the organ; what is in between is in doubt."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([4 * (0.5 - x), 4 * (x - 0.5)], dim=1)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    from rep3d.inference.engines import TorchEngine

    config = Rep3DConfig(out_channels=2, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
    task = TaskConfig("toy", {"organ": 1}, (1.0, 1.0, 1.0), Intensity("window", 0, 100), "RAS", (32, 32, 32))
    predictor = Predictor(Checkpoint(Rep3D(config).eval(), task, {"version": "v1"}), "cpu", "torch")
    predictor.engine = TorchEngine(_Blurred())
    return predictor


def test_finer_voxels_change_no_score(predictor: Predictor, write_nifti: Callable[..., Path]) -> None:
    """The same patient scanned with half the voxel size, eight times the voxels."""
    scores = []
    for side, spacing in ((30, 1.0), (60, 0.5)):
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = -spacing * (side - 1) / 2
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij")) * spacing + affine[0, 3]
        organ = 100 / (1 + np.exp((np.linalg.norm(grid, axis=0) - 7) / 1.5))
        scores.append(assess(predictor, write_nifti(f"{side}.nii.gz", organ.astype(np.float32), affine), views=3))
    for measure in ("entropy", "margin", "variance"):
        coarse, fine = (score.value(measure) for score in scores)
        assert coarse is not None and 0.001 < coarse < 1
        assert fine == pytest.approx(coarse, rel=0.05)


def test_test_time_views_do_not_change_the_plain_scores(predictor: Predictor, write_nifti: Callable[..., Path]) -> None:
    image = write_nifti("image.nii.gz", (50 * _ball(20, 5)[1]).numpy())
    plain, viewed = assess(predictor, image), assess(predictor, image, views=3)
    assert plain.variance is None
    assert (viewed.entropy, viewed.margin) == (pytest.approx(plain.entropy), pytest.approx(plain.margin))


def test_views_are_not_all_held_in_memory(write_nifti: Callable[..., Path]) -> None:
    alive: list[int] = []

    class Watched:
        def view_probabilities(self, image: Path | str, views: int) -> Iterator[torch.Tensor]:
            import weakref

            references: list[weakref.ref] = []
            for _ in range(views):
                view = _ball(8, 2)
                references.append(weakref.ref(view))
                yield view
                del view
                alive.append(sum(reference() is not None for reference in references))

    assess(Watched(), "unused", views=6)  # type: ignore[arg-type]
    assert max(alive) <= 2  # the plain one is kept for its own scores


# Strategies -----------------------------------------------------------------------------------------------------------


def test_every_strategy_is_described_and_has_a_rule() -> None:
    assert set(NEEDS) == set(STRATEGIES)
    for name in STRATEGIES:
        choice = select(name, ["b", "a"], {}, {}, [], _rng())
        assert choice is not None and choice.id in "ab"
        assert select(name, [], {}, {}, [], _rng()) is None
    with pytest.raises(ConfigError, match="hybrid"):
        check_strategy("hibrid")
    with pytest.raises(ConfigError, match="hybrid"):
        select("hibrid", ["a"], {}, {}, [], _rng())


def test_first_random_entropy_and_margin() -> None:
    scores = {"a": 0.2, "b": 0.9, "c": 0.5}
    assert _choose("first", scores, {}, []) == "a"
    assert _choose("entropy", scores, {}, []) == _choose("uncertainty", scores, {}, []) == "b"
    assert _choose("margin", scores, {}, []) == "a"
    drawn = [select("random", list("abcdef"), {}, {}, [], np.random.default_rng(seed)) for seed in range(40)]
    assert {choice.id for choice in drawn if choice} == set("abcdef")


def test_tta_goes_by_variance_and_falls_back_to_entropy_saying_so() -> None:
    scores = {"a": ImageScore(0.9, 0.9, 0.01), "b": ImageScore(0.1, 0.1, 0.3), "c": ImageScore(1.0, 1.0)}
    choice = select("tta", list("abc"), scores, {}, [], _rng())
    assert choice is not None and (choice.id, choice.strategy, choice.score) == ("b", "tta", 0.3)
    choice = select("tta", ["c"], scores, {}, [], _rng())
    assert choice is not None and (choice.id, choice.strategy) == ("c", "entropy")
    assert choice.reason is not None and "variance" in choice.reason


def test_scores_that_are_not_numbers_count_as_absent() -> None:
    scores = {"a": ImageScore(float("nan")), "b": ImageScore(0.1), "c": ImageScore(float("inf"))}
    choice = select("entropy", list("abc"), scores, {}, [], _rng())
    assert choice is not None and choice.id == "b"


def test_images_without_a_score_are_passed_over_and_without_any_chance_decides() -> None:
    assert _choose("entropy", {"b": 0.1}, {"a": [0.0], "c": [1.0]}, []) == "b"
    for strategy in ("entropy", "margin", "tta", "coreset", "hybrid"):
        choice = select(strategy, list("abc"), {}, {}, [], _rng())
        assert choice is not None and choice.strategy == "random"
        assert choice.reason is not None and "at random" in choice.reason


def test_k_center_covers_the_clusters() -> None:
    """Thirty images in five far-apart groups of unequal size: five choices find one of each, whatever chance does."""
    random = np.random.default_rng(3)
    sizes = (18, 6, 3, 2, 1)
    centres = 20 * random.normal(size=(5, 8))
    features = {
        f"{group}{number:02d}": (centres[group] + 0.1 * random.normal(size=8)).astype(np.float32)
        for group, size in enumerate(sizes)
        for number in range(size)
    }
    batch = select_batch("coreset", 5, list(features), {}, features, [], _rng())
    assert {choice.id[0] for choice in batch} == set("01234")
    # With the first group labelled already, and another in work, the other three come first.
    taken = [features["000"], features["300"]]
    batch = select_batch("coreset", 3, list(features), {}, features, taken, _rng())
    assert {choice.id[0] for choice in batch} == set("124")


def test_no_feature_counts_for_being_large_and_rounding_is_no_difference() -> None:
    features = {"a": [0.0, 1e6, 5.0], "b": [1.0, 1e6 + 1, 5.0], "c": [0.5, 1e6, 5.0 + 1e-7]}
    assert _choose("coreset", {}, features, [[0.0, 1e6, 5.0]]) == "b"


def test_hybrid_picks_neither_a_duplicate_nor_a_certain_image() -> None:
    scores = {"duplicate": 0.95, "new": 0.9, "near": 0.85, **{f"certain{i}": 0.05 for i in range(6)}}
    features = {"duplicate": [0.0, 0.0], "new": [3.0, 1.0], "near": [0.5, 0.2]}
    features |= {f"certain{i}": [50.0 + i, -40.0] for i in range(6)}
    labelled = [[0.0, 0.0]]
    assert _choose("entropy", scores, features, labelled) == "duplicate"
    assert _choose("coreset", scores, features, labelled).startswith("certain")
    assert _choose("hybrid", scores, features, labelled) == "new"


def test_hybrid_with_half_of_what_it_needs() -> None:
    scores = {"a": 0.1, "b": 0.8}
    for known, expected in (((scores, {}), ("b", "entropy")), (({}, {"a": [0.0], "b": [9.0]}), ("b", "coreset"))):
        vectors = {id_: np.array(value) for id_, value in known[1].items()}
        known_scores = {id_: ImageScore(value) for id_, value in known[0].items()}
        choice = select("hybrid", ["a", "b"], known_scores, vectors, [np.array([0.0])], _rng())
        assert choice is not None and (choice.id, choice.strategy) == expected
        assert choice.reason


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_a_batch_has_no_image_twice_and_is_the_same_again(strategy: str) -> None:
    random = np.random.default_rng(1)
    ids = [f"case_{i}" for i in range(9)]
    scores = {id_: ImageScore(*random.random(3)) for id_ in ids[1:]}
    features = {id_: random.normal(size=4).astype(np.float32) for id_ in ids[:-1]}
    first, again = (select_batch(strategy, 20, ids, scores, features, [], _rng()) for _ in range(2))
    assert first == again
    assert sorted(choice.id for choice in first) == ids
    shuffled = select_batch(strategy, 20, ids[::-1], scores, features, [], _rng())
    assert first == shuffled


def test_a_batch_of_the_hybrid_spreads_out() -> None:
    """Of equally uncertain twins one is enough: what was chosen counts as labelled for the next choice."""
    scores = {"twin_a": ImageScore(0.9), "twin_b": ImageScore(0.9), "other": ImageScore(0.8)}
    scores |= {f"certain{i}": ImageScore(0.1) for i in range(6)}
    features = {"twin_a": np.array([5.0, 5.0]), "twin_b": np.array([5.0, 5.0]), "other": np.array([-4.0, 4.0])}
    features |= {f"certain{i}": np.array([0.1 * i, 0.0]) for i in range(6)}
    batch = select_batch("hybrid", 2, list(scores), scores, features, [np.array([0.0, 0.0])], _rng())
    assert {choice.id[:4] for choice in batch} == {"twin", "othe"}
