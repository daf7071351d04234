"""A label comes back as it went in, whatever type it was stored in and whatever its image's header says."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.channels import ONE
from lib.labels.submission import SubmitOptions, prepare_label
from lib.storage.voxels import Received, label_voxels

from rep3d.imaging.nifti import is_written_like, read_label, stored_grid
from tests.rep3d.imaging.odd_nifti import UNIT_MM, itk_grid, write_odd
from tests.rep3d.imaging.test_properties import affines

LABELS = {"a": 1, "b": 2, "c": 300}
SHAPE = (4, 5, 6)


@given(
    affines(shear=False),
    st.sampled_from([0, 2, 10, 1, 3]),
    st.sampled_from([(1, 1), (0, 2), (1, 0), (1, 4)]),
    st.booleans(),
    st.sampled_from(["u2", "i4", "u8", "i8", "f4", "f8", "scaled"]),
    st.sampled_from(["nibabel", "ITK", "voxels"]),
    st.integers(0, 99),
)
@settings(max_examples=25, derandomize=True, deadline=None)
def test_a_label_comes_back_as_it_went_in(
    affine: np.ndarray, unit: int, codes: tuple[int, int], big: bool, kind: str, way: str, seed: int
) -> None:
    values = np.random.default_rng(seed).choice([0, 1, 2, 300], SHAPE)
    values[0, 0, 0] = 300
    with TemporaryDirectory() as place:
        folder = Path(place)
        header_affine = affine.copy()
        header_affine[:3] /= UNIT_MM.get(unit & 7, 1.0)
        fields = {"xyzt_units": unit, "qform_code": codes[0], "sform_code": codes[1], "big": big}
        image = write_odd(folder / "image.nii.gz", np.ones(SHAPE, "i2"), header_affine, **fields)
        sent = folder / "sent.nii.gz"
        if way == "voxels":
            body = folder / "body"
            stored = values.astype("f8" if kind == "scaled" else kind)
            body.write_bytes(stored.tobytes(order="F"))
            Received(body, stored.dtype, stored_grid(image), {}).write_label(image, ONE, sent)
        elif way == "ITK":  # what 3D Slicer and ITK-SNAP write: their own codes, in millimetres
            drawn = sitk.GetImageFromArray(values.T.astype("u2" if kind == "scaled" else kind))
            drawn.CopyInformation(sitk.ReadImage(str(image)))
            sitk.WriteImage(drawn, str(sent))
        elif kind == "scaled":
            write_odd(sent, (values * 2).astype("i2"), header_affine, **fields, scl_slope=0.5, scl_inter=0)
        else:
            write_odd(sent, values.astype(kind), header_affine, **fields)
        scratch = folder / "scratch"
        scratch.mkdir()
        prepared = prepare_label(sent, image, ONE, LABELS, {}, SubmitOptions(), scratch)
        assert prepared.changes == {}
        assert is_written_like(prepared.file, image)
        back, grid = read_label(prepared.file)
        np.testing.assert_array_equal(back, values)
        np.testing.assert_array_equal(label_voxels(prepared.file, image, ONE)[0], values)
        np.testing.assert_array_equal(grid.affine, stored_grid(image).affine)
        np.testing.assert_array_equal(nib.load(prepared.file).affine, nib.load(image).affine)
        np.testing.assert_array_equal(np.rint(nib.load(prepared.file).get_fdata()), values)
        np.testing.assert_allclose(itk_grid(prepared.file).affine, itk_grid(image).affine, rtol=1e-6)
