"""By what an image is known again, whatever its files are called and however they are packed or turned."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import nibabel as nib
import numpy as np

from rep3d.imaging.channels import Files, count_channels, read_channels
from rep3d.imaging.grid import Geometry

__all__ = ["image_mark", "voxel_mark"]

_MOST = 1_000_000  # voxels that are looked at, evenly spread


def voxel_mark(channels: Sequence[np.ndarray], grid: Geometry) -> str:
    """Return 16 hexadecimal digits that two images share only where their voxels are the same.

    Names, compression, the order of the stored axes, and whether channels lie in one file do not matter. An image that
    was resampled is another one.

    Args:
        channels: (X, Y, Z) intensities of each.
        grid: where they lie.
    """
    turned = nib.orientations.io_orientation(grid.affine)
    digest = hashlib.sha256()
    for channel in channels:
        voxels = nib.orientations.apply_orientation(channel, turned)
        step = max(1, math.ceil((voxels.size / _MOST) ** (1 / 3)))
        digest.update(str(voxels.shape).encode())
        digest.update(np.ascontiguousarray(voxels[::step, ::step, ::step], dtype="<f4").data)
    return digest.hexdigest()[:16]


def image_mark(image: Files) -> str:
    """Return :func:`voxel_mark` of an image.

    Args:
        image: its files.

    Raises:
        ImageError, OutOfMemoryError: if it cannot be read.
    """
    return voxel_mark(*read_channels(image, count_channels(image)))
