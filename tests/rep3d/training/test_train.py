"""Training learns, continues, refuses what cannot be trained on, and never leaves a broken checkpoint."""

from __future__ import annotations

import signal
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d.checkpoint import load_checkpoint
from rep3d.data.cases import Case, LeftOut
from rep3d.errors import (
    CheckpointError,
    ConfigError,
    DiskFullError,
    NoCasesError,
    OutputError,
    TaskError,
    TrainingError,
)
from rep3d.evaluation.metrics import dice_of_files
from rep3d.imaging.transforms import augmentation, preparation
from rep3d.inference.predictor import Predictor
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity
from rep3d.training import loop as training_loop
from rep3d.training import plan as training_plan
from rep3d.training.sampling import Patches, Widening
from rep3d.training.train import TrainProgress, TrainSettings, task_for_cases, train
from rep3d.training.volumes import prepared
from rep3d.training.volumes.prepared import make_ready
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a small network: the loop is under test here, and this keeps it quick."""
    monkeypatch.setattr(training_plan, "preset_config", small_config)


def test_it_learns_from_two_cases_and_segments_a_third(tmp_path: Path) -> None:
    cases = [ball_case(tmp_path, seed) for seed in (1, 2)]
    seen: list[TrainProgress] = []
    output = tmp_path / "model.pt"
    settings = TrainSettings(iterations=40, crops=1, learning_rate=5e-3, device="cpu")
    trained = train(cases, TASK, settings, output, on_progress=seen.append)
    other = ball_case(tmp_path, 9)
    Predictor.load(output, "cpu").segment(other.image, tmp_path / "found.nii.gz")
    assert dice_of_files(tmp_path / "found.nii.gz", other.label, TASK.labels)["Ball"] > 0.8
    assert trained.info["cases"] == ["case_1", "case_2"]
    assert (trained.version, trained.info["parent"], trained.info["iterations"]) == ("v1", None, 40)
    assert [p.phase for p in seen[:1]] == ["preparing"] and seen[-1].phase == "saving"
    steps = [p for p in seen if p.phase == "training"]
    assert [p.iteration for p in steps] == list(range(1, 41))
    assert steps[-1].loss is not None and steps[0].loss is not None and steps[-1].loss < 0.7 * steps[0].loss
    assert [p.epoch for p in steps[:4]] == [1, 1, 2, 2] and steps[-1].epoch == steps[-1].epochs == 20
    assert all(p.memory_mb and p.memory_mb > 10 for p in seen)
    assert steps[0].elapsed_seconds < steps[-1].elapsed_seconds <= 60 * trained.info["minutes"]
    assert (trained.info["validation_cases"], trained.info["validation"]) == ([], None)
    assert trained.info["stopped"] == "iterations" and trained.info["resumed_from"] is None


def test_one_case_is_enough_and_a_second_run_continues_from_the_first(tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    first = train([ball_case(tmp_path, 1)], TASK, SETTINGS, output)
    still = replace(SETTINGS, iterations=1, learning_rate=1e-12, weight_decay=0.0)
    second = train([ball_case(tmp_path, 2)], TASK, still, output, start=load_checkpoint(output))
    assert (second.version, second.info["parent"]) == ("v2", "v1")
    before, after = dict(first.model.named_parameters()), dict(second.model.named_parameters())
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_run_from_nothing_depends_on_its_seed_only(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    runs = [
        train([case], TASK, replace(SETTINGS, seed=seed), tmp_path / f"{name}.pt").model.state_dict()
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    first = next(name for name, tensor in runs[0].items() if tensor.is_floating_point() and tensor.std() > 0)
    torch.testing.assert_close(runs[0][first], runs[1][first])
    assert not torch.equal(runs[0][first], runs[2][first])


def test_afirst_network_has_the_variant_asked_for(tmp_path: Path) -> None:
    for variant in ("learned", "fixed", "none"):
        settings = replace(SETTINGS, iterations=1, variant=variant)
        assert train([ball_case(tmp_path, 1)], TASK, settings, tmp_path / "m.pt").model.config.spatial_prior == variant


def test_a_stopped_run_leaves_nothing_in_memory_even_while_its_error_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Rep3D]] = []
    first = training_loop.first_network

    def watched(*arguments: Any) -> Rep3D:
        network = first(*arguments)
        made.append(weakref.ref(network))
        return network

    def stop(progress: TrainProgress) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_loop, "first_network", watched)
    case, other = ball_case(tmp_path, 1), ball_case(tmp_path, 2)
    with pytest.raises(KeyboardInterrupt) as kept:
        train([case], TASK, SETTINGS, tmp_path / "model.pt", on_progress=stop, validation=[other])
    assert [network() for network in made] == [None]
    assert kept.value is not None and not (tmp_path / "model.pt").exists()
    trained = train([case], TASK, SETTINGS, tmp_path / "model.pt", validation=[other])
    assert made[1]() is None and trained.model is not None


def test_values_of_another_models_labels_count_as_background_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    label = nib.load(case.label)
    values = np.asarray(label.dataobj)
    values[:3, :3, :3], values[-3:, -3:, -3:] = 1, 7
    nib.save(nib.Nifti1Image(values, label.affine), case.label)
    found = preparation(TASK, True, {1, 3, 7})({"image": str(case.image), "label": str(case.label)})["label"]
    assert set(np.unique(found)) == {0, 1} and int(found.sum()) == int((values == 3).sum())
    assert train([case], TASK, SETTINGS, tmp_path / "model.pt", other_values=(1, 7)).info["iterations"] == 3
    with pytest.raises(NoCasesError, match=r"unexpected values: \[7\]"):
        train([case], TASK, SETTINGS, tmp_path / "other.pt", other_values=(1,))


@pytest.mark.timed
def test_the_time_budget_ends_a_run_annealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = training_loop._Loop._before_step
    monkeypatch.setattr(
        training_loop._Loop,
        "_before_step",
        lambda self, trainer: (step(self, trainer), rates.append(self.optimizer.param_groups[0]["lr"]))[0],
    )
    started = time.monotonic()
    settings = TrainSettings(iterations=100_000, max_minutes=0.1, crops=1, device="cpu")
    trained = train([ball_case(tmp_path, 1)], TASK, settings, tmp_path / "model.pt")
    assert 4 < time.monotonic() - started <= 6 * 1.05 + 1.5
    assert 1 < trained.info["iterations"] < 100_000
    assert rates[-1] < 0.3 * max(rates)
    assert trained.info["stopped"] == "max_minutes"
    assert trained.info["minutes"] == pytest.approx(0.1, rel=0.3)  # a second of it is kept for saving


def test_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoCasesError, match="no case has a label"):
        train([], TASK, SETTINGS, tmp_path / "model.pt")


def test_a_case_that_cannot_be_used_is_named_and_costs_no_other_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, odd = ball_case(tmp_path, 1), ball_case(tmp_path, 4)
    flipped = Case("flipped", good.image, ball_case(tmp_path, 2, np.diag([-1.0, 1, 1, 1])).label)
    gone = Case("gone", tmp_path / "gone.nii.gz", good.label)
    check = prepared.check_label

    def odder(label: Path, *rest: object) -> None:
        if label == odd.label:
            raise ZeroDivisionError("nobody thought of this")
        check(label, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(prepared, "check_label", odder)
    told = []
    before = LeftOut("other", "other.nii.gz", "of old")
    trained = train(
        *([flipped, good, gone, odd], TASK, SETTINGS, tmp_path / "model.pt", None, told.append),
        validation=[Case("held", gone.image, good.label)],
        left_out=[before],
    )
    assert trained.info["cases"] == trained.info["trained_on"] == ["case_1"]
    reasons = {entry["id"]: entry["reason"] for entry in trained.info["left_out"]}
    assert list(reasons) == ["other", "flipped", "gone", "case_4", "held"]
    assert "case_2_label.nii.gz does not lie on the voxels" in reasons["flipped"] and "exist" in reasons["gone"]
    assert reasons["case_4"] == "ZeroDivisionError: nobody thought of this"
    assert trained.info["validation"] is None and trained.info["validation_measured"] == []
    assert [entry.to_dict() for entry in told[-1].left_out] == trained.info["left_out"]
    with pytest.raises(NoCasesError, match="None of the 2 cases can be trained on.*case_2_label.*gone.nii.gz"):
        train([flipped, gone], TASK, SETTINGS, tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()


def test_a_model_that_cannot_be_written_whole_is_said_in_our_words_and_the_last_one_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    resource = pytest.importorskip("resource")
    case, output = ball_case(tmp_path, 1), tmp_path / "model.pt"
    output.write_bytes(b"the last one")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        with pytest.raises(DiskFullError, match="larger than the disk, or this account, allows"):
            train([case], TASK, replace(SETTINGS, iterations=1), output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert output.read_bytes() == b"the last one" and [file.name for file in tmp_path.glob(".*")] == []
    for read in (case.image, case.label):
        with pytest.raises(OutputError, match="must end in .pt"):
            train([case], TASK, SETTINGS, read)


def test_too_little_room_ends_a_training_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rep3d.output.shutil.disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(DiskFullError, match="at least") as caught:
        train([ball_case(tmp_path, 1)], TASK, replace(SETTINGS, iterations=1), tmp_path / "model.pt")
    assert caught.value.__cause__ is not caught.value


def test_a_lesion_that_coarse_voxels_lose_is_not_called_empty(tmp_path: Path) -> None:
    whole, small = ball_case(tmp_path, 1), ball_case(tmp_path, 2)
    label = nib.load(small.label)
    voxels = np.zeros(label.shape, np.uint8)
    voxels[11, 11, 11] = 3
    nib.save(nib.Nifti1Image(voxels, label.affine), small.label)
    settings = replace(SETTINGS, iterations=1, empty_labels="skip")
    trained = train([whole, small], replace(TASK, spacing=(4.0, 4.0, 4.0)), settings, tmp_path / "model.pt")
    assert "no voxel of its labels is left at the voxel size" in trained.info["left_out"][0]["reason"]


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    start = train([ball_case(tmp_path, 1)], TASK, SETTINGS, output)
    before = output.read_bytes()
    with pytest.raises(CheckpointError, match="Ball"):
        train([ball_case(tmp_path, 1)], replace(TASK, labels={"Cube": 3}), SETTINGS, output, start=start)
    assert output.read_bytes() == before


def test_a_loss_that_is_not_finite_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "model.pt"
    train([ball_case(tmp_path, 1)], TASK, SETTINGS, output)
    before = output.read_bytes()
    monkeypatch.setattr(training_loop.MixedPrecision, "__call__", lambda self, x, network: network(x) * float("nan"))
    with pytest.raises(TrainingError, match="Nothing was published"):
        train([ball_case(tmp_path, 1)], TASK, SETTINGS, output)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"iterations": 0},
        {"iterations": 1.5},
        {"iterations": True},
        {"max_minutes": 0},
        {"max_minutes": float("nan")},
        {"learning_rate": -1},
        {"learning_rate": "fast"},
        {"crops": 0},
        {"seed": -1},
        {"preset": "huge"},
        {"device": 3},
        {"val_interval": -1},
        {"patience": 0.5},
        {"variant": "other"},
        {"variant": "fixed", "preset": "basicunet"},
        {"gpus": 0},
        {"gpus": True},
        {"gpus": []},
        {"gpus": "all"},
        {"gpus": [0.5]},
        {"gpus": 2, "device": "cpu"},
        {"sampling": "even"},
        {"background_share": 1.0},
        {"loss": "dice"},
    ],
)
def test_impossible_settings_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        TrainSettings(**change)


def test_task_for_cases_reads_spacing_along_anatomical_axes(tmp_path: Path) -> None:
    # Stored as S, L, A with 3, 1 and 2 mm: along R, A, S that is 1, 2 and 3 mm.
    affine = np.array([[0, -1.0, 0, 0], [0, 0, 2.0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    path = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((20, 30, 50), np.float32), affine), path)
    task = task_for_cases("x", {"a": 1}, [path], "CT")
    assert task.spacing == (1.0, 2.0, 3.0)
    assert task.roi_size == (32, 64, 32)
    assert task.intensity == Intensity("window", -125.0, 275.0)
    assert task_for_cases("x", {"a": 1}, [path], "MRI").intensity.mode == "zscore"
    assert task_for_cases("x", {"a": 1}, [path], max_side=32).roi_size == (32, 32, 32)
    nib.save(nib.Nifti1Image(np.zeros((10, 12, 9), np.float32), np.eye(4)), path)
    assert task_for_cases("x", {"a": 1}, [path]).roi_size == (32, 16, 16)
    with pytest.raises(TaskError, match="no image to read the voxel size from"):
        task_for_cases("x", {"a": 1}, [])


def test_patches_pair_image_and_label_with_channel_indices(tmp_path: Path) -> None:
    ready = make_ready(ball_case(tmp_path, 1), TASK)
    assert set(np.unique(ready.label)) == {0, 1}  # value 3 became channel 1
    assert ready.image.mean(dtype=np.float64) == pytest.approx(0, abs=1e-4)
    assert ready.image.std(dtype=np.float64) == pytest.approx(1, abs=1e-3)
    sides, settings = (48, 32, 16), replace(SETTINGS, crops=2)
    patches = next(
        iter(Patches([ready], [1.0], Widening(partial(augmentation, replace(TASK, roi_size=sides))), sides, settings))
    )
    assert [tuple(p["image"].shape) for p in patches] == [(1, 48, 32, 16)] * 2
    for patch in patches:
        inside = patch["label"][0] == 1
        assert patch["image"][0][inside].mean() > patch["image"][0][~inside].mean() + 1
