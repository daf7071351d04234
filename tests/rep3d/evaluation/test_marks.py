"""An image is known again however it is stored, and is not taken for another one."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.imaging import marks
from rep3d.imaging.marks import image_mark

AFFINE = np.array([[0, -1.2, 0, 30], [0, 0, 2.0, -5], [1.5, 0, 0, 7], [0, 0, 0, 1]])


def _written(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return image_mark(path)


@pytest.mark.parametrize("most", [10**6, 500])  # all voxels; some
def test_how_an_image_is_stored_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(marks, "_MOST", most)
    random = np.random.default_rng(0)
    one, two = (random.integers(-900, 900, (13, 11, 8)).astype(np.int16) for _ in range(2))
    mark = _written(tmp_path / "one.nii.gz", one)
    assert mark == _written(tmp_path / "other.nii", one.astype(np.float32))
    stored = nib.Nifti1Image(one, AFFINE)
    for codes in ("LPS", "SAR", "AIR"):
        way = nib.orientations.axcodes2ornt(codes)
        turned = stored.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(AFFINE), way))
        assert _written(tmp_path / f"{codes}.nii.gz", np.asarray(turned.dataobj), turned.affine) == mark
    _written(tmp_path / "two.nii.gz", two)
    apart = image_mark([tmp_path / "one.nii.gz", tmp_path / "two.nii.gz"])
    assert apart == _written(tmp_path / "both.nii.gz", np.stack([one, two], -1))
    assert len({mark, apart, image_mark([tmp_path / "two.nii.gz", tmp_path / "one.nii.gz"])}) == 3


def test_another_image_is_another_one(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (8, 8, 8)).astype(np.int16)
    others = {"more": voxels + 1, "mirrored": voxels[::-1], "less": voxels[:, :, :7]}
    found = {_written(tmp_path / f"{name}.nii.gz", np.ascontiguousarray(other)) for name, other in others.items()}
    assert len({*found, _written(tmp_path / "it.nii.gz", voxels)}) == 4
