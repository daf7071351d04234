"""At which voxel size a training works: what the choice depends on, its words, and that it is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.checkpoint import load_checkpoint
from rep3d.data.cases import Case
from rep3d.tasks.config import TaskConfig
from rep3d.training import plan as training_plan
from rep3d.training.minutes import resolution
from rep3d.training.minutes.resolution import plan_resolution, thicknesses
from rep3d.training.train import train
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config

LABELS = {"liver": 1, "adrenal": 2}
CT = TaskConfig("ct", LABELS, (1.0, 1.0, 2.0), roi_size=(96, 96, 96))
THICK = {"liver": 100.0, "adrenal": 6.0}
FAST, SLOW = 1e-9, 1e-6  # seconds per voxel


def _image(folder: Path, shape: tuple[int, ...], spacing: tuple[float, ...], name: str = "image") -> Path:
    path = folder / f"{name}.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.diag([*spacing, 1.0])), path)
    return path


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return an image of 320 x 320 x 240 mm."""
    return [_image(tmp_path_factory.mktemp("ct"), (80, 80, 60), (4.0, 4.0, 4.0))]


def test_more_time_or_a_faster_machine_makes_voxels_finer_down_to_the_tasks_own(ct: list[Path]) -> None:
    sides = [min(plan_resolution(CT, ct, THICK, minutes, 16, lambda: SLOW).spacing) for minutes in (1, 6, 60, 600)]
    assert sides == sorted(sides, reverse=True) and sides[0] > 1.5 * sides[1] > 1.5 * sides[-1]
    fast = plan_resolution(CT, ct, THICK, 60, 16, lambda: FAST)
    assert fast.spacing == CT.spacing and fast.roi_size == (128, 128, 128)
    gpu = plan_resolution(CT, ct, THICK, 6, 16, lambda: pytest.fail("was measured"), on_gpu=True)
    assert (gpu.spacing, gpu.roi_size, gpu.steps) == (CT.spacing, CT.roi_size, None)


def test_within_the_minutes_a_patch_holds_the_whole_image(ct: list[Path]) -> None:
    found = plan_resolution(CT, ct, THICK, 6, 16, lambda: SLOW)
    extent = [side * voxel for side, voxel in zip(found.roi_size, found.spacing, strict=True)]
    assert all(covered >= length for covered, length in zip(extent, (320, 320, 240), strict=True))
    assert found.steps == int(360 / (SLOW * np.prod(found.roi_size)))
    assert "which hold a whole image" in found.words and f"about {found.steps} steps in 6 minutes" in found.words


def test_structures_decide_how_fine_is_enough_and_too_thin_ones_are_named(ct: list[Path]) -> None:
    liver = plan_resolution(CT, ct, {"liver": 100.0}, 600, 16, lambda: FAST)
    assert min(liver.spacing) == 4.0 and "thin" not in liver.words
    both = plan_resolution(CT, ct, THICK, 1, 16, lambda: SLOW)
    assert "hardly to be found yet: adrenal (6.0 mm thick)" in both.words and "liver" not in both.words


def test_thick_slices_stay_and_small_images_are_not_coarsened(tmp_path: Path) -> None:
    heart = replace(CT, spacing=(1.5, 1.5, 10.0))
    images = [_image(tmp_path, (200, 200, 12), (1.5, 1.5, 10.0))]
    found = plan_resolution(heart, images, {"myocardium": 12.0}, 1, 16, lambda: SLOW)
    assert found.spacing[0] == found.spacing[1] > 1.5 and found.spacing[2] == 10.0
    crop = [_image(tmp_path, (35, 50, 36), (1.0, 1.0, 1.0), "crop")]
    small = plan_resolution(replace(CT, spacing=(1.0,) * 3), crop, {"hippocampus": 7.0}, 0.1, 16, lambda: SLOW)
    assert small.spacing == (1.0, 1.0, 1.0) and small.roi_size == (48, 64, 48)
    unknown = plan_resolution(CT, [tmp_path / "gone.nii.gz"], {}, 1, 16, lambda: SLOW)
    assert (unknown.spacing, unknown.roi_size) == (CT.spacing, CT.roi_size)


def test_a_model_need_not_get_used_to_a_slightly_other_voxel_size(ct: list[Path]) -> None:
    plain = plan_resolution(CT, ct, THICK, 6, 16, lambda: SLOW).spacing
    near = (plain[0] * 1.1,) * 3
    assert plan_resolution(CT, ct, THICK, 6, 16, lambda: SLOW, known=near).spacing == near
    far = (plain[0] * 2.0,) * 3
    assert plan_resolution(CT, ct, THICK, 6, 16, lambda: SLOW, known=far).spacing == plain


def test_how_thick_structures_are_is_measured_in_mm(tmp_path: Path) -> None:
    values = np.zeros((30, 30, 20), np.uint8)
    values[2:22, 2:22, 3:17] = 1  # 20 x 20 x 28 mm
    values[24:27, :, :] = 2  # a sheet of 3 mm
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([1.0, 1.0, 2.0, 1.0])), label)
    found = thicknesses([Case("a", label, label), Case("b", label, tmp_path / "gone")], {**LABELS, "spleen": 3})
    assert found == pytest.approx({"liver": 20.0, "adrenal": 3.0}, abs=1.0)


def test_a_training_keeps_what_it_chose_and_a_later_one_gets_back_to_the_tasks_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    monkeypatch.setattr(resolution, "_ALWAYS", 16**3)
    monkeypatch.setattr(resolution, "_ACROSS", 20.0)
    measured: list[str] = []
    monkeypatch.setattr(resolution, "measure_step", lambda *of: measured.append(of[-1]) or 1e-3)
    settings = replace(SETTINGS, resolution="auto", max_minutes=1.0, precision="float32")
    cases = [ball_case(tmp_path, 1)]
    coarse = train(cases, TASK, settings, tmp_path / "coarse.pt")
    facts = load_checkpoint(tmp_path / "coarse.pt").info["resolution"]
    assert coarse.task.spacing[0] > 1.2 and facts["spacing"] == list(coarse.task.spacing) and measured == ["float32"]
    assert facts["own"] == {"spacing": [1.0, 1.0, 1.0], "roi_size": [32, 32, 32]}
    monkeypatch.setattr(resolution, "_wanted_steps", lambda minutes: 0.1)  # as with much more time
    finer = train(cases, coarse.task, settings, tmp_path / "finer.pt", coarse)
    assert finer.task.spacing == TASK.spacing and len(measured) == 1  # the same machine is not measured again
    assert finer.info["resolution"]["words"].startswith("Voxels of 1 x 1 x 1 mm")
    train(cases, coarse.task, replace(settings, precision="bfloat16"), tmp_path / "half.pt", coarse)
    assert measured == ["float32", "bfloat16"]  # a step takes another time in it
