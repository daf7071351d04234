"""Which case and which place is drawn how often, and that draws depend on the seed and their number alone."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from rep3d.data.cases import Case
from rep3d.errors import ConfigError
from rep3d.imaging.transforms import augmentation
from rep3d.training.sampling import Patches, Widening, case_order, case_weights, centre_shares
from rep3d.training.settings import TrainSettings
from rep3d.training.volumes import prepared
from rep3d.training.volumes.prepared import Prepared, class_positions, make_ready
from tests.rep3d.balls import SETTINGS, TASK, ball_case


def test_with_equal_weights_each_case_comes_once_per_round() -> None:
    drawn = list(islice(case_order([2.0] * 5, seed=1), 50))
    rounds = [drawn[i : i + 5] for i in range(0, 50, 5)]
    assert all(sorted(round_) == [0, 1, 2, 3, 4] for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 5  # shuffled anew each time


def test_weights_are_the_proportions_of_many_draws_and_no_case_is_forgotten() -> None:
    weights = [1.0, 1.0, 3.0, 2.5]
    drawn = list(islice(case_order(weights, seed=3), 7500))
    counts = Counter(drawn)
    for case, weight in enumerate(weights):
        assert counts[case] == pytest.approx(7500 * weight / sum(weights), rel=0.03)
    assert all({0, 1, 2, 3} <= set(drawn[i : i + 16]) for i in range(0, 7000, 16))
    assert drawn == list(islice(case_order(weights, seed=3), 7500))
    assert drawn != list(islice(case_order(weights, seed=4), 7500))


def test_a_weight_that_is_missing_is_one_and_an_impossible_one_is_refused() -> None:
    cases = [Case(name, Path(name), Path(name)) for name in "ab"]
    assert case_weights(cases, None) == [1.0, 1.0]
    assert case_weights(cases, {"b": 4, "gone": -1}) == [1.0, 4.0]
    for wrong in (0, -1.0, float("nan"), float("inf"), "much", True):
        with pytest.raises(ConfigError, match="weight of b"):
            case_weights(cases, {"b": wrong})  # type: ignore[dict-item]


def test_processes_share_one_sequence_and_a_resumed_run_goes_on_in_it(tmp_path: Path) -> None:
    prepared = [make_ready(ball_case(tmp_path, seed), TASK) for seed in (1, 2)]

    def patches(sides: int, count: int, first: int = 0, step: int = 1) -> list[np.ndarray]:
        made: Any = Patches(
            prepared, [1.0, 1.0], Widening(partial(augmentation, TASK)), (sides,) * 3, SETTINGS, first, step
        )
        return [np.asarray(patch[0]["image"]) for patch in islice(made, count)]

    for sides in (32, 16):
        alone = patches(sides, 6)
        assert not any(np.array_equal(alone[i], alone[j]) for i in range(6) for j in range(i))
        torch.rand(3), np.random.rand(3)  # no global random state is used
        for first, step in ((0, 2), (1, 2), (3, 1)):
            for got, expected in zip(patches(sides, 3, first, step), alone[first::step], strict=True):
                np.testing.assert_array_equal(got, expected)


COUNTS = [[900, 90, 10, 0], [950, 0, 50, 0], [1000, 0, 0, 0], [0, 40, 60, 0]]


def test_balanced_gives_each_label_that_is_there_the_same_share() -> None:
    shares = centre_shares(COUNTS, [1.0, 3.0, 1.0, 1.0], TrainSettings(background_share=0.3))
    # By hand: background 0.3 by weight (1/6, 1/2, 1/6, and that of the full case to its labels); labels 0.35 each.
    expected = [[0.05, 0.175, 0.07, 0], [0.15, 0, 0.21, 0], [0.05, 0, 0, 0], [0, 0.175 + 0.025, 0.07 + 0.025, 0]]
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    unlabelled = centre_shares([[5, 0], [7, 0]], [1.0, 3.0], TrainSettings())
    np.testing.assert_allclose(unlabelled, [[0.25, 0], [0.75, 0]])


def test_the_papers_way_is_one_to_one_and_every_labelled_voxel_as_likely_as_another() -> None:
    shares = centre_shares(COUNTS, [1.0, 3.0, 1.0, 1.0], TrainSettings(sampling="paper"))
    expected = [[3, 2.7, 0.3, 0], [9, 0, 9, 0], [6, 0, 0, 0], [0, 2.4, 3.6, 0]]
    np.testing.assert_allclose(36 * shares, expected, atol=1e-12)


def test_counts_are_those_of_patches_not_of_images() -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[4:8, 4:8, 4:8] = 1
    volume = Prepared(label[None].astype(np.float16), label, *class_positions(label, 2))

    def share(sides: int, first: int = 0) -> float:
        patches = Patches(
            [volume], [1.0], lambda number: Compose([]), (sides,) * 3, TrainSettings(background_share=0.2), first
        )
        background, labelled = patches.counts()
        assert background + labelled == 64 * sides**3
        return labelled / (background + labelled)

    assert share(40) == 4**3 / 40**3
    assert share(8) > 0.8 * (4 / 8) ** 3 / 2  # four of five patches are centred on it, and hold at least half of it
    assert share(8, first=17) == share(8)  # a run that is resumed weighs classes as before


@pytest.mark.parametrize("sampling", ["balanced", "paper"])
def test_centres_are_drawn_as_the_shares_say_and_patches_lie_in_the_volume(sampling: str) -> None:
    """Each voxel's value says which it is, so a patch without augmentation tells where it was cut."""
    shape, sides = (12, 10, 7), (6, 5, 9)
    volumes = []
    for number in range(2):
        label = np.zeros(shape, np.uint8)
        label[1:3, 1:3, 1:3], label[10:, 9:, 6:] = 1, 2 if number else 1
        image = np.arange(label.size, dtype=np.float32).reshape(shape)
        volumes.append(Prepared(image[None], label, *class_positions(label, 3)))
    settings = TrainSettings(sampling=sampling, seed=4, crops=1)
    patches: Any = Patches(volumes, [1.0, 1.0], lambda number: Compose([]), sides, settings)
    centres: Counter[tuple[int, int]] = Counter()
    seen = Counter()
    for [patch], index in zip(islice(patches, 600), case_order(patches.case_shares, 4), strict=False):
        image, label = patch["image"][0].numpy(), patch["label"][0].numpy()
        assert image.shape == label.shape == sides
        assert not image[..., 0].any() and not image[..., -1].any()  # 7 of 9 voxels: one is padded on each side
        start = np.unravel_index(int(image[0, 0, 1]), shape)
        part = tuple(slice(first, first + side) for first, side in zip(start, sides, strict=True))
        np.testing.assert_array_equal(image[..., 1:8], volumes[index].image[0][part])
        np.testing.assert_array_equal(label[..., 1:8], volumes[index].label[part])
        seen[index] += 1
        if index:  # the far corner is its own label
            centres[bool((label == 2).any()), bool((label == 1).any())] += 1
    shares = centre_shares([volume.counts for volume in volumes], [1.0, 1.0], settings)
    assert seen[1] / 600 == pytest.approx(shares[1].sum(), abs=0.01)
    far, near = shares[1, 2] / shares[1].sum(), shares[1, 1] / shares[1].sum()
    assert (sampling == "balanced") == (far > near)
    assert sum(n for (rare, _), n in centres.items() if rare) / seen[1] >= far - 0.05


