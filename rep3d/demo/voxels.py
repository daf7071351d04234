"""Between NIfTI files and the voxels that the client of the Slicer module sends and gets."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from rep3d.demo.checkout import import_client_path
from rep3d.imaging.nifti import read_label

import_client_path()
from Rep3DLabelLib.client.voxels import Voxels  # noqa: E402

__all__ = ["as_nifti", "as_voxels"]


def as_voxels(label: Path, raw: Path) -> Voxels:
    """Return a label map's file as the client sends it; its bytes go into the file ``raw``."""
    values, grid = read_label(label)
    raw.write_bytes(values.astype(np.uint8).tobytes(order="F"))
    shape = (values.shape[0], values.shape[1], values.shape[2])
    return Voxels(raw, shape, "|u1", tuple(tuple(row) for row in grid.affine.tolist()))


def as_nifti(voxels: Voxels, target: Path) -> Path:
    """Return voxels as they came as a file."""
    values = np.fromfile(voxels.path, voxels.dtype).reshape(voxels.shape, order="F")
    nib.save(nib.Nifti1Image(values, np.array(voxels.affine)), target)
    return target
