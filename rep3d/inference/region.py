"""A part of an image, given in voxels or in millimetres, to which a segmentation is restricted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from rep3d.errors import ImageError
from rep3d.imaging.grid import Geometry

__all__ = ["Box"]

_FARTHEST = 10**9  # voxels or mm; no image reaches so far, and numpy's integers do
_EXPECTED = (
    'box: expected {"voxels": [[i, j, k], [i, j, k]]} with the first voxel and the one after the last along each '
    'stored axis, or {"ras": [[R, A, S], [R, A, S]]} with two opposite corners in mm'
)


@dataclass(frozen=True)
class Box:
    """Two opposite corners.

    Attributes:
        unit: ``"voxels"``, indices along the image's stored axes, the second corner exclusive; or ``"ras"``, mm.
        corners: the two corners.
    """

    unit: str
    corners: tuple[tuple[float, float, float], tuple[float, float, float]]

    @classmethod
    def parse(cls, value: Any) -> Box:
        """Read what a client sent.

        Args:
            value: ``{"voxels": [[i, j, k], [i, j, k]]}`` or ``{"ras": [[R, A, S], [R, A, S]]}``.

        Raises:
            ImageError: if it is neither.
        """
        if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in ("voxels", "ras"):
            raise ImageError(f"{_EXPECTED}, got {str(value)[:200]}")
        ((unit, corners),) = value.items()
        kinds = int if unit == "voxels" else (int, float)
        if not _is_list(corners, 2) or not all(_is_list(corner, 3) for corner in corners):
            raise ImageError(f"{_EXPECTED}, got {str(value)[:200]}")
        numbers = [number for corner in corners for number in corner]
        if not all(isinstance(n, kinds) and not isinstance(n, bool) and abs(n) <= _FARTHEST for n in numbers):
            raise ImageError(f"{_EXPECTED}, got {str(value)[:200]}")
        first, last = (tuple(corner) for corner in corners)
        return cls(unit, (first, last))

    def on(self, grid: Geometry) -> tuple[slice, slice, slice]:
        """Return the voxels of an image that lie in the box.

        A box in mm takes every voxel whose centre lies in the smallest block of voxels around the eight corners, so on
        an oblique image it is somewhat larger than asked for.

        Raises:
            ImageError: if no voxel does.
        """
        if self.unit == "voxels":
            low, high = (np.array(corner, dtype=int) for corner in self.corners)
            if (low < 0).any() or (high > np.array(grid.shape)).any():
                raise ImageError(f"box: {self.corners} reaches outside the image, which has {grid.shape} voxels.")
        else:
            corners = np.array(list(product(*zip(*self.corners, strict=True))))
            inverse = np.linalg.inv(grid.affine)
            index = corners @ inverse[:3, :3].T + inverse[:3, 3]
            low = np.maximum(np.ceil(index.min(0) - 1e-3), 0).astype(int)
            high = np.minimum(np.floor(index.max(0) + 1e-3) + 1, grid.shape).astype(int)
        if (low >= high).any():
            raise ImageError(
                f"box: no voxel of the image is in it. It is {self.unit} {self.corners}, and the image has "
                f"{grid.shape} voxels."
            )
        x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return x, y, z


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length
