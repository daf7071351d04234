"""Linear interpolation between voxel grids whose axes are parallel: one axis after the other, which is fast and exact.

An image and the grid a network works on nearly always differ by flips, exchanged axes and spacing only. Then the
trilinear weights are products of one weight per axis, and nothing needs the eight neighbours of each voxel, nor their
coordinates in double precision, which for a large image would be gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["AxisMap", "axis_maps", "interpolate_axis", "nearest_axis"]

_TOLERANCE_VOXELS = 1e-3  # by which axes may fail to be parallel, over the whole grid: single precision in headers


@dataclass(frozen=True)
class AxisMap:
    """Where the voxels along one axis of a target grid lie along an axis of a source grid.

    Attributes:
        source: the axis of the source, 0 to 2.
        position: for each voxel of the target, its position among those of the source, in voxels; beyond the rim is
            the rim.
    """

    source: int
    position: np.ndarray

    def corners(self, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the two voxels of the source (of that length) around each position, and the weight of the second."""
        first = np.clip(np.floor(self.position), 0, max(length - 2, 0)).astype(np.int64)
        weight = (self.position - first).astype(np.float32)
        return first, np.minimum(first + 1, length - 1), weight


def axis_maps(
    source_shape: tuple[int, ...], source_affine: np.ndarray, shape: tuple[int, ...], affine: np.ndarray
) -> tuple[AxisMap, AxisMap, AxisMap] | None:
    """Return how a target grid lies on a source grid, axis by axis; None where their axes are not parallel.

    Args:
        source_shape: voxels of the source.
        source_affine: (4, 4) from its voxel indices to mm.
        shape: voxels of the target.
        affine: (4, 4) of the target, into the same space.
    """
    matrix = np.linalg.inv(source_affine) @ affine
    order = np.abs(matrix[:3, :3]).argmax(0)  # for each axis of the target, the one of the source
    if sorted(order) != [0, 1, 2]:
        return None
    skew = np.abs(matrix[:3, :3]) * np.array(shape)
    skew[order, range(3)] = 0
    if skew.max() > _TOLERANCE_VOXELS:
        return None
    maps = []
    for axis, along in enumerate(order):
        position = matrix[along, axis] * np.arange(shape[axis]) + matrix[along, 3]
        # Header arithmetic leaves 4.9999999 for 5, which would mix in a neighbour for nothing.
        whole = np.rint(position)
        position = np.where(np.abs(position - whole) < 1e-5, whole, position)
        maps.append(AxisMap(int(along), np.clip(position, 0, source_shape[along] - 1)))
    return maps[0], maps[1], maps[2]


def interpolate_axis(volume: torch.Tensor, axis: int, along: AxisMap) -> torch.Tensor:
    """Linear interpolation along one axis.

    Args:
        volume: any shape and type; whole numbers are converted when they have been picked, not before.
        axis: the axis of ``volume``.
        along: positions on it.

    Returns:
        The volume with ``len(along.position)`` voxels along this axis; of ``volume``'s type where every position is a
        voxel of its own, else float32.
    """
    if np.array_equal(along.position, np.rint(along.position)):
        if np.array_equal(along.position, np.arange(volume.shape[axis])):
            return volume
        return nearest_axis(volume, axis, along)
    first, second, weight = along.corners(volume.shape[axis])
    shape = [1] * volume.ndim
    shape[axis] = len(weight)
    low, high = (_picked(volume, axis, voxels).float() for voxels in (first, second))
    return low.lerp_(high, torch.from_numpy(weight).reshape(shape))


def nearest_axis(volume: torch.Tensor, axis: int, along: AxisMap) -> torch.Tensor:
    """Return the nearest voxels along one axis, arguments as :func:`interpolate_axis`."""
    return _picked(volume, axis, np.rint(along.position).astype(np.int64))


def _picked(volume: torch.Tensor, axis: int, voxels: np.ndarray) -> torch.Tensor:
    """Return some voxels along one axis; in the order of memory by NumPy, which takes a fraction of PyTorch's time."""
    order = sorted(range(volume.ndim), key=volume.stride, reverse=True)
    found = np.take(volume.permute(order).numpy(), voxels, order.index(axis), mode="clip")  # none is beyond the rim
    return torch.from_numpy(found).permute([order.index(number) for number in range(volume.ndim)])
