"""Two stages in one training: the fine one sees what the coarse one says, and is kept only where it pays."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import ResumeError
from rep3d.imaging.transforms import ImageSteps
from rep3d.inference import fine as fine_module
from rep3d.inference.fine import corrected
from rep3d.inference.predictor import Predictor
from rep3d.nn.network import head_of
from rep3d.training import plan as training_plan
from rep3d.training import snapshots, stages
from rep3d.training.layered import LayeredVolume, layered_augmentation, with_coarse
from rep3d.training.plan import TrainPlan, first_network
from rep3d.training.settings import TrainProgress
from rep3d.training.train import train
from rep3d.training.volumes.prepared import make_ready
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config

COARSE = replace(TASK, spacing=tuple(3 * side for side in TASK.spacing))
BOTH = replace(SETTINGS, stages="auto")


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a small network, and an engine that starts at once."""
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    monkeypatch.setenv("REP3D_ENGINE", "torch")


@pytest.fixture
def coarser(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have the coarse stage work at three times the voxel size; what is returned is what that rests on."""
    own = {"spacing": list(TASK.spacing), "roi_size": list(TASK.roi_size)}
    facts: dict[str, Any] = {"words": "Large voxels.", "own": own, "seconds_per_voxel": 1e-9}
    monkeypatch.setattr(stages, "at_its_resolution", lambda plan: replace(plan, task=COARSE, resolution=facts))
    return facts


def _trained(tmp_path: Path, seen: list[TrainProgress], **changes: Any) -> Checkpoint:
    cases, held_out = [ball_case(tmp_path, seed) for seed in (1, 2)], [ball_case(tmp_path, 3)]
    given = {"settings": BOTH, "output": tmp_path / "model.pt", "validation": held_out, **changes}
    return train(cases, TASK, on_progress=seen.append, **given)


def test_a_fine_stage_that_pays_is_kept_and_one_that_does_not_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarser: dict[str, Any]
) -> None:
    monkeypatch.setattr(stages, "LEAST_GAIN", -1.0)
    seen: list[TrainProgress] = []
    version = _trained(tmp_path, seen)
    kept = load_checkpoint(tmp_path / "model.pt")
    assert kept.fine is not None and version.fine is not None and kept.info == version.info
    assert (kept.task, kept.fine.task) == (COARSE, TASK) and kept.fine.model.in_channels == 2
    facts = kept.info["stages"]
    assert (
        facts["kept"] == 2
        and "-1.0 is needed" in facts["reason"]
        and facts["reason"] in kept.info["resolution"]["words"]
    )
    assert 0 <= facts["coarse"] <= 1 and 0 <= facts["both"] <= 1
    assert facts["both"] == pytest.approx(np.mean(list(facts["scores"]["case_3"].values())))
    steps = [progress.stage for progress in seen if progress.phase == "training"]
    assert steps == ["coarse"] * BOTH.iterations + ["fine"] * BOTH.iterations
    elapsed = [progress.elapsed_seconds for progress in seen]
    assert elapsed == sorted(elapsed) and elapsed[-1] <= 60 * version.info["minutes"]  # one clock for both
    assert sorted(path.name for path in tmp_path.glob(".*")) == []  # nothing is left beside it
    result = Predictor(kept, "cpu").segment(ball_case(tmp_path, 3).image, tmp_path / "found.nii.gz")
    assert result.stage == "all"
    monkeypatch.setattr(stages, "LEAST_GAIN", 1.1)
    alone = _trained(tmp_path, [], settings=replace(BOTH, iterations=1), start=kept)
    assert alone.fine is None and load_checkpoint(tmp_path / "model.pt").fine is None
    assert alone.info["stages"]["kept"] == 1 and alone.version == "v2"
    assert "run_mark" not in alone.info


def test_no_fine_stage_where_it_cannot_pay(tmp_path: Path, coarser: dict[str, Any]) -> None:
    settings = replace(BOTH, iterations=2)
    seen: list[TrainProgress] = []
    version = _trained(tmp_path, seen, settings=settings, validation=())
    assert version.fine is None and version.info["stages"] == {
        "kept": 1,
        "reason": "No fine stage was trained: there is no case to tell by whether it pays.",
    }
    assert all(progress.stage is None for progress in seen)
    coarser["seconds_per_voxel"] = 1.0
    assert "do not suffice for 100 steps" in _trained(tmp_path, [], settings=settings).info["stages"]["reason"]
    coarser["own"] = {"spacing": list(COARSE.spacing), "roi_size": list(COARSE.roi_size)}
    assert "as fine as the task's own" in _trained(tmp_path, [], settings=settings).info["stages"]["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_what_is_stopped_in_either_stage_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarser: dict[str, Any], stage: str
) -> None:
    monkeypatch.setattr(snapshots, "_SECONDS", 0.0)
    monkeypatch.setattr(snapshots, "_COST", 0.0)
    state, cases, held_out = tmp_path / "state", [ball_case(tmp_path, 1)], [ball_case(tmp_path, 2)]

    def stop(progress: TrainProgress) -> None:
        if (progress.stage, progress.iteration) == (stage, 4):
            raise KeyboardInterrupt

    settings = replace(BOTH, iterations=6, resolution="auto")
    run = partial(train, cases, TASK, settings, tmp_path / "model.pt", validation=held_out, state=state)
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stop)
    assert snapshots.can_go_on(state)
    seen: list[TrainProgress] = []
    run(on_progress=seen.append, must_resume=True)
    steps = [(progress.stage, progress.iteration) for progress in seen if progress.phase == "training"]
    assert steps[0][0] == stage and 1 < steps[0][1] <= 5 and steps[-1] == ("fine", 6)
    assert not state.exists()
    with pytest.raises(KeyboardInterrupt):
        run(on_progress=stop)
    # Another one that must go on is refused before anything is measured, and told what differs in its own words.
    seen.clear()
    changed = {"seed": 7, "max_minutes": 2 * settings.max_minutes}
    with monkeypatch.context() as patched, pytest.raises(ResumeError) as refused:
        patched.setattr(stages, "at_its_resolution", None)
        train(
            *(cases, TASK, replace(settings, **changed), tmp_path / "model.pt", None, seen.append),
            validation=held_out,
            state=state,
            must_resume=True,
        )
    expected = {f"settings.{name}": (getattr(settings, name), value) for name, value in changed.items()}
    assert refused.value.changed == {name: pytest.approx(pair) for name, pair in expected.items()}
    assert not seen and snapshots.can_go_on(state)
    # Of another training nothing is taken up.
    train(
        cases, TASK, replace(BOTH, seed=7), tmp_path / "model.pt", None, seen.append, validation=held_out, state=state
    )
    steps = [(progress.stage, progress.iteration) for progress in seen if progress.phase == "training"]
    assert steps[0] == ("coarse", 1) and not state.exists()


def test_a_damaged_coarse_stage_is_trained_again(tmp_path: Path, coarser: dict[str, Any]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / snapshots.COARSE_CHECKPOINT).write_bytes(b"cut short")
    seen: list[TrainProgress] = []
    _trained(tmp_path, seen, settings=replace(BOTH, iterations=1), state=state)
    assert [progress.stage for progress in seen if progress.phase == "training"] == ["coarse", "fine"]


def test_training_and_inference_put_the_same_beside_the_image(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    coarse = train([case], COARSE, replace(SETTINGS, iterations=2), tmp_path / "coarse.pt")
    ready = make_ready(case, TASK)
    ((_, volume),) = with_coarse([(case, ready)], coarse, TASK, "cpu", lambda: None)
    assert isinstance(volume, LayeredVolume)
    said = Predictor(coarse, "cpu").probabilities(case.image)
    steps = ImageSteps(TASK)
    image = steps.spaced(steps.read(case.image))
    beneath = fine_module._Beneath(said, fine_module.coarse_weight(said), image)
    sides = (16, 16, 16)
    for centre in ((3, 30, 12), (20, 20, 20)):
        x, y, z = (slice(first, first + 16) for first in volume.first_voxel(centre, sides))
        patch = volume.patch(centre, sides)
        torch.testing.assert_close(patch["beside"], beneath.labels((x, y, z)), atol=1e-3, rtol=0)  # half precision
        torch.testing.assert_close(patch["image"], ready.patch(centre, sides)["image"])
    random = np.random.default_rng(0)
    places = {tuple(volume.voxel(0, random)) for _ in range(20)}
    assert all(beneath.is_found(tuple(slice(i, i + 1) for i in place)) for place in places)  # type: ignore[arg-type]


def test_a_fine_stage_begins_as_the_coarse_one(tmp_path: Path) -> None:
    coarse = train([ball_case(tmp_path, 1)], COARSE, replace(SETTINGS, iterations=2), tmp_path / "coarse.pt")
    plan = TrainPlan([], TASK, SETTINGS, tmp_path / "fine.pt", coarse=coarse)
    network = first_network(plan).eval()
    seen = torch.rand(1, 2, 32, 32, 32)
    with torch.no_grad():
        found = corrected(network(seen), seen).softmax(1)
        torch.testing.assert_close(found[:, 1:], seen[:, 1:], atol=0.01, rtol=0)  # never quite sure
        # What it learns begins with what the coarse one knows of the image.
        head_of(network).load_state_dict(head_of(coarse.model).state_dict())
        torch.testing.assert_close(network(seen), coarse.model(seen[:, :1]))


def test_the_coarse_stage_is_doubted_in_training() -> None:
    augment = layered_augmentation(replace(TASK, roi_size=(16, 16, 16)))
    patch = {"image": torch.rand(1, 16, 16, 16), "label": torch.zeros(1, 16, 16, 16, dtype=torch.int32)}
    beside = torch.zeros(2, 16, 16, 16)
    beside[0, 4:12, 4:12, 4:12] = 1
    found = []
    for seed in range(40):
        augment.set_random_state(seed=seed)
        joined = augment({**patch, "beside": beside})
        assert "beside" not in joined and joined["image"].shape == (3, 16, 16, 16)
        found.append(joined["image"][1:])
    assert all(one.any() for one in found) and max(float(one.max()) for one in found) <= 1.0001
    assert len({float(one.sum()) for one in found}) > 20
