"""What a header says of places and values is believed as ITK and nibabel both believe it, or refused by name."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from rep3d.errors import ImageError, LabelError
from rep3d.imaging import nifti
from rep3d.imaging.grid import same_grid
from rep3d.imaging.nifti import geometry, is_written_like, read_image, read_label, stored_grid, write_label
from tests.rep3d.imaging.grids import LEFT_HANDED, OBLIQUE
from tests.rep3d.imaging.odd_nifti import itk_grid, nibabel_grid, write_odd

AFFINE = np.array([[0, 0, 4.0, 10], [-2, 0, 0, 20], [0, 3, 0, 30], [0, 0, 0, 1.0]])
VOXELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6)


def _shifted(mm: float) -> np.ndarray:
    moved = AFFINE.copy()
    moved[0, 3] += mm
    return moved


def _sheared(share: float) -> np.ndarray:
    return AFFINE @ np.array([[1, share, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


BELIEVED: dict[str, dict[str, Any]] = {
    "metres": {"xyzt_units": 1, "sform": AFFINE / 1000, "qform": AFFINE / 1000},
    "micrometres and seconds": {"xyzt_units": 3 + 8},
    "millimetres": {"xyzt_units": 2},
    "no unit": {"xyzt_units": 0},
    "a unit that NIfTI does not know": {"xyzt_units": 5},
    "sform alone": {"qform_code": 0, "qform": _shifted(9)},
    "qform alone": {"sform_code": 0, "sform": _shifted(9)},
    "two codes, one place": {"qform_code": 1, "sform_code": 4},
    "a twentieth of a voxel between the two": {"qform": _shifted(0.09)},
    "left-handed": {"sform": LEFT_HANDED, "qform": LEFT_HANDED},
    "qfac 0": {"sform_code": 0, "sform": np.diag([2, 3, 4, 1.0]), "qform": np.diag([2, 3, 4, 1.0]), "pixdim": 0},
    "display range": {"cal_min": 5, "cal_max": 20},
    "intent": {"intent_code": 1007},
    "big-endian": {"big": True},
    "NIfTI-2": {"two": True},
}


@pytest.mark.parametrize("what", BELIEVED)
def test_what_is_believed_is_what_others_see(tmp_path: Path, what: str) -> None:
    fields = dict(BELIEVED[what])
    if what == "qfac 0":
        fields["pixdim"] = [0, 2, 3, 4, 0, 0, 0, 0]
    file = write_odd(tmp_path / "image.nii", VOXELS, AFFINE, **fields)
    voxels, grid = read_image(file)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_allclose(grid.affine, nibabel_grid(file).affine, rtol=1e-6)
    itk = itk_grid(file)
    if what == "NIfTI-2":
        assert itk is None
    else:
        assert itk is not None and same_grid(grid, itk, 0.06)
    label = (VOXELS % 3).astype(np.uint8)
    write_label(label, file, tmp_path / "label.nii.gz")
    assert is_written_like(tmp_path / "label.nii.gz", file)
    values, place = read_label(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(values, label)
    np.testing.assert_array_equal(place.affine, grid.affine)
    np.testing.assert_array_equal(nib.load(tmp_path / "label.nii.gz").affine, nib.load(file).affine)


def test_a_unit_makes_millimetres(tmp_path: Path) -> None:
    for unit, side in ((1, 0.002), (3, 2000.0)):
        file = write_odd(tmp_path / "image.nii", VOXELS, np.diag([side] * 3 + [1]), xyzt_units=unit)
        np.testing.assert_allclose(stored_grid(file).spacing, (2, 2, 2), rtol=1e-6)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no code": ({"qform_code": 0, "sform_code": 0}, "neither qform nor sform is set"),
    "codes that NIfTI does not know": ({"sform_code": 9}, "codes"),
    "two places": ({"sform": _shifted(5)}, "its sform and its qform differ"),
    "mirrored": ({"sform": AFFINE @ np.diag([-1, 1, 1, 1])}, "its sform and its qform differ"),
    "sheared beside a qform": ({"sform": _sheared(0.1)}, "differ"),
    "sizes beside the sform": (
        {"qform_code": 0, "pixdim": [1, 1, 1, 1, 0, 0, 0, 0]},
        "its sform and its pixdim differ",
    ),
    "negative size": ({"pixdim": [1, -2, 3, 4, 0, 0, 0, 0]}, "voxel sizes of"),
    "size 0": ({"pixdim": [1, 0, 3, 4, 0, 0, 0, 0]}, "voxel sizes of"),
    "size NaN": ({"pixdim": [1, 2, np.nan, 4, 0, 0, 0, 0]}, "voxel sizes of"),
    "qfac -7": ({"pixdim": [-7, 2, 3, 4, 0, 0, 0, 0]}, "qfac"),
    "long quaternion": ({"quatern_b": 0.8, "quatern_c": 0.8}, "no rotation"),
    "quaternion of NaN": ({"quatern_b": np.nan}, "not all is a number"),
    "sform of NaN": ({"srow_x": np.nan}, "not all is a number"),
    "sform of nothing": ({"srow_x": 0}, "where its voxels lie"),
    "flat": ({"qform_code": 0, "sform": AFFINE @ [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "same way"),
    "tiny": ({"sform": np.diag([1e-4, 1, 1, 1]), "qform": np.diag([1e-4, 1, 1, 1])}, "no scanner"),
    "giant": ({"sform": np.diag([100, 1, 1, 1]), "qform": np.diag([100, 1, 1, 1])}, "no scanner"),
    "metres that are none": ({"xyzt_units": 1}, "no scanner"),
    "a shift without a scale": ({"scl_slope": 0, "scl_inter": 5}, "scl_inter"),
    "a shift with a scale that is no number": ({"scl_slope": np.nan, "scl_inter": 5}, "scl_inter"),
    "a shift that is no number": ({"scl_slope": 1, "scl_inter": np.nan}, "damaged"),
    "a scale beyond single precision": ({"scl_slope": 3e38, "scl_inter": 0}, "too large for an intensity"),
    "voxels inside the header": ({"vox_offset": 0}, "damaged"),
    "voxels far behind the header": ({"vox_offset": 1e9}, "damaged"),
    "more voxels than the file": ({"dim": [3, 4, 5, 600, 1, 1, 1, 1]}, "announces"),
    "no voxels": ({"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "three-dimensional"),
    "time": ({"dim": [4, 4, 5, 3, 2, 1, 1, 1]}, "three-dimensional"),
    "vectors": ({"dim": [5, 4, 5, 2, 1, 3, 1, 1], "intent_code": 1007}, "three-dimensional"),
    "complex": ({"datatype": 32}, "not one number each"),
    "colour": ({"datatype": 128}, "not one number each"),
    "a type that NIfTI does not know": ({"datatype": 77}, "damaged"),
    "another magic": ({"magic": b"abc"}, "no NIfTI image"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_certain_is_refused_by_name(tmp_path: Path, what: str) -> None:
    fields, words = REFUSED[what]
    if what == "flat":
        fields = {**fields, "pixdim": [1, 2, 2, 4, 0, 0, 0, 0]}
    file = write_odd(tmp_path / "odd.nii", VOXELS, AFFINE, **fields)
    for read, error in ((geometry, ImageError), (read_label, LabelError)):
        if what == "a scale beyond single precision" and read is read_label:
            words = "a whole number"
        with pytest.raises(error, match=f"odd.nii .*{words}") as refusal:
            read(file)
        assert str(refusal.value).count(". ") >= 1  # and what to do


def test_a_sheared_sform_alone_is_used_as_it_is(tmp_path: Path) -> None:
    file = write_odd(tmp_path / "tilted.nii", VOXELS, AFFINE, sform=OBLIQUE, qform_code=0, pixdim=[1, *_sides(OBLIQUE)])
    np.testing.assert_allclose(stored_grid(file).affine, OBLIQUE, rtol=1e-6)
    assert itk_grid(file) is None  # it opens no such file, so shows nothing at another place


def _sides(affine: np.ndarray) -> list[float]:
    return [*np.linalg.norm(affine[:3, :3], axis=0), 0, 0, 0, 0]


def test_analyze_and_files_of_two_parts_are_refused(tmp_path: Path) -> None:
    for kind in (nib.AnalyzeImage, nib.Nifti1Pair):
        nib.save(kind(VOXELS, np.eye(4)), tmp_path / "pair.img")
        for name in ("pair.img", "pair.hdr"):
            with pytest.raises(ImageError, match=f"{name} is no NIfTI file of one part"):
                read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("slope", "inter", "expected"), [(2, 5, 2 * VOXELS + 5), (-1, 0, -VOXELS), (0, 0, VOXELS), (np.nan, 0, VOXELS)]
)
def test_scales_are_as_itk_reads_them(tmp_path: Path, slope: float, inter: float, expected: np.ndarray) -> None:
    file = write_odd(tmp_path / "image.nii", VOXELS, AFFINE, scl_slope=slope, scl_inter=inter)
    np.testing.assert_allclose(read_image(file)[0], expected)
    np.testing.assert_allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(file))).T, expected)


def test_words_for_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_odd(tmp_path / "image.nii.gz", np.random.default_rng(0).integers(0, 999, (20, 20, 20)), AFFINE)
    cut, folder, closed = tmp_path / "cut.nii.gz", tmp_path / "folder.nii.gz", tmp_path / "closed.nii"
    cut.write_bytes(whole.read_bytes()[:9000])
    folder.mkdir()
    closed.write_bytes(gzip.decompress(whole.read_bytes()))
    torn = tmp_path / "torn.nii"
    torn.write_bytes(closed.read_bytes()[:5000])
    said = {cut: "cut short or damaged", folder: "is a folder", torn: "is damaged: its header announces 0.1 MB"}
    for file, words in said.items():
        with pytest.raises(ImageError, match=words):
            read_image(file)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(nifti, "_content", refuse)
    with pytest.raises(ImageError, match="closed.nii may not be read by the account") as refusal:
        read_image(closed)
    assert "Permission denied" not in str(refusal.value)
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(nifti, "_content", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(ImageError, match="cannot be read from its disk"):
        read_image(closed)