def test_places_are_kept_of_each_class_at_random_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "MOST_POSITIONS", 50)
    label = np.random.default_rng(0).choice(4, (20, 9, 11), p=[0.9, 0.08, 0.02, 0.0]).astype(np.uint8)
    counts, positions = class_positions(label, 5)
    assert counts == tuple(np.bincount(label.ravel(), minlength=5))
    kept = np.minimum(counts, 50)
    found = label[tuple(positions.T)]
    np.testing.assert_array_equal(found, np.repeat(np.arange(5), kept))  # each where it is, one channel after the other
    assert len(np.unique(positions, axis=0)) == kept.sum() and len(np.unique(positions[:50, 0])) > 15
    volume = Prepared(label[None], label, counts, positions)
    for channel in (0, 1, 2):
        drawn = {tuple(volume.voxel(channel, np.random.default_rng(seed))) for seed in range(200)}
        assert {int(label[voxel]) for voxel in drawn} == {channel} and len(drawn) > kept[channel] // 2


def test_augmentation_widens_over_the_first_draws_and_is_wide_for_a_trained_network() -> None:
    asked: list[float] = []

    def made(width: float) -> Compose:
        asked.append(width)
        return Compose([])

    widening = Widening(made)
    for number in range(0, 2 * Widening.draws):
        widening(number)
    assert asked == pytest.approx(np.linspace(0, 1, len(asked))) and len(asked) > 5
    assert widening(Widening.draws // 2) is widening(Widening.draws // 2)  # also of a run that is resumed there
    asked.clear()
    Widening(made, trained=True)(0)
    assert asked == [1.0]
