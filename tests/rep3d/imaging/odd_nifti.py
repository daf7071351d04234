"""NIfTI files whose headers say odd things, and what ITK makes of them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from rep3d.imaging.grid import Geometry

sitk.ProcessObject.SetGlobalWarningDisplay(False)
UNIT_MM = {1: 1000.0, 3: 0.001}


def write_odd(
    path: Path, voxels: np.ndarray, affine: np.ndarray, *, big: bool = False, two: bool = False, **fields: Any
):
    """Write voxels as they are, and then these fields of the header, whatever they say. Return the path.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        voxels: as stored.
        affine: what both qform and sform say, unless fields say otherwise; a qform knows no shear.
        big: big-endian.
        two: NIfTI-2.
        fields: names of the header's fields; ``qform`` and ``sform`` stand for their matrices.
    """
    kind = nib.Nifti2Image if two else nib.Nifti1Image
    header = kind.header_class(endianness=">" if big else "<")
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header["vox_offset"], header["magic"] = header.single_vox_offset, header.single_magic
    header.set_sform(fields.pop("sform", affine), 1)
    header.set_qform(fields.pop("qform", affine), 1)
    for name, value in fields.items():
        header[name] = value
    gap = bytes(header.single_vox_offset - len(header.binaryblock))
    stored = voxels.astype(voxels.dtype.newbyteorder(header.endianness)).tobytes(order="F")
    content = header.binaryblock + gap + stored
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def itk_grid(path: Path) -> Geometry | None:
    """Return where ITK, and so 3D Slicer, puts the voxels, in RAS; None where it does not open the file."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    affine = np.eye(4)
    affine[:3, :3] = np.array(reader.GetDirection()).reshape(3, 3) * reader.GetSpacing()
    affine[:3, 3] = reader.GetOrigin()
    affine[:2] *= -1
    return Geometry(reader.GetSize(), affine)


def nibabel_grid(path: Path) -> Geometry:
    """Return where nibabel puts them, in mm by the header's unit."""
    image = nib.load(path)
    affine = image.affine.astype(np.float64)
    affine[:3] *= UNIT_MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
    return Geometry(image.shape[:3], affine)
