"""Training learns, continues, refuses what cannot be trained on, and never leaves a broken checkpoint."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d import training
from rep3d.cases import Case
from rep3d.checkpoint import load_checkpoint
from rep3d.config import Rep3DConfig
from rep3d.errors import CheckpointError, ConfigError, LabelError, NoCasesError, TaskError, TrainingError
from rep3d.inference import Predictor
from rep3d.metrics import dice_of_files
from rep3d.tasks import Intensity, TaskConfig
from rep3d.training import TrainProgress, TrainSettings, task_for_cases, train
from rep3d.transforms import augmentation, preparation

TASK = TaskConfig("balls", {"Ball": 3}, (1.0, 1.0, 1.0), Intensity("zscore", 0.5, 99.5), "RAS", (32, 32, 32))
SETTINGS = TrainSettings(iterations=3, crops=1, device="cpu")


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is under test here, not the network: a small one keeps this quick."""

    def config(name: str, in_channels: int, out_channels: int) -> Rep3DConfig:
        return Rep3DConfig(in_channels, out_channels, (4, 8, 8, 8), (1, 1, 1, 1), 8, kernel_size=7)

    monkeypatch.setattr(training, "preset_config", config)


def _case(folder: Path, seed: int, affine: np.ndarray | None = None) -> Case:
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1)
    inside = np.linalg.norm(grid - random.uniform(12, 20, 3), axis=-1) < 7
    image = np.where(inside, 200.0, 60.0) + random.normal(0, 15, inside.shape)
    affine = np.eye(4) if affine is None else affine
    paths = [folder / f"case_{seed}_{kind}.nii.gz" for kind in ("image", "label")]
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
    nib.save(nib.Nifti1Image((inside * 3).astype(np.uint8), affine), paths[1])
    return Case(f"case_{seed}", *paths)


def test_it_learns_from_two_cases_and_segments_a_third(tmp_path: Path) -> None:
    cases = [_case(tmp_path, seed) for seed in (1, 2)]
    seen: list[TrainProgress] = []
    output = tmp_path / "model.pt"
    settings = TrainSettings(iterations=40, learning_rate=5e-3, device="cpu")
    trained = train(cases, TASK, settings, output, on_progress=seen.append)
    other = _case(tmp_path, 9)
    Predictor.load(output, "cpu").segment(other.image, tmp_path / "found.nii.gz")
    assert dice_of_files(tmp_path / "found.nii.gz", other.label, TASK.labels)["Ball"] > 0.8
    assert trained.info["cases"] == ["case_1", "case_2"]
    assert (trained.version, trained.info["parent"], trained.info["iterations"]) == ("v1", None, 40)
    assert [p.phase for p in seen[:1]] == ["preparing"] and seen[-1].phase == "saving"
    steps = [p for p in seen if p.phase == "training"]
    assert [p.iteration for p in steps] == list(range(1, 41))
    assert steps[-1].loss is not None and steps[0].loss is not None and steps[-1].loss < 0.7 * steps[0].loss


def test_one_case_is_enough_and_a_second_run_continues_from_the_first(tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    first = train([_case(tmp_path, 1)], TASK, SETTINGS, output)
    still = replace(SETTINGS, iterations=1, learning_rate=1e-12, weight_decay=0.0)
    second = train([_case(tmp_path, 2)], TASK, still, output, start=load_checkpoint(output))
    assert (second.version, second.info["parent"]) == ("v2", "v1")
    before, after = dict(first.model.named_parameters()), dict(second.model.named_parameters())
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)


def test_a_run_from_nothing_depends_on_its_seed_only(tmp_path: Path) -> None:
    case = _case(tmp_path, 1)
    runs = [
        train([case], TASK, replace(SETTINGS, seed=seed), tmp_path / f"{name}.pt").model.state_dict()
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    first = next(name for name, tensor in runs[0].items() if tensor.is_floating_point() and tensor.std() > 0)
    torch.testing.assert_close(runs[0][first], runs[1][first])
    assert not torch.equal(runs[0][first], runs[2][first])


def test_the_time_budget_ends_a_run_annealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = training._Monitor.before_step
    monkeypatch.setattr(
        training._Monitor,
        "before_step",
        lambda self, engine: (step(self, engine), rates.append(self.optimizer.param_groups[0]["lr"]))[0],
    )
    started = time.monotonic()
    settings = TrainSettings(iterations=100_000, max_minutes=0.1, crops=1, device="cpu")
    trained = train([_case(tmp_path, 1)], TASK, settings, tmp_path / "model.pt")
    assert time.monotonic() - started < 60
    assert 1 < trained.info["iterations"] < 100_000
    assert rates[-1] < 0.3 * max(rates)


def test_no_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoCasesError, match="at least one labelled case"):
        train([], TASK, SETTINGS, tmp_path / "model.pt")


def test_a_label_that_does_not_fit_is_refused_naming_it(tmp_path: Path) -> None:
    good, other = _case(tmp_path, 1), _case(tmp_path, 2, np.diag([-1.0, 1, 1, 1]))
    with pytest.raises(LabelError, match="case_2_label"):
        train([good, Case("mixed", good.image, other.label)], TASK, SETTINGS, tmp_path / "model.pt")
    assert not (tmp_path / "model.pt").exists()


def test_a_checkpoint_of_another_task_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "model.pt"
    start = train([_case(tmp_path, 1)], TASK, SETTINGS, output)
    before = output.read_bytes()
    with pytest.raises(CheckpointError, match="Ball"):
        train([_case(tmp_path, 1)], replace(TASK, labels={"Cube": 3}), SETTINGS, output, start=start)
    assert output.read_bytes() == before


def test_a_loss_that_is_not_finite_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "model.pt"
    train([_case(tmp_path, 1)], TASK, SETTINGS, output)
    before = output.read_bytes()
    monkeypatch.setattr(training._MixedPrecision, "__call__", lambda self, x, network: network(x) * float("nan"))
    with pytest.raises(TrainingError, match="nothing was published"):
        train([_case(tmp_path, 1)], TASK, SETTINGS, output)
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
    with pytest.raises(TaskError, match="at least one image"):
        task_for_cases("x", {"a": 1}, [])


def test_patches_pair_image_and_label_with_channel_indices(tmp_path: Path) -> None:
    case = _case(tmp_path, 1)
    prepared = preparation(TASK, with_label=True)({"image": str(case.image), "label": str(case.label)})
    assert set(np.unique(prepared["label"])) == {0, 1}  # value 3 became channel 1
    assert float(prepared["image"].mean()) == pytest.approx(0, abs=1e-4)
    assert float(prepared["image"].std()) == pytest.approx(1, abs=1e-3)
    patches = augmentation(replace(TASK, roi_size=(48, 32, 16)), crops=2)(prepared)
    assert [tuple(p["image"].shape) for p in patches] == [(1, 48, 32, 16)] * 2
    for patch in patches:
        inside = patch["label"][0] == 1
        assert patch["image"][0][inside].mean() > patch["image"][0][~inside].mean() + 1
