"""Parts of images: a box in voxels or in millimetres to which a segmentation is restricted, and what crops need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from rep3d.errors import ImageError
from rep3d.imaging.grid import Geometry, Place

__all__ = ["Box", "cropped", "overlap", "placed", "region_of", "surroundings", "widened"]


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


def cropped(volume: MetaTensor, place: Place) -> MetaTensor:
    """Return a part of a volume (C, D, H, W), which knows where it lies."""
    affine = volume.affine.clone()
    low = torch.as_tensor([part.start for part in place], dtype=affine.dtype)
    affine[:3, 3] += affine[:3, :3] @ low
    return MetaTensor(volume.as_tensor()[(slice(None), *place)].contiguous(), affine=affine)


def placed(part: MetaTensor, whole: MetaTensor) -> Place:
    """Return which voxels of a volume lie in the voxels of a part of another one, or beside them."""
    corners = _corners(part, 0.5, whole.affine.numpy())
    sides = np.array(whole.shape[1:])
    first = np.clip(np.floor(corners.min(1)), 0, sides - 1).astype(int)
    last = np.clip(np.ceil(corners.max(1)) + 1, first + 1, sides).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return x, y, z


def surroundings(region: Place, grid: Geometry, whole: MetaTensor, around: Sequence[int]) -> Place:
    """Return which voxels of a volume a region of the image that it is of needs, with so many more on all sides."""
    index = np.array(list(product(*((part.start, part.stop - 1) for part in region)))).T
    matrix = np.linalg.inv(whole.affine.numpy()) @ grid.affine
    corners = matrix[:3, :3] @ index + matrix[:3, 3:]
    sides = np.array(whole.shape[1:])
    low = np.clip(np.floor(corners.min(1)).astype(int) - around, 0, sides - 1)
    high = np.clip(np.ceil(corners.max(1)).astype(int) + around + 1, low + 1, sides)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return x, y, z


def region_of(part: MetaTensor, grid: Geometry) -> Place:
    """Return the voxels of an image that a part of it on another grid decides: those less than one voxel from it.

    The last voxels of an image may lie that far beyond the last ones of the grid that a network works on.
    """
    corners = _corners(part, 1.0, grid.affine)
    first = np.clip(np.ceil(corners.min(1) - 1e-3), 0, grid.shape).astype(int)
    last = np.clip(np.floor(corners.max(1) + 1e-3) + 1, first, grid.shape).astype(int)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return x, y, z


def _corners(part: MetaTensor, beyond: float, affine: np.ndarray) -> np.ndarray:
    """Return (3, 8) where the corners of a part, so many of its voxels beyond its centres, lie on another grid."""
    corners = np.array(list(product(*((-beyond, side - 1 + beyond) for side in part.shape[1:])))).T
    matrix = np.linalg.inv(affine) @ part.affine.numpy()
    return matrix[:3, :3] @ corners + matrix[:3, 3:]


def overlap(one: Place, other: Place | None) -> Place:
    """Return what two parts of an image share, which may be nothing; the first one where there is no other."""
    if other is None:
        return one
    starts = [max(a.start, b.start) for a, b in zip(one, other, strict=True)]
    stops = [min(a.stop, b.stop) for a, b in zip(one, other, strict=True)]
    x, y, z = (slice(start, max(start, stop)) for start, stop in zip(starts, stops, strict=True))
    return x, y, z


def widened(place: Place, window: Sequence[int], shape: Sequence[int]) -> Place:
    """Return a part of an image of that shape, no narrower than a window where the image is not.

    What surrounds it is better to look at than the zeros that would be put there.
    """
    found = []
    for part, side, length in zip(place, window, shape, strict=True):
        missing = max(min(side, length) - (part.stop - part.start), 0)
        start = min(max(part.start - missing // 2, 0), length - (part.stop - part.start) - missing)
        found.append(slice(max(start, 0), max(start, 0) + part.stop - part.start + missing))
    return found[0], found[1], found[2]


def _is_list(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length
