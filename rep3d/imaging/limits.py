"""What an image may be at most: how many voxels, how large, of which values. Beyond that its header or its voxels lie.

A header of a few bytes can announce gigabytes, so the number of voxels is asked for before the first one is read. The
bound is the process's, and that of the processes that it starts: an environment variable.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from rep3d.errors import ConfigError, ImageError, LabelError

__all__ = ["MAX_VOXELS", "SIDES_MM", "VARIABLE", "check_intensities", "check_voxels", "max_voxels"]

VARIABLE = "REP3D_MAX_VOXELS"
MAX_VOXELS = 2**30  # 1024 x 1024 x 1024: the largest scans have half as many
SIDES_MM = (1e-3, 50.0)  # of a voxel: from micro-CT to the thickest slices
_LARGEST = 1e12  # of an intensity, up or down: sums of squares over a whole image still fit into single precision


def max_voxels() -> int:
    """Return how many voxels an image may have.

    Raises:
        ConfigError: if the environment variable is no whole number from 1 on.
    """
    text = os.environ.get(VARIABLE, str(MAX_VOXELS))
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"The environment variable {VARIABLE} must be a whole number from 1 on, not {text[:50]!r}.")
    return int(text)


def check_voxels(shape: Sequence[int], name: str, error: type[ImageError] | type[LabelError]) -> None:
    """Refuse an image of more voxels than may be.

    Args:
        shape: voxels along its axes, and layers.
        name: what has them, for the message.
        error: what to raise.
    """
    count, most = math.prod(map(int, shape)), max_voxels()
    if count > most:
        raise error(
            f"{name} has {' x '.join(map(str, shape))} voxels by its header, {count:,} in all, and at most {most:,} "
            f"are taken here. If they are really there, cut it to the part that matters, or ask for a higher limit "
            f"(--conf max_voxels of a server, else the environment variable {VARIABLE})."
        )


def check_intensities(voxels: np.ndarray, name: str) -> None:
    """Refuse intensities that are no number, or that no scanner and no program means.

    Args:
        voxels: (X, Y, Z) array of whole numbers or floats.
        name: the image's, for the message.

    Raises:
        ImageError: naming the first such voxel and its value.
    """
    if voxels.dtype.kind != "f" and voxels.dtype.itemsize < 8:
        return
    if voxels.min() >= -_LARGEST and voxels.max() <= _LARGEST:  # neither holds where one is NaN
        return
    for index in range(voxels.shape[-1]):
        part = voxels[..., index]
        fits = (part >= -_LARGEST) & (part <= _LARGEST)
        if not fits.all():
            i, j = np.unravel_index(np.argmin(fits), fits.shape)
            value = part[i, j].item()
            what = "not a number" if math.isnan(value) else f"too large for an intensity (beyond {_LARGEST:g})"
            raise ImageError(
                f"{name} has the value {value:g} at voxel ({i}, {j}, {index}), which is {what}. "
                f"Put an intensity in its place, such as that of air, and save it anew."
            )
