"""Our fast preparation gives what MONAI's own transforms give, for images and for label maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, Orientationd, Spacingd

from rep3d.imaging.nifti import stored_grid
from rep3d.imaging.resampling import AxisMap, interpolate_axis
from rep3d.imaging.transforms import ImageSteps, ParallelSpacingd, ReadVolumed, preparation, task_grid
from rep3d.tasks.config import Intensity, TaskConfig

ANGLE = np.deg2rad(15)
TURNED = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1.0]])
SHEARED = np.array([[1, 0, 0.4], [0, 1, 0], [0, 0, 1.0]])


def _affine(matrix: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag(spacing)
    affine[:3, 3] = (10, -20, 5)
    return affine


CASES = {
    "finer": _affine(np.eye(3), (0.7, 0.8, 1.1)),
    "coarser": _affine(np.eye(3), (2.6, 3.1, 4.3)),
    "left-handed": _affine(np.diag([-1.0, -1, 1]), (0.7, 0.7, 3.0)),
    "axes exchanged": _affine(np.eye(3)[:, [2, 0, 1]], (1.0, 0.9, 2.0)),
    "oblique": _affine(TURNED, (0.8, 0.9, 2.0)),
    "sheared": _affine(SHEARED, (0.8, 0.9, 2.0)),
    "the task's own": _affine(np.eye(3), (1.5, 1.5, 2.0)),
    "nearly the task's own": _affine(np.eye(3), (1.5004, 1.4996, 2.0)),
}


def _monai(modes: list[str]) -> Compose:
    keys = ["image", "label"]
    return Compose(
        [
            LoadImaged(keys, reader="NibabelReader", image_only=True, ensure_channel_first=True, dtype=np.float32),
            Orientationd(keys, axcodes="RAS", labels=None),
            Spacingd(keys, pixdim=(1.5, 1.5, 2.0), mode=modes, padding_mode="border", scale_extent=False),
        ]
    )


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("kind", [np.int16, np.uint16, np.float32, np.float64, np.uint8])
def test_the_same_voxels_on_the_same_grid_as_monai(write_nifti: Callable[..., Path], name: str, kind: type) -> None:
    random = np.random.default_rng(0)
    voxels = random.uniform(0, 200, (23, 19, 14)).astype(kind)
    files = {
        "image": str(write_nifti("image.nii.gz", voxels, CASES[name])),
        "label": str(write_nifti("label.nii.gz", (voxels > 150).astype(np.uint8), CASES[name])),
    }
    modes = ["bilinear", "nearest"]
    expected = _monai(modes)(files)
    keys = ["image", "label"]
    ours = Compose(
        [
            ReadVolumed(keys),
            Orientationd(keys, axcodes="RAS", labels=None),
            ParallelSpacingd(keys, (1.5, 1.5, 2.0), modes),
        ]
    )(files)
    for key in keys:
        assert ours[key].shape == expected[key].shape
        np.testing.assert_allclose(ours[key].affine, expected[key].affine, atol=1e-6)
    assert ours["image"].dtype == torch.float32
    torch.testing.assert_close(ours["image"].as_tensor(), expected["image"].as_tensor(), atol=0.02, rtol=0)
    assert (ours["label"].as_tensor() != expected["label"].as_tensor()).float().mean() < 0.002


@pytest.mark.parametrize("kind", [torch.int16, torch.float32, torch.float16, torch.uint8])
def test_the_order_of_memory_changes_no_bit(kind: torch.dtype) -> None:
    as_stored = torch.from_numpy(np.random.default_rng(0).uniform(0, 200, (2, 7, 6, 5))).to(kind)
    position = np.clip(np.linspace(-0.3, 4.7, 9), 0, 4)
    for volume in (as_stored, as_stored.permute(0, 3, 2, 1), as_stored[:, ::2, 1:]):
        for axis in (1, 2, 3):
            along = AxisMap(0, position * (volume.shape[axis] - 1) / 4)
            first, second, weight = map(torch.from_numpy, along.corners(volume.shape[axis]))
            low, high = (volume.contiguous().index_select(axis, voxels).float() for voxels in (first, second))
            weights = weight.reshape([-1 if number == axis else 1 for number in range(4)])
            assert torch.equal(interpolate_axis(volume, axis, along), low.lerp(high, weights))


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR"])
def test_the_grid_is_known_without_the_voxels(write_nifti: Callable[..., Path], name: str, orientation: str) -> None:
    file = write_nifti("image.nii.gz", np.zeros((23, 19, 14), np.uint8), CASES[name])
    task = TaskConfig("any", {"x": 1}, (1.5, 1.5, 2.0), Intensity("zscore", 0.5, 99.5), orientation, (16, 16, 16))
    steps = ImageSteps(task)
    expected = steps.spaced(steps.read(file))
    grid = task_grid(task, stored_grid(file))
    assert grid.shape == tuple(expected.shape[1:])
    np.testing.assert_allclose(grid.affine, expected.affine, atol=1e-9)


def test_scaled_whole_numbers_are_read_as_the_header_says(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    nib.save(image, tmp_path / "ct.nii.gz")
    task = TaskConfig("t", {"a": 1}, (1, 1, 1), Intensity("window", -1000, -882))
    found = preparation(task)({"image": str(tmp_path / "ct.nii.gz")})["image"]
    expected = np.asanyarray(nib.load(tmp_path / "ct.nii.gz").dataobj)
    assert expected.max() > -900
    np.testing.assert_allclose(found[0], (expected + 1000) / 118, atol=1e-6)


def test_training_reads_labels_as_what_they_mean(tmp_path: Path) -> None:
    """Floats beside whole numbers and integers with a scale become channels as plain integers do."""
    values = np.random.default_rng(0).choice([0, 2, 7], (6, 5, 4))
    image = tmp_path / "image.nii.gz"
    nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), image)
    floats = nib.Nifti1Image((values + 2e-4).astype(np.float32), np.eye(4) + 1e-5)
    scaled = nib.Nifti1Image(np.rint(values * 255 / 7).astype(np.int16), np.eye(4))
    scaled.header.set_slope_inter(7 / 255, 0.0)
    task = TaskConfig("t", {"a": 2, "b": 7}, (1, 1, 1), Intensity("window", 0, 10))
    for label in (floats, scaled):
        nib.save(label, tmp_path / "label.nii.gz")
        found = preparation(task, True)({"image": str(image), "label": str(tmp_path / "label.nii.gz")})
        np.testing.assert_array_equal(found["label"][0], np.searchsorted([0, 2, 7], values))
        torch.testing.assert_close(found["label"].affine, found["image"].affine, rtol=0, atol=0)
