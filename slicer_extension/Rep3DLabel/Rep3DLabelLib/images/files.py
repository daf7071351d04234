"""Voxels decoded to where Slicer can copy them from without waiting: what the worker hands to the scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["LabelFile", "Matrix", "VolumeFile"]

Matrix = tuple[tuple[float, ...], ...]  # 4 x 4, from voxel indices to RAS in mm


@dataclass(frozen=True)
class VolumeFile:
    """An image.

    Attributes:
        voxels: Path of a `.npy` file (K, J, I).
        shape: I, J, K in voxels.
        ijk_to_ras: Of this file. Slicer wants right-handed grids, so the slices of a left-handed one are reversed.
        low, high: For the display.
        affine: The image's own grid, as the server has it.
    """

    voxels: str
    shape: tuple[int, int, int]
    ijk_to_ras: Matrix
    low: float
    high: float
    affine: Matrix


@dataclass(frozen=True)
class LabelFile:
    """A label map on the grid of its image.

    Attributes:
        voxels: Path of a `.npy` file (K, J, I) of all that is labelled; None for a label map without labels.
        extent: Its i0, i1, j0, j1, k0, k1 in the grid, both ends included; None likewise.
        shape, ijk_to_ras: The grid, as in the image's `VolumeFile`.
        counts: Label name -> voxels.
        values: Label name -> voxel value.
    """

    voxels: str | None
    extent: tuple[int, ...] | None
    shape: tuple[int, int, int]
    ijk_to_ras: Matrix
    counts: Mapping[str, int]
    values: Mapping[str, int]
