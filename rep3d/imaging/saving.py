"""NIfTI files that are written whole or not at all."""

from __future__ import annotations

import gzip
import io
import math
from pathlib import Path
from typing import cast

import nibabel as nib

from rep3d.files import whole_file
from rep3d.imaging.grid import Geometry

__all__ = ["label_bytes", "save_nifti"]

_LEVEL = 1  # of compression, nibabel's own: the others take many times as long and save little
_PACKED = 200  # voxels of a label map to a compressed byte, about the best that there is


def label_bytes(grid: Geometry, path: Path | str) -> int:
    """Return how many bytes a label map takes on the disk at least."""
    voxels = math.prod(grid.shape)
    return voxels // _PACKED if Path(path).suffix.lower() == ".gz" else voxels


def save_nifti(image: nib.Nifti1Image, path: Path | str) -> None:
    """Write an image by way of :func:`rep3d.files.whole_file`: there is the old file or the new one, never a part.

    Args:
        image: what to write.
        path: file to write; compressed if its name ends in ``.gz``.
    """
    path = Path(path)
    with whole_file(path) as file:
        if path.suffix.lower() != ".gz":
            image.to_stream(cast(io.IOBase, file))
            return
        with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
            image.to_stream(packed)
