"""Between numpy arrays and the images and matrices of VTK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

__all__ = [
    "allocate",
    "array_of",
    "extent_of",
    "is_empty",
    "matrix_of",
    "native_type",
    "set_geometry",
    "vtk_matrix",
    "whole_offset",
]

_ON_GRID = 0.01  # voxels by which a grid may be off and still be the same; Slicer stores geometry as text in places


def matrix_of(matrix: Any) -> np.ndarray:
    """Return a vtkMatrix4x4 as an array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def vtk_matrix(matrix: Any) -> Any:
    """Return a 4x4 array or nested list as a vtkMatrix4x4."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=float).ravel())
    return result


def native_type(dtype: Any) -> np.dtype:
    """Return the type in which VTK can keep voxels of a type: of this computer's byte order, and no half floats."""
    plain = np.dtype(dtype).newbyteorder("=")
    if plain == np.float16:
        return np.dtype(np.float32)
    return np.dtype(np.uint8) if plain == np.bool_ else plain


def allocate(image: Any, extent: Sequence[int], dtype: Any) -> None:
    """Give a vtkImageData voxels over an extent (i0, i1, j0, j1, k0, k1 inclusive); their values are not set."""
    image.SetExtent([int(bound) for bound in extent])
    image.AllocateScalars(get_vtk_array_type(native_type(dtype)), 1)


def is_empty(image: Any) -> bool:
    """Return whether a vtkImageData has no voxels at all, whatever their values."""
    if image is None or image.GetPointData().GetScalars() is None:
        return True
    extent = image.GetExtent()
    return any(extent[axis] > extent[axis + 1] for axis in (0, 2, 4))


def array_of(image: Any) -> np.ndarray:
    """Return a view (K, J, I) of the voxels of a vtkImageData with one component."""
    extent = image.GetExtent()
    shape = [extent[axis + 1] - extent[axis] + 1 for axis in (4, 2, 0)]
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)


def extent_of(image: Any) -> tuple[int, ...]:
    """Return the extent of a vtkImageData."""
    return tuple(int(bound) for bound in image.GetExtent())


def set_geometry(image: Any, ijk_to_ras: Any) -> None:
    """Place a vtkOrientedImageData: `ijk_to_ras` (4, 4) is of index 0, 0, 0, wherever its extent begins."""
    image.SetGeometryFromImageToWorldMatrix(vtk_matrix(ijk_to_ras))


def whole_offset(image_to_ras: np.ndarray, ijk_to_ras: np.ndarray, extent: Sequence[int]) -> tuple[int, ...] | None:
    """Return by how many whole voxels an image is shifted on a grid; None if its voxels are not voxels of the grid.

    Args:
        image_to_ras, ijk_to_ras: (4, 4) of the image and of the grid.
        extent: Of the image; at none of its corners may the two be off by more than a hundredth of a voxel.
    """
    to_grid = np.linalg.solve(ijk_to_ras, image_to_ras)
    offset = np.rint(to_grid[:3, 3])
    corners = np.array(np.meshgrid(extent[0:2], extent[2:4], extent[4:6], indexing="ij"), dtype=float).reshape(3, -1)
    placed = to_grid[:3, :3] @ corners + to_grid[:3, 3:]
    if np.abs(placed - corners - offset[:, None]).max() > _ON_GRID:
        return None
    return tuple(int(shift) for shift in offset)
