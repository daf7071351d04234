"""Voxel grids: when are two the same, and how do the indices of one become those of another?

A grid is a shape (I, J, K) in voxels and a 4 x 4 matrix from voxel indices to RAS in mm. Comparisons are made in voxels
at the corners, where differences are largest, so that neither the units nor the place of the origin matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from ..errors import BadAnswer

__all__ = ["TOLERANCE", "IndexMap", "check_affine", "distance", "index_map", "is_left_handed", "reverse_k", "reorder"]

TOLERANCE = 1e-3  # voxels; a float32 header moves the far corner of a large image by less than a tenth of that
_SHEAR = 1e-3


@dataclass(frozen=True)
class IndexMap:
    """How indices of a grid become indices of another one that has the same voxels in another order.

    Attributes:
        axes: For each axis of the other grid, the axis of the first that runs along it.
        signs: 1 where both run the same way, -1 where not.
        offsets: Index in the other grid = sign * index in the first + offset, in whole voxels.
    """

    axes: tuple[int, int, int]
    signs: tuple[int, int, int]
    offsets: tuple[int, int, int]


def is_left_handed(affine: numpy.ndarray) -> bool:
    """Return whether the axes of a grid form a left-handed system."""
    return bool(numpy.linalg.det(affine[:3, :3]) < 0)


def reverse_k(affine: numpy.ndarray, slices: int) -> numpy.ndarray:
    """Return the matrix of the grid whose slices (third axis) are counted from the other end."""
    turn = numpy.eye(4)
    turn[2, 2], turn[2, 3] = -1.0, slices - 1
    return numpy.asarray(affine @ turn)


def check_affine(affine: numpy.ndarray, name: str) -> None:
    """Refuse a grid that Slicer cannot show.

    Raises:
        BadAnswer: The matrix is not finite, has an axis of length 0, or its axes are not at right angles.
    """
    axes = affine[:3, :3]
    lengths = numpy.linalg.norm(axes, axis=0)
    if not numpy.isfinite(affine).all() or not (lengths > 0).all():
        raise BadAnswer(
            f"The header of '{name}' is damaged: its voxels have no size. Write the image again from its source."
        )
    directions = axes / lengths
    off = numpy.abs(directions.T @ directions - numpy.eye(3)).max()
    if off > _SHEAR:
        degrees = numpy.degrees(numpy.arcsin(min(off, 1.0)))
        raise BadAnswer(
            f"Slicer cannot show '{name}': two of its axes are {degrees:.2g} degrees off the right angle (a tilted "
            "gantry, perhaps). Resample the image to a grid with right angles."
        )


def distance(affine: numpy.ndarray, other: numpy.ndarray, shape: Sequence[int]) -> float:
    """Return by how many voxels two grids of one shape are apart at their corners, at most."""
    corners = _corners(shape)
    try:
        moved = numpy.linalg.solve(other, affine @ corners)
    except numpy.linalg.LinAlgError:
        return float("inf")
    return float(numpy.abs(moved - corners).max())


def index_map(affine: numpy.ndarray, other: numpy.ndarray, shape: Sequence[int], name: str) -> IndexMap:
    """Find how the indices of a grid become those of another with the same voxels.

    Args:
        affine: Matrix of the grid.
        other: Matrix of the other grid.
        shape: I, J, K of the grid.
        name: What has the other grid, for the error.

    Raises:
        BadAnswer: Its voxels are not those of the other grid (tolerance: `TOLERANCE`).
    """
    try:
        exact = numpy.linalg.solve(other, affine)
    except numpy.linalg.LinAlgError:
        exact = numpy.full((4, 4), numpy.nan)
    if not numpy.isfinite(exact).all():
        exact = numpy.zeros((4, 4))
    whole = numpy.rint(exact)
    turn = numpy.abs(whole[:3, :3])
    is_turn = (turn.sum(axis=0) == 1).all() and (turn.sum(axis=1) == 1).all()
    off = float(numpy.abs((exact - whole) @ _corners(shape)).max())
    if not is_turn or off > TOLERANCE:
        what = f"{off:.3g} voxels beside them" if is_turn else "turned or of another size"
        raise BadAnswer(
            f"The segmentation does not lie on the voxels of {name}: it is {what}. Set its geometry to that of the "
            "image (Segmentations module), or open the case again."
        )
    axes = [int(numpy.argmax(row)) for row in turn]
    signs = [int(whole[row, axis]) for row, axis in enumerate(axes)]
    return IndexMap(
        (axes[0], axes[1], axes[2]),
        (signs[0], signs[1], signs[2]),
        (int(whole[0, 3]), int(whole[1, 3]), int(whole[2, 3])),
    )


def reorder(array: numpy.ndarray, extent: Sequence[int], way: IndexMap) -> tuple[numpy.ndarray, tuple[int, ...]]:
    """Return voxels in the order of another grid, without copying them.

    Args:
        array: (K, J, I) voxels.
        extent: i0, i1, j0, j1, k0, k1 of the array in its grid, both ends included.
        way: From that grid to the other.

    Returns:
        The view (K, J, I) and its extent in the other grid.
    """
    moved = array.transpose(2, 1, 0).transpose(way.axes)
    moved = moved[tuple(slice(None, None, sign) for sign in way.signs)]
    ends: list[int] = []
    for new, old in enumerate(way.axes):
        ends += sorted(way.signs[new] * end + way.offsets[new] for end in extent[2 * old : 2 * old + 2])
    return moved.transpose(2, 1, 0), tuple(ends)


def _corners(shape: Sequence[int]) -> numpy.ndarray:
    """Return the indices of the eight corner voxels as columns (4, 8)."""
    ends = [(0.0, float(max(length - 1, 0))) for length in shape]
    return numpy.array([[*corner, 1.0] for corner in itertools.product(*ends)]).T
