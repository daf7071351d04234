"""Whatever a header says: our places and values are those of ITK and nibabel, or it is refused; labels come back whole.

`REP3D_EXAMPLES=2000` tries more.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rep3d.errors import ImageError, LabelError
from rep3d.imaging.grid import same_grid
from rep3d.imaging.labels import check_label, label_counts
from rep3d.imaging.nifti import read_image, read_label, write_label
from tests.rep3d.imaging.odd_nifti import UNIT_MM, itk_grid, nibabel_grid, write_odd

EXAMPLES = int(os.environ.get("REP3D_EXAMPLES", "25"))
a_few = settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 25, deadline=None)
TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


@st.composite
def affines(draw: st.DrawFn, shear: bool = True) -> np.ndarray:
    """Return axes in any order, flipped, turned, perhaps sheared, with any sides and origin."""
    turn = np.eye(3)[list(draw(st.permutations(range(3))))] * draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    for axis in range(3):
        angle = draw(st.sampled_from([0.0, 0.0, 0.1, 0.7, -1.2]))
        first, second = [n for n in range(3) if n != axis]
        spin = np.eye(3)
        spin[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        turn = spin @ turn
    if shear:
        turn = turn @ (np.eye(3) + draw(st.sampled_from([0.0, 0.0, 1e-6, 1e-3, 0.2])) * np.eye(3, k=1))
    sides = draw(st.tuples(*[st.floats(0.05, 20)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = turn * sides
    affine[:3, 3] = draw(st.tuples(*[st.floats(-500, 500)] * 3))
    return affine


@st.composite
def headers(draw: st.DrawFn) -> dict[str, Any]:
    """Return what an odd header says, as arguments of :func:`write_odd`."""
    affine = draw(affines())
    unit = draw(st.sampled_from([0, 2, 2, 10, 1, 3, 4]))
    scaled = affine.copy()
    scaled[:3] /= UNIT_MM.get(unit & 7, 1.0)
    fields: dict[str, Any] = {
        "affine": scaled,
        "xyzt_units": unit,
        "qform_code": draw(st.integers(0, 5)),
        "sform_code": draw(st.integers(0, 5)),
        "big": draw(st.booleans()),
        "two": draw(st.sampled_from([False, False, True])),
        "scl_slope": draw(st.sampled_from([0.0, 1.0, np.nan, 0.1, -2.0, 1 / 255])),
        "scl_inter": draw(st.sampled_from([0.0, 0.0, 0.5, -1024.0])),
    }
    if draw(st.integers(0, 3)) == 0:
        other = scaled.copy()
        other[:3, 3] += draw(st.sampled_from([1e-3, 1e-2, 0.3, 30.0])) * np.linalg.norm(scaled[:3, :3], axis=0).min()
        fields["sform"] = other
    elif draw(st.integers(0, 9)) == 0:
        fields["sform"] = draw(affines())
    return fields


@given(headers(), st.sampled_from(TYPES), st.tuples(*[st.integers(1, 5)] * 3), st.integers(0, 2**32 - 1))
@a_few
def test_places_and_values_are_those_of_nibabel_and_itk(
    fields: dict[str, Any], kind: str, shape: tuple[int, int, int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    voxels = random.integers(-100, 100, shape).astype(kind) if kind[0] != "u" else random.integers(0, 99, shape)
    with TemporaryDirectory() as folder:
        file = write_odd(Path(folder) / "image.nii.gz", voxels.astype(kind), **fields)
        shifted = not fields["scl_slope"] or not np.isfinite(fields["scl_slope"])
        try:
            found, grid = read_image(file)
        except ImageError as refusal:
            said = str(refusal)
            if "scl_inter" in said:
                assert shifted and fields["scl_inter"]
            elif "neither" in said:
                assert not fields["sform_code"] and not fields["qform_code"]
            else:
                assert "differ" in said and not _agree_exactly(file), said
            return
        assert same_grid(grid, nibabel_grid(file), 1e-4)
        itk = itk_grid(file)
        assert itk is None or same_grid(grid, itk, 0.06)
        expected = np.asarray(nib.load(file).dataobj)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)
        if itk is not None:
            np.testing.assert_allclose(sitk.GetArrayFromImage(sitk.ReadImage(str(file))).T, found, rtol=1e-5, atol=1e-3)
        label = Path(folder) / "label.nii.gz"
        values = random.integers(0, random.choice([2, 300]), shape)
        write_label(values, file, label)
        back, place = read_label(label)
        np.testing.assert_array_equal(back, values)
        np.testing.assert_array_equal(place.affine, grid.affine)
        np.testing.assert_array_equal(nib.load(label).affine, nib.load(file).affine)
        assert itk is None or same_grid(itk_grid(label), itk, 1e-6)
        check_label(label, file, {str(n): int(n) for n in np.unique(values) if n})


def _agree_exactly(file: Path) -> bool:
    """Return whether all that a header says of places is the same to all readers."""
    header = nib.load(file).header
    grid, itk = nibabel_grid(file), itk_grid(file)
    qform, code = header.get_qform(coded=True)
    same = itk is None or same_grid(grid, itk, 1e-4)
    return same and (not code or np.allclose(qform, header.get_best_affine(), rtol=1e-6, atol=1e-6))


@given(
    st.lists(st.sampled_from([0, 1, 2, 7, 255, 256, 40000, 65535]), min_size=1, max_size=12),
    st.sampled_from([*TYPES, "scaled"]),
    st.sampled_from([1 / 255, 0.1, 0.5, 2.0, 3.0, 65535 / 32000]),
    st.sampled_from([0.0, 1.0, -3.0]),
)
@a_few
def test_values_are_compared_as_what_they_mean(values: list[int], kind: str, slope: float, inter: float) -> None:
    given_ = np.array(values).reshape(-1, 1, 1)
    with TemporaryDirectory() as folder:
        if kind == "scaled":
            stored = np.rint((given_ - inter) / np.float64(np.float32(slope)))
            assume(np.abs(stored * np.float32(slope) + inter - given_).max() < 0.04)
            file = write_odd(Path(folder) / "x.nii", stored.astype("i4"), np.eye(4), scl_slope=slope, scl_inter=inter)
        else:
            assume(kind[0] == "f" or max(values) <= np.iinfo(kind).max)
            nudged = given_ + (3e-4 if kind[0] == "f" else 0)
            file = write_odd(Path(folder) / "x.nii", nudged.astype(kind), np.eye(4))
        found, _ = read_label(file)
        np.testing.assert_array_equal(found, given_)
        assert found.dtype in (np.uint8, np.uint16)
        assert label_counts(found) == {value: values.count(value) for value in set(values)}


@given(
    st.sampled_from(["u4", "i2", "i8", "u8", "f4", "f8"]),
    st.tuples(*[st.integers(0, 3)] * 3),
    st.sampled_from([-1, 65536, 2**63, 0.5, 1.02, float("nan"), float("inf"), -1e30]),
)
@a_few
def test_a_value_that_is_none_is_named_with_its_place(kind: str, place: tuple[int, int, int], value: float) -> None:
    whole = kind[0] != "f"
    assume(not whole or (value == value and abs(value) < 1e20 and value == int(value)))
    assume(not whole or np.iinfo(kind).min <= value <= np.iinfo(kind).max)
    voxels = np.ones((4, 4, 4), kind)
    voxels[place] = value
    with TemporaryDirectory() as folder:
        file = write_odd(Path(folder) / "x.nii", voxels, np.eye(4))
        try:
            read_label(file)
        except LabelError as refusal:
            assert f"at voxel {place}," in str(refusal)
            told = float(str(refusal).split("has the value ")[1].split(" at voxel")[0])
            np.testing.assert_allclose(told, float(voxels[place]))
        else:
            raise AssertionError("accepted")
