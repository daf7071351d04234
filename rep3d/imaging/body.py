"""Where the patient is in an image, found on a coarse grid before intensities are clipped: what is worth computing.

A CT is mostly air, table and couch, which a network that slides over all of it computes like everything else. The mask
errs on the side of more: a part of the body must never be outside, while a part of the couch inside only costs time.

- CT (intensities in HU, which tasks say by a window): cells of about 5 mm with a mean above -300 HU; an opening by one
  cell cuts the table off; pieces of 20 ml and more are kept, so that an arm beside the body stays; slice by slice, what
  is enclosed is filled, and what reaches the rim is outside only if at least half of it is air below -900 HU, so that
  a lung that the field of view cuts open stays.
- CT without any air, as where it was clipped before: only what is certainly outside, namely cells that hold nothing but
  the image's lowest value.
- All else: likewise, cells below a tenth of the way from the darkest ones to the threshold of Otsu (IEEE Trans. SMC 9,
  62, 1979).

What is certain counts only where it is in one piece that reaches two of the four edges along the body and is a fifth of
the image or more; else the mask is everything. A margin is then added on all sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from rep3d.imaging.grid import Place

__all__ = ["BodyMask", "body_mask"]

_CELL_MM = 5.0
_TISSUE_HU = -300.0
_AIR_HU = -900.0
_LEAST_ML = 20.0
_MARGIN_MM = 15.0  # around what was found by its air
_CERTAIN_MARGIN_MM = 25.0  # around all else that is not certainly background
_DARK_SHARE = 0.1
_LEAST_BACKGROUND = 0.2
_LEAST_EDGES = 2
_TOUCHING = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class BodyMask:
    """What of an image is worth computing.

    Attributes:
        cells: (d, h, w) whether anything of a cell is; a cell holds ``size`` voxels.
        size: voxels of a cell along each axis.
        origin: the voxel of the image with which the first cell begins; not positive.
    """

    cells: np.ndarray
    size: tuple[int, int, int]
    origin: tuple[int, int, int] = (0, 0, 0)

    def holds(self, place: Place) -> bool:
        """Return whether anything in a part of the image, which may reach over its rim, is worth computing."""
        cells = tuple(
            slice(max((part.start - first) // side, 0), max(math.ceil((part.stop - first) / side), 0))
            for part, side, first in zip(place, self.size, self.origin, strict=True)
        )
        return bool(self.cells[cells].any())

    def box(self, shape: tuple[int, ...]) -> Place:
        """Return the smallest part of an image of that shape that holds all of it; all of the image if it is empty."""
        found = ndimage.find_objects(self.cells.astype(np.uint8))
        cells = found[0] if found else (slice(0, side) for side in self.cells.shape)
        x, y, z = (
            slice(max(part.start * side + first, 0), min(part.stop * side + first, length))
            for part, side, first, length in zip(cells, self.size, self.origin, shape, strict=True)
        )
        return x, y, z

    def within(self, place: Place) -> BodyMask:
        """Return the mask as seen from the first corner of a part of the image."""
        x, y, z = (first - part.start for first, part in zip(self.origin, place, strict=True))
        return BodyMask(self.cells, self.size, (x, y, z))


def body_mask(
    image: torch.Tensor, spacing: tuple[float, ...], orientation: str, hounsfield: Sequence[bool]
) -> BodyMask:
    """Find what of an image is worth computing: what is in any of its channels.

    Args:
        image: (C, D, H, W), intensities as they are stored.
        spacing: voxel size in mm.
        orientation: axis codes, such as ``"RAS"``; slices lie across the one of S or I.
        hounsfield: whether the intensities are in HU, for each channel.
    """
    first, *others = (
        _channel_mask(image[channel : channel + 1], spacing, orientation, scaled)
        for channel, scaled in enumerate(hounsfield)
    )
    return BodyMask(np.logical_or.reduce([first.cells, *(mask.cells for mask in others)]), first.size)


def _channel_mask(image: torch.Tensor, spacing: tuple[float, ...], orientation: str, hounsfield: bool) -> BodyMask:
    size = tuple(
        min(max(1, round(_CELL_MM / side)), length) for side, length in zip(spacing, image.shape[1:], strict=True)
    )
    voxels = image.as_subclass(torch.Tensor)[None].float()
    cells = functional.avg_pool3d(voxels, size, ceil_mode=True, count_include_pad=False)[0, 0].numpy()
    mm = [side * count for side, count in zip(spacing, size, strict=True)]
    long_axis, margin = _long_axis(orientation), _CERTAIN_MARGIN_MM
    if not hounsfield:
        inside = ~_certain(_dark(cells), long_axis)
    elif cells.min() >= _AIR_HU:
        highest = functional.max_pool3d(voxels, size, ceil_mode=True)[0, 0].numpy()
        inside = ~_certain(highest <= float(voxels.min()), long_axis)
    else:
        inside, margin = _not_air(cells, math.prod(mm) / 1000, long_axis), _MARGIN_MM
    if not inside.any():
        inside = np.ones_like(inside)
    reach = [2 * math.ceil(margin / side) + 1 for side in mm]
    return BodyMask(ndimage.maximum_filter(inside.view(np.uint8), reach).astype(bool), (size[0], size[1], size[2]))


def _long_axis(orientation: str) -> int:
    return next(axis for axis, code in enumerate(orientation) if code in "SI")


def _not_air(hounsfield: np.ndarray, cell_ml: float, long_axis: int) -> np.ndarray:
    tissue = hounsfield > _TISSUE_HU
    if tissue.all():
        return tissue
    thick = ndimage.binary_dilation(ndimage.binary_erosion(tissue, _TOUCHING, border_value=1), _TOUCHING)
    pieces, count = ndimage.label(thick)
    large = np.bincount(pieces.ravel(), minlength=count + 1) * cell_ml >= _LEAST_ML
    large[0] = False
    body = large[pieces]
    in_slice = _TOUCHING.copy()
    in_slice[tuple([0, 2] if axis == long_axis else slice(None) for axis in range(3))] = False
    rest, count = ndimage.label(~body, in_slice)
    air = np.bincount(rest.ravel(), hounsfield.ravel() < _AIR_HU, count + 1)
    mostly_air = air >= 0.5 * np.bincount(rest.ravel(), minlength=count + 1)
    outside = _at_rim(rest, count, [axis for axis in range(3) if axis != long_axis]) & mostly_air
    outside[0] = False
    return ~outside[rest]


def _dark(intensities: np.ndarray) -> np.ndarray:
    intensities = ndimage.uniform_filter(intensities, 3, mode="nearest")  # the background is noise
    low, high = (float(value) for value in np.percentile(intensities, (1, 99)))
    if not high > low:
        return np.zeros(intensities.shape, bool)
    return intensities < low + _DARK_SHARE * (_otsu(np.clip(intensities, low, high)) - low)


def _certain(background: np.ndarray, long_axis: int) -> np.ndarray:
    """Return the pieces of what may be background that are certainly outside; none, unless they are large."""
    pieces, count = ndimage.label(background)
    edges = np.zeros(count + 1, int)
    for one, other in product((0, -1), repeat=2):
        place: list[Any] = [one, other]
        place.insert(long_axis, slice(None))
        edges[np.unique(pieces[tuple(place)])] += 1
    edges[0] = 0
    outside = (edges >= _LEAST_EDGES)[pieces]
    return outside if outside.mean() >= _LEAST_BACKGROUND else np.zeros_like(outside)


def _at_rim(pieces: np.ndarray, count: int, axes: list[int]) -> np.ndarray:
    """Return, for each number of a piece, whether it reaches the first or last cell along one of the axes."""
    found = np.zeros(count + 1, bool)
    for axis in axes:
        found[np.take(pieces, [0, -1], axis=axis)] = True
    return found


def _otsu(values: np.ndarray) -> float:
    """Return the threshold that parts values into the two groups whose means differ the most, weighed by size."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = values.size - below
    sums = np.cumsum(counts * centres)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (means[0] - means[1]) ** 2)])
