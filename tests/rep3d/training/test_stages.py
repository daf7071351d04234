"""Two stages in one training: the fine one sees what the coarse one says, and is kept only where it pays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rep3d.checkpoint import load_checkpoint
from rep3d.errors import ConfigError
from rep3d.imaging.transforms import ImageSteps
from rep3d.inference import fine as fine_module
from rep3d.inference.predictor import Predictor
from rep3d.training import plan as training_plan
from rep3d.training.fine import stages
from rep3d.training.fine.stages import train_stages
from rep3d.training.layered import LayeredVolume, layered_augmentation, with_coarse
from rep3d.training.settings import TrainProgress
from rep3d.training.train import train
from rep3d.training.volumes.prepared import make_ready
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config

COARSE = replace(TASK, spacing=tuple(3 * side for side in TASK.spacing))


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a small network, and an engine that starts at once."""
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    monkeypatch.setenv("REP3D_ENGINE", "torch")


def test_a_fine_stage_that_pays_is_kept_and_one_that_does_not_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, held_out = [ball_case(tmp_path, seed) for seed in (1, 2)], [ball_case(tmp_path, 3)]
    monkeypatch.setattr(stages, "LEAST_GAIN", -1.0)
    seen: list[TrainProgress] = []
    output = tmp_path / "model.pt"
    version = train_stages(cases, COARSE, TASK, SETTINGS, output, on_progress=seen.append, validation=held_out)
    kept = load_checkpoint(output)
    assert kept.fine is not None and version.fine is not None and kept.info == version.info
    assert (kept.task, kept.fine.task) == (COARSE, TASK) and kept.fine.model.in_channels == 2
    assert kept.info["stages"]["kept"] == 2 and "and -1.0 is needed" in kept.info["stages"]["reason"]
    assert 0 <= kept.info["stages"]["coarse"] <= 1 and 0 <= kept.info["stages"]["both"] <= 1
    assert sum(progress.phase == "training" for progress in seen) == 2 * SETTINGS.iterations
    assert sorted(path.name for path in tmp_path.glob(".*")) == []  # nothing is left beside it
    result = Predictor(kept, "cpu").segment(held_out[0].image, tmp_path / "found.nii.gz")
    assert result.stage == "all"
    monkeypatch.setattr(stages, "LEAST_GAIN", 1.1)
    quick = replace(SETTINGS, iterations=1)
    alone = train_stages(cases, COARSE, TASK, quick, output, start=kept, validation=held_out)
    assert alone.fine is None and load_checkpoint(output).fine is None
    assert alone.info["stages"]["kept"] == 1 and alone.version == "v2"


def test_without_cases_to_tell_by_or_with_other_labels_there_is_no_fine_stage(tmp_path: Path) -> None:
    cases, quick = [ball_case(tmp_path, 1)], replace(SETTINGS, iterations=2)
    version = train_stages(cases, COARSE, TASK, quick, tmp_path / "model.pt", validation=())
    assert version.fine is None and version.info["stages"] == {
        "kept": 1,
        "reason": "there is no case to tell by whether a fine one pays",
    }
    other = TASK.with_labels({"Cube": 1})
    with pytest.raises(ConfigError, match="other labels"):
        train_stages(cases, COARSE, other, quick, tmp_path / "other.pt", validation=cases)
    assert not (tmp_path / "other.pt").exists()


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
    left_out = sum(not one.any() for one in found)
    assert 2 <= left_out <= 16 and max(float(one.max()) for one in found) <= 1.0001
    assert len({float(one.sum()) for one in found}) > 20
