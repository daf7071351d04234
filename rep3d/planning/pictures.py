"""Slices of a case with its labels in colours, as pictures for the page."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np

from rep3d.html import png_uri
from rep3d.imaging.grid import Geometry
from rep3d.tasks.colours import Colour

__all__ = ["Slice", "picture", "slices_of"]

_SIDE = 320  # pixels of a picture's longer side
_SHADE = 0.45
_PLANES = (("axial", 2), ("coronal", 1), ("sagittal", 0))


@dataclass(frozen=True)
class Slice:
    """A slice through a case, in the radiological convention: the patient's right, or front, on the left.

    Attributes:
        plane: such as ``"axial"``.
        grey: (rows, columns) uint8.
        label: (rows, columns) voxel values.
        size: height and width in mm.
    """

    plane: str
    grey: np.ndarray
    label: np.ndarray
    size: tuple[float, float]


def slices_of(image: np.ndarray, label: np.ndarray, grid: Geometry) -> tuple[Slice, ...]:
    """Return three slices of a case, each where most labels are, and of those most labelled voxels.

    Args:
        image: (X, Y, Z) intensities, shown from their 1st to their 99.5th percentile.
        label: (X, Y, Z) voxel values.
        grid: where both lie.
    """
    turn = nib.orientations.io_orientation(grid.affine)
    image, label = (nib.orientations.apply_orientation(volume, turn) for volume in (image, label))
    spacing = [grid.spacing[int(axis)] for axis in np.argsort(turn[:, 0])]
    low, high = np.percentile(image[::2, ::2, ::2], (1, 99.5))
    found = []
    for plane, across in _PLANES:
        index = _fullest(label, across)
        grey = _cut(image, across, index).astype(np.float32)
        grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1) * 255
        right, up = (axis for axis in range(3) if axis != across)
        found.append(
            Slice(
                plane,
                np.ascontiguousarray(grey.astype(np.uint8).T[::-1, ::-1]),
                np.ascontiguousarray(_cut(label, across, index).T[::-1, ::-1]),
                (image.shape[up] * spacing[up], image.shape[right] * spacing[right]),
            )
        )
    return tuple(found)


def _cut(volume: np.ndarray, across: int, index: int) -> np.ndarray:
    """Return a slice as a view: ``take`` would copy the whole volume first."""
    view: np.ndarray = np.moveaxis(volume, across, 0)[index]
    return view


def _fullest(label: np.ndarray, across: int) -> int:
    """Return the slice with the most labels; of those with as many, the one with the most labelled voxels."""
    best, found = (-1, -1), label.shape[across] // 2
    for index in range(label.shape[across]):
        counts = np.bincount(_cut(label, across, index).ravel())[1:]
        if (score := (int(np.count_nonzero(counts)), int(counts.sum()))) > best:
            best, found = score, index
    return found


def picture(one: Slice, colours: Mapping[int, Colour]) -> str:
    """Return a slice as a PNG data URI, in its true proportions, with each voxel value in its colour."""
    from PIL import Image

    rgb = np.repeat(one.grey[..., None], 3, axis=2).astype(np.float32)
    for value, colour in colours.items():
        inside = one.label == value
        rgb[inside] = (1 - _SHADE) * rgb[inside] + _SHADE * np.array(colour, np.float32)
    height, width = one.size
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    buffer = io.BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG", optimize=True)
    return png_uri(buffer.getvalue())
