"""How thick the structures of a label map are: what decides how fine voxels have to be."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import scipy.ndimage

from rep3d.imaging.grid import Geometry
from rep3d.imaging.values import label_boxes

__all__ = ["label_thickness"]

_MEASURED_VOXELS = 300_000  # of a structure; a larger one is thick
_MOST_PARTED = 8_000_000  # voxels of the box around it, after thick slices were parted


def label_thickness(values: np.ndarray, grid: Geometry, labels: Mapping[str, int]) -> dict[str, float]:
    """Return how thick each structure is at its thickest place, in mm: twice the largest distance to its rim.

    Args:
        values: (X, Y, Z) voxel values of a label map.
        grid: where they lie.
        labels: label name to voxel value; those that are not there are left out.
    """
    boxes = label_boxes(values if values.dtype == np.uint8 else values.astype(np.uint16, copy=False))
    found = {}
    for name, value in labels.items():
        box = boxes[value - 1] if 0 < value <= len(boxes) else None
        if box is not None:
            found[name] = _of_one(values[box] == value, grid)
    return found


def _of_one(inside: np.ndarray, grid: Geometry) -> float:
    count = np.count_nonzero(inside)
    if count > _MEASURED_VOXELS:  # of a ball of that volume: only thin structures have to be known exactly
        return float((6.0 / math.pi * count * 1000.0 * grid.voxel_ml) ** (1 / 3))
    # A voxel's rim is half a side from its middle: thick slices are parted, so that this is about the same each way.
    fine = min(grid.spacing)
    parts = [max(1, 2 * math.floor(side / fine / 2 + 0.25) + 1) for side in grid.spacing]
    if inside.size * math.prod(parts) > _MOST_PARTED:
        parts = [1, 1, 1]
    for axis, count in enumerate(parts):
        inside = np.repeat(inside, count, axis)
    sides = np.divide(grid.spacing, parts)
    inside = np.pad(inside, 1)
    depth, nearest = scipy.ndimage.distance_transform_edt(inside, sampling=sides, return_indices=True)
    deepest = np.unravel_index(depth.argmax(), depth.shape)
    way = np.abs(nearest[(slice(None), *deepest)] - deepest) * sides
    return float(2.0 * depth[deepest] - np.linalg.norm(way * sides) / depth[deepest])
