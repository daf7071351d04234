"""Images of several channels: one 4D file or a file for each gives the same; what does not fit is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.errors import ImageError, LabelError
from rep3d.imaging.body import body_mask
from rep3d.imaging.channels import channels_grid, count_channels, read_channels
from rep3d.imaging.labels import check_label
from rep3d.imaging.nifti import read_label, write_label
from rep3d.imaging.transforms import ImageSteps, preparation
from rep3d.tasks.config import Channel, Intensity, TaskConfig

AFFINE = np.array([[0, -1.0, 0, 5], [0.9, 0, 0, -20], [0, 0, 2.0, 5], [0, 0, 0, 1.0]])
ONE = TaskConfig("one", {"A": 2}, (1.0, 1.0, 1.5), Intensity("window", 0, 100))
TWO = TaskConfig(
    "two",
    {"A": 2},
    (1.0, 1.0, 1.5),
    channels=(Channel("CT", Intensity("window", 0, 100)), Channel("PET", Intensity("zscore", 1, 99))),
)


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-50, 200, (7, 9, 5, 2)).astype(np.int16)


def _files(write_nifti: Callable[..., Path], voxels: np.ndarray) -> list[Path]:
    return [write_nifti(f"x_{c:04d}.nii.gz", voxels[..., c].astype(kind), AFFINE) for c, kind in enumerate("hf")]


def test_a_4d_file_and_files_of_channels_are_one_image(write_nifti: Callable[..., Path], voxels: np.ndarray) -> None:
    files = _files(write_nifti, voxels)
    together = write_nifti("x.nii.gz", voxels, AFFINE)
    vector = write_nifti("v.nii.gz", voxels[:, :, :, None], AFFINE)  # as ITK writes it
    assert [count_channels(image) for image in (files, together, vector, files[0])] == [2, 2, 2, 1]
    expected = preparation(TWO)({"image": files})["image"]
    for image in (together, vector, [str(together)]):
        read, grid = read_channels(image, 2)
        np.testing.assert_array_equal(np.stack(read, -1), voxels)
        assert grid.shape == (7, 9, 5) == channels_grid(image, 2).shape
        found = preparation(TWO)({"image": image})["image"]
        np.testing.assert_array_equal(found.numpy(), expected.numpy())
        np.testing.assert_array_equal(found.affine.numpy(), expected.affine.numpy())
    alone = [preparation(task)({"image": files[0]})["image"].numpy() for task in (ONE,)]
    np.testing.assert_array_equal(expected[:1].numpy(), alone[0])
    steps = ImageSteps(TWO)
    np.testing.assert_array_equal(steps.scaled(steps.spaced(steps.read(files))).numpy(), expected.numpy())
    assert abs(float(expected[1].mean())) < 1e-3 and float(expected[0].min()) == 0 and float(expected[0].max()) == 1


def test_channels_that_do_not_fit_are_refused_by_name(write_nifti: Callable[..., Path], voxels: np.ndarray) -> None:
    files = _files(write_nifti, voxels)
    together = write_nifti("x.nii.gz", voxels, AFFINE)
    shifted = write_nifti("s_0001.nii.gz", voxels[..., 1], AFFINE + np.eye(4))
    for image, count, words in (
        (files, 3, "x_0000.nii.gz, x_0001.nii.gz: 2 channels, where 3 are needed"),
        (files, 1, "2 channels, where 1 is needed.*If they are images of their own, rename them"),
        (files[:1], 2, "x_0000.nii.gz: 1 channel, where 2 are needed"),
        (together, 3, "x.nii.gz: 2 channels, where 3 are needed"),
        (together, 1, "x.nii.gz is not three-dimensional"),
        ([files[0], together], 2, "x.nii.gz is not three-dimensional"),
        ([files[0], shifted], 2, "s_0001.nii.gz does not lie on the voxels of x_0000.nii.gz"),
        ([files[0], write_nifti("y.nii", voxels[:5, ..., 1], AFFINE)], 2, "y.nii does not lie on the voxels of"),
    ):
        for look in (channels_grid, read_channels):
            with pytest.raises(ImageError, match=words):
                look(image, count)


def test_a_label_map_lies_on_an_image_of_several_channels(
    write_nifti: Callable[..., Path], voxels: np.ndarray, tmp_path: Path
) -> None:
    together = write_nifti("x.nii.gz", voxels, AFFINE)
    values = (voxels[..., 0] > 100).astype(np.uint8) * 2
    write_label(values, together, tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii.gz")[0], values)
    stored, like = nib.load(tmp_path / "label.nii.gz").header, nib.load(together).header
    assert all(np.array_equal(stored[name], like[name]) for name in ("srow_x", "quatern_b", "qform_code"))
    check_label(tmp_path / "label.nii.gz", together, {"A": 2}, channels=2)
    with pytest.raises(LabelError, match="expected an array of shape"):
        write_label(values[:3], together, tmp_path / "cut.nii.gz")
    with pytest.raises(LabelError, match="does not lie on the voxels of image x.nii.gz"):
        check_label(write_nifti("cut.nii.gz", values[:3], AFFINE), together, {"A": 2}, channels=2)


def test_the_body_is_what_any_channel_shows() -> None:
    import torch

    image = np.full((2, 40, 40, 40), -1000.0, np.float32)
    image[0, 5:15, 5:15, 5:35] = 40
    image[1, 25:35, 25:35, 5:35] = 40
    spacing = (5.0, 5.0, 5.0)
    both = body_mask(torch.from_numpy(image), spacing, "RAS", [True, True])
    each = [body_mask(torch.from_numpy(image[c : c + 1]), spacing, "RAS", [True]).cells for c in (0, 1)]
    assert not each[0].all() and not (each[0] == each[1]).all()
    np.testing.assert_array_equal(both.cells, each[0] | each[1])
