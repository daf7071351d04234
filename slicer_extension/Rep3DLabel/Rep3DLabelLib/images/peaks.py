"""The most uncertain places of an uncertainty map, a few of them and not side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

__all__ = ["Peak", "find_peaks"]


@dataclass(frozen=True)
class Peak:
    """A place: R, A, S in mm, and the smoothed value there."""

    ras: tuple[float, float, float]
    value: float


def find_peaks(voxels: numpy.ndarray, ijk_to_ras: numpy.ndarray, count: int = 5, apart_mm: float = 10.0) -> list[Peak]:
    """Find the highest places of a volume, smoothed over three voxels along each axis.

    Args:
        voxels: (K, J, I) values; only places above 0 count, and what is not finite counts as 0.
        ijk_to_ras: 4 x 4 matrix of its grid, mm.
        count: How many places at most.
        apart_mm: How far apart they are at least.

    Returns:
        The highest first.
    """
    if not voxels.size:
        return []
    smooth = _smooth(voxels)
    affine = numpy.array(ijk_to_ras, float)
    spacing = numpy.linalg.norm(affine[:3, :3], axis=0)
    found: list[Peak] = []
    while len(found) < count:
        place = numpy.unravel_index(int(numpy.argmax(smooth)), smooth.shape)
        value = float(smooth[place])
        if not value > 0:
            break
        k, j, i = (int(index) for index in place)
        found.append(Peak(tuple((affine @ (i, j, k, 1.0))[:3].tolist()), value))
        _blank(smooth, (k, j, i), spacing[::-1], apart_mm)
    return found


def _smooth(voxels: numpy.ndarray) -> numpy.ndarray:
    """Return the mean of each voxel and its neighbours; at the border, the border counts twice."""
    smooth = numpy.nan_to_num(voxels.astype(numpy.float32), nan=0.0, posinf=0.0, neginf=0.0)
    for axis in range(3):
        if smooth.shape[axis] > 1:
            total = smooth.copy()
            ahead, behind = _cut(axis, slice(1, None)), _cut(axis, slice(None, -1))
            first, last = _cut(axis, slice(0, 1)), _cut(axis, slice(-1, None))
            total[behind] += smooth[ahead]
            total[ahead] += smooth[behind]
            total[first] += smooth[first]
            total[last] += smooth[last]
            total /= 3
            smooth = total
    return smooth


def _cut(axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if other == axis else slice(None) for other in range(3))


def _blank(values: numpy.ndarray, centre: Sequence[int], spacing: Sequence[float], radius: float) -> None:
    """Set all that is nearer to a voxel than a radius (mm) to 0; the axes are at right angles."""
    box, squares = [], []
    for axis, length in enumerate(values.shape):
        index, step = centre[axis], spacing[axis]
        reach = int(radius / step) + 1
        start, stop = max(index - reach, 0), min(index + reach + 1, length)
        box.append(slice(start, stop))
        squares.append(((numpy.arange(start, stop) - index) * step) ** 2)
    far = squares[0][:, None, None] + squares[1][None, :, None] + squares[2][None, None, :] >= radius**2
    values[tuple(box)] *= far
