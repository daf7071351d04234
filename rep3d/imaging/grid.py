"""The voxel grid of an image: where its voxels lie, and whether two grids are one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import scipy.ndimage

from rep3d.memory import require_memory

__all__ = ["Geometry", "Place", "resample_label", "same_grid"]

Place = tuple[slice, slice, slice]
"""A box of voxels in a volume."""


@dataclass(frozen=True)
class Geometry:
    """The voxel grid of an image.

    Attributes:
        shape: voxels along the three stored axes.
        affine: (4, 4) matrix from voxel indices to RAS coordinates in mm.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the stored axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def extent(self) -> tuple[float, float, float]:
        """Length in mm along the stored axes."""
        x, y, z = (side * count for side, count in zip(self.spacing, self.shape, strict=True))
        return x, y, z

    @property
    def axis_codes(self) -> tuple[str, str, str]:
        """The closest anatomical direction of each stored axis, such as ``("L", "A", "S")``."""
        return nib.aff2axcodes(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


def same_grid(a: Geometry, b: Geometry, tolerance_voxels: float = 0.05) -> bool:
    """Return whether two grids put every voxel at the same place.

    Compared are the world positions of the grid's corners, which is what an annotator sees, not matrix entries: allowed
    is ``tolerance_voxels`` of the smallest voxel side, room for headers in single precision and no more.
    """
    if a.shape != b.shape:
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(8)])
    distance = np.linalg.norm((a.affine @ corners - b.affine @ corners)[:3], axis=0).max()
    return bool(distance <= tolerance_voxels * min(a.spacing))


def resample_label(values: np.ndarray, grid: Geometry, target: Geometry) -> np.ndarray:
    """Return a label map on another grid: each new voxel takes the value of the nearest old one, background outside.

    Args:
        values: (X, Y, Z) voxel values.
        grid: where they lie.
        target: the grid wanted.

    Returns:
        The (X, Y, Z) array on the target grid.

    Raises:
        OutOfMemoryError: if it does not fit into memory.
    """
    require_memory(
        math.prod(target.shape) * values.itemsize,
        f"for a label map of {'x'.join(map(str, target.shape))} voxels",
        "Does its image have so many?",
    )
    step = np.linalg.inv(grid.affine) @ target.affine
    # "grid-constant": voxels reach half a step beyond the outermost centres, where "constant" would cut them off.
    return scipy.ndimage.affine_transform(
        values, step[:3, :3], step[:3, 3], output_shape=target.shape, order=0, mode="grid-constant", prefilter=False
    )
