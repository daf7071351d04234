"""The voxel values of label maps: whole numbers from 0 to 65535, however they are stored."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from rep3d.errors import LabelError
from rep3d.imaging.grid import Place

__all__ = ["LARGEST_VALUE", "label_boxes", "whole_numbers"]

LARGEST_VALUE = 65535  # voxel value of a label
_ROUNDING = 1e-3  # by which floats may miss a whole number
_LARGEST_STEP = 0.1  # of a scale for which a value may be off by half a step; with longer ones it is not the same value


def whole_numbers(stored: np.ndarray, name: str, slope: float = 1.0, inter: float = 0.0) -> np.ndarray:
    """Return a label map as bytes or unsigned 16-bit numbers, which everything computes with.

    Whole within rounding is whole: floats, and integers in steps of a scale, which cannot hold every number.

    Args:
        stored: (X, Y, Z) numbers of any type.
        name: of the label map, for the message.
        slope: a value is ``stored * slope + inter``.
        inter: see there.

    Raises:
        LabelError: naming the first voxel whose value is no label's, and that value.
    """
    plain = stored.dtype.kind in "iu" and (slope, inter) == (1.0, 0.0)
    if plain and stored.dtype == np.uint8:
        return stored
    allowed = _ROUNDING + (0.0 if stored.dtype.kind == "f" else min(abs(slope), _LARGEST_STEP) / 2)
    values = np.empty(stored.shape, np.uint16, order="F")
    for index in range(stored.shape[-1]):  # slice by slice: a large map would not fit several times
        read = stored[..., index]
        if plain:
            whole = read
            fits = (whole >= 0) & (whole <= LARGEST_VALUE)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                read = read.astype(np.float64) * slope + inter
                whole = np.rint(read)
                fits = (np.abs(read - whole) <= allowed) & (whole >= 0) & (whole <= LARGEST_VALUE)  # no NaN does
        if not fits.all():
            i, j = np.unravel_index(np.argmin(fits), fits.shape)
            raise LabelError(
                f"{name} has the value {read[i, j].item():.15g} at voxel ({i}, {j}, {index}), but each label is a "
                f"whole number from 0 to {LARGEST_VALUE}. Export it as a label map, not as a probability map or a grey "
                f"image."
            )
        values[..., index] = whole
    return values.astype(np.uint8) if values.max(initial=0) < 256 else values


def label_boxes(values: np.ndarray, most: int = 0) -> list[Place | None]:
    """Return the smallest box around each value from 1 on, None where there is no such voxel: SciPy's ``find_objects``.

    Along memory, as that takes a fifth of the time for a map in the order of a file.

    Args:
        values: (X, Y, Z) whole numbers.
        most: the largest value to look for; 0 for the largest that is there.
    """
    if abs(values.strides[0]) > abs(values.strides[-1]):
        return ndimage.find_objects(values, most)
    return [box and (box[2], box[1], box[0]) for box in ndimage.find_objects(values.T, most)]
