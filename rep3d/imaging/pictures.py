"""Pictures of slices, with the outlines of the labels in their colours, as radiologists look at them.

The patient's right is on the left, front or top is up, and pixels are square in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import nibabel as nib
import numpy as np
from PIL import Image

from rep3d.imaging.grid import Geometry
from rep3d.tasks.colours import Colour, colour_of

__all__ = ["PLANES", "busiest", "plane_picture", "planes_picture", "stored_axes"]

PLANES = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
"""Along the patient's axes right (0), front (1), up (2): a picture's columns, its rows, and the normal."""
_SOFT_TISSUE_HU = (-160.0, 240.0)
_AIR_HU = -500.0
_SHADE = 0.25
_GAP = 4  # pixels between the planes of one picture


def stored_axes(grid: Geometry) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Return, for the axes right, front and up of the patient, the stored axis and 1 or -1 for its direction."""
    axes = nib.orientations.io_orientation(grid.affine)
    right, front, up = (int(np.flatnonzero(axes[:, 0] == world)[0]) for world in range(3))
    return (right, front, up), (float(axes[right, 1]), float(axes[front, 1]), float(axes[up, 1]))


def busiest(values: np.ndarray | None, grid: Geometry, axis: int) -> int:
    """Return the slice along a stored axis that has most labelled voxels; the middle one where there are none."""
    drawn = None if values is None else np.count_nonzero(values, axis=tuple(a for a in range(3) if a != axis))
    return int(drawn.argmax()) if drawn is not None and drawn.any() else grid.shape[axis] // 2


def plane_picture(
    read: Callable[[tuple[slice | int, ...]], np.ndarray],
    values: np.ndarray | None,
    grid: Geometry,
    plane: str,
    colours: Mapping[int, Colour],
    size: int,
) -> Image.Image:
    """Draw one slice, that in which the labels are largest.

    Args:
        read: returns the (two-dimensional) intensities of a part of the image.
        values: (X, Y, Z) label map, or None.
        grid: where both lie.
        plane: one of :data:`PLANES`.
        colours: voxel value to colour.
        size: longer side of the picture in pixels.
    """
    stored, directions = stored_axes(grid)
    across, down, normal = PLANES[plane]
    index = busiest(values, grid, stored[normal])
    at = tuple(index if axis == stored[normal] else slice(None) for axis in range(3))

    def picture(slice_: np.ndarray) -> np.ndarray:
        flat = slice_ if stored[down] < stored[across] else slice_.T
        return flat[:: -1 if directions[down] > 0 else 1, :: -1 if directions[across] > 0 else 1]

    mm = grid.spacing[stored[across]], grid.spacing[stored[down]]
    grey = Image.fromarray(_windowed(picture(np.asarray(read(at), np.float32))))
    scale = size / max(grey.width * mm[0], grey.height * mm[1])
    shape = max(1, round(grey.width * mm[0] * scale)), max(1, round(grey.height * mm[1] * scale))
    result = np.asarray(grey.resize(shape, Image.Resampling.BILINEAR).convert("RGB")).copy()
    if values is not None:
        flat = Image.fromarray(picture(values[at]).astype(np.int32))
        _outline(result, np.asarray(flat.resize(shape, Image.Resampling.NEAREST)), colours)
    return Image.fromarray(result)


def planes_picture(
    image: np.ndarray, values: np.ndarray, grid: Geometry, colours: Mapping[int, Colour], size: int
) -> Image.Image:
    """Draw the three planes of an image side by side, all at one scale.

    Args:
        image: (X, Y, Z) intensities.
        values: (X, Y, Z) label map.
        grid: where both lie.
        colours: voxel value to colour.
        size: pixels of the patient's longest side.
    """
    stored, _ = stored_axes(grid)
    lengths = [grid.shape[axis] * grid.spacing[axis] for axis in stored]
    parts = []
    for plane, (across, down, _) in PLANES.items():
        side = max(1, round(size * max(lengths[across], lengths[down]) / max(lengths)))
        parts.append(plane_picture(image.__getitem__, values, grid, plane, colours, side))
    whole = Image.new("RGB", (sum(part.width + _GAP for part in parts) - _GAP, max(part.height for part in parts)))
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + _GAP
    return whole


def _windowed(voxels: np.ndarray) -> np.ndarray:
    """Grey values from 0 to 255: soft tissue where air says that these are Hounsfield units, else 1 % to 99 %."""
    low, high = _SOFT_TISSUE_HU if voxels.min() < _AIR_HU else np.percentile(voxels, (1, 99))
    return (255 * np.clip((voxels - low) / max(float(high - low), 1e-6), 0, 1)).astype(np.uint8)


def _outline(picture: np.ndarray, values: np.ndarray, colours: Mapping[int, Colour]) -> None:
    """Shade each label in its colour and draw its border; ``picture`` (rows, columns, 3) is changed."""
    padded = np.pad(values, 1, mode="edge")
    inner = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    border = np.any([other != values for other in inner], axis=0)
    for value in np.unique(values[values > 0]).tolist():
        colour = np.array(colours.get(value) or colour_of(value), np.float32)
        inside = values == value
        picture[inside] = ((1 - _SHADE) * picture[inside] + _SHADE * colour).astype(np.uint8)
        picture[inside & border] = colour.astype(np.uint8)
