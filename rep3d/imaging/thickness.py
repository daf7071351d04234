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
    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1), sampling=grid.spacing)
    return float(2.0 * depth.max() - min(grid.spacing))
