"""Images of several channels, from a data set to a label map: what one channel alone does not show is learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import CheckpointError, ImageError, NoCasesError
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.export import export_program
from rep3d.inference.predictor import Predictor
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Channel, Intensity, TaskConfig
from rep3d.training import plan as training_plan
from rep3d.training.one import train_one
from rep3d.training.plan import TrainPlan
from rep3d.training.start import check_channels
from rep3d.training.train import TrainSettings, task_for_cases, train
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config

TWO = replace(TASK, channels=(Channel("CT", Intensity("window", 0, 1000)), Channel("T2", Intensity())))


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)


def _case(folder: Path, seed: int) -> Case:
    """Return a case whose first channel is a slope: the ball is in the second."""
    case = ball_case(folder, seed)
    ball = nib.load(case.image)
    slope = np.indices(ball.shape).sum(0).astype(np.float32)
    first = folder / f"case_{seed}_0000.nii.gz"
    nib.save(nib.Nifti1Image(slope, ball.affine), first)
    return Case(case.id, first, case.label, (first, case.image))


def _together(case: Case) -> Path:
    """Return the channels of a case as one 4D file."""
    path = case.image.with_name(f"{case.id}_4d.nii.gz")
    voxels = np.stack([np.asarray(nib.load(file).dataobj) for file in case.channels], -1)
    nib.save(nib.Nifti1Image(voxels, nib.load(case.image).affine), path)
    return path


def test_the_second_channel_is_learned_from_and_seen(tmp_path: Path) -> None:
    files = [_case(tmp_path, seed) for seed in (1, 2)]
    cases = [files[0], Case(files[1].id, _together(files[1]), files[1].label)]
    settings = TrainSettings(iterations=30, learning_rate=2e-2, device="cpu", seed=1)
    train(cases, TWO, settings, tmp_path / "model.pt")
    predictor = Predictor.load(tmp_path / "model.pt", "cpu")
    assert predictor.task == TWO and predictor.model.in_channels == 2
    other = _case(tmp_path, 9)
    found = [tmp_path / f"found_{n}.nii.gz" for n in (0, 1)]
    for image, file in zip((other.channels, _together(other)), found, strict=True):
        predictor.segment(image, file)
    assert dice_of_files(found[0], other.label, TASK.labels)["Ball"] > 0.6  # an untrained network has 0.1
    assert found[0].read_bytes() == found[1].read_bytes()
    assert predictor.features(other.channels).shape == predictor.features(_together(other)).shape
    assert list(predictor.view_probabilities(other.channels, 2))[1].shape[0] == 2
    with pytest.raises(ImageError, match="1 channel, where 2 are needed"):
        predictor.segment(other.image, tmp_path / "x.nii.gz")
    assert not (tmp_path / "x.nii.gz").exists()


@pytest.mark.slow
def test_an_exported_network_takes_all_channels(tmp_path: Path) -> None:
    trained = train([_case(tmp_path, 1)], TWO, SETTINGS, tmp_path / "model.pt")
    program = torch.export.load(export_program(trained, tmp_path / "model.pt2").path).module()
    image = torch.rand(1, 2, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program(image).softmax(1), trained.model(image).softmax(1), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_fine_stage_sees_all_channels(tmp_path: Path) -> None:
    case = _case(tmp_path, 1)
    coarse_task = replace(TWO, spacing=(2.0, 2.0, 2.0), roi_size=(16, 16, 16))
    coarse = train([case], coarse_task, replace(SETTINGS, iterations=2), tmp_path / "coarse.pt")
    fine = train_one(TrainPlan([case], TWO, SETTINGS, tmp_path / "fine.pt", coarse=coarse), lambda progress: None)
    assert fine.model.in_channels == 3
    save_checkpoint(tmp_path / "both.pt", coarse.model, coarse.task, {}, fine)
    result = Predictor.load(tmp_path / "both.pt", "cpu").segment(case.channels, tmp_path / "found.nii.gz")
    assert result.stage == "all" and nib.load(tmp_path / "found.nii.gz").shape == (32, 32, 32)
    with pytest.raises(CheckpointError, match="2 of the image and 1 labels.*got 3 with images of 1"):
        Checkpoint(coarse.model, coarse.task, {}, replace(fine, task=TASK))
    with pytest.raises(CheckpointError, match="cannot be used alone"):
        Predictor(fine, "cpu")


def test_what_does_not_fit_the_channels_is_refused(tmp_path: Path) -> None:
    two, one = _case(tmp_path, 1), ball_case(tmp_path, 2)
    with pytest.raises(NoCasesError, match="2 channels, where 1 is needed"):
        train([two], TASK, SETTINGS, tmp_path / "model.pt")
    trained = train([two, one], TWO, SETTINGS, tmp_path / "model.pt", validation=[_case(tmp_path, 3)])
    assert trained.info["validation"] is not None
    assert [entry["id"] for entry in trained.info["left_out"]] == ["case_2"]
    for task in (TASK, replace(TWO, channels=TWO.channels[::-1])):
        with pytest.raises(CheckpointError, match="other channels: it knows CT, T2"):
            train([two], task, SETTINGS, tmp_path / "model.pt", trained)
    seen = replace(TASK, modality="MRI")
    check_channels(seen, ("MR",))
    check_channels(seen, ("T1",))  # whatever that is
    with pytest.raises(CheckpointError, match="The model is for MRI, and the images of the data set are CT"):
        check_channels(seen, ("CT",))
    three = replace(TWO, channels=(*TWO.channels, Channel("PET", Intensity())))
    save_checkpoint(tmp_path / "odd.pt", Rep3D(small_config()), TASK, {})
    content = torch.load(tmp_path / "odd.pt", weights_only=True)
    torch.save({**content, "task": three.to_dict()}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match="its images have 3 channels, its network takes 1"):
        load_checkpoint(tmp_path / "odd.pt")


def test_tasks_keep_their_channels(tmp_path: Path, write_nifti: Callable[..., Path]) -> None:
    image = write_nifti("x.nii.gz", np.zeros((20, 20, 20, 2), np.int16))
    task = task_for_cases("x", {"A": 1}, [image], channels=["CT", "PET"], ignore=9)
    assert [(each.name, each.intensity.mode) for each in task.channels] == [("CT", "window"), ("PET", "zscore")]
    assert (task.in_channels, task.intensity, task.ignore) == (2, task.channels[0].intensity, 9)
    assert TaskConfig.from_dict(task.to_dict()) == task
    assert not {"channels", "ignore"} & set(TASK.to_dict())
