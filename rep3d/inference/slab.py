"""What a sliding window gathers: as many slices of the result as a window has, not the whole of it.

The scores of all classes for a whole CT (512 x 512 x 700 voxels, 14 classes) are 10 GB. But where windows are taken in
order along the longest axis, what lies before the next one is settled. How many windows there are, and how they are
blended, is as in MONAI's SlidingWindowInferer; they lie at even distances, as nnU-Net's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from monai.data.utils import compute_importance_map

from rep3d.imaging.grid import Place

__all__ = ["Slab", "clipped", "long_axis", "moved", "slab_bytes", "starts_along"]

_SOFTMAX_SLICES = 16


class Slab:
    """What is gathered of an image: as many slices as a window has along the image's longest side.

    Args:
        window: the sliding window (D, H, W).
        shape: the image (D, H, W), no smaller than the window.
        channels: classes of the model, background included.
        device: where to gather.
    """

    def __init__(self, window: tuple[int, ...], shape: tuple[int, ...], channels: int, device: torch.device) -> None:
        self._window, self._shape, self._axis = window, shape, long_axis(shape)
        sides = [*shape]
        sides[self._axis] = window[self._axis]
        self._logits = torch.zeros((channels, *sides), device=device)
        self._weights = torch.zeros(sides, device=device)
        self._importance = compute_importance_map(window, mode="gaussian", device=device)
        self._next = 0  # the first slice that is not finished

    def rounds(self, overlap: float) -> Iterator[tuple[int, list[Place]]]:
        """Yield the windows that begin at the same slice, with that slice, in the order of the slices."""
        starts = [starts_along(side, length, overlap) for side, length in zip(self._window, self._shape, strict=True)]
        along = starts[self._axis]
        for number, start in enumerate(along):
            corners = product(*(starts[: self._axis] + [[start]] + starts[self._axis + 1 :]))
            x, y, z = self._window
            self._next = along[number + 1] if number + 1 < len(along) else self._shape[self._axis]
            yield start, [(slice(i, i + x), slice(j, j + y), slice(k, k + z)) for i, j, k in corners]

    def add(self, logits: torch.Tensor, place: Place, start: int) -> None:
        """Add a window's logits (C, d, h, w), the slab beginning at slice ``start``."""
        here = [*place]
        here[self._axis] = slice(0, self._window[self._axis])
        self._logits[(slice(None), *here)].addcmul_(logits.to(self._logits.device), self._importance)
        self._weights[tuple(here)] += self._importance

    def finished(self, start: int) -> Iterator[tuple[torch.Tensor, Place]]:
        """Yield the probabilities of the slices that no further window changes, and move on."""
        count = self._next - start
        for first in range(0, count, _SOFTMAX_SLICES):
            part = min(_SOFTMAX_SLICES, count - first)
            weights = self._weights.narrow(self._axis, first, part)
            computed = weights > 0
            logits = self._logits.narrow(1 + self._axis, first, part) / torch.where(computed, weights, 1.0)
            probabilities = logits.softmax(0)
            if not bool(computed.all()):
                probabilities.mul_(computed)
                probabilities[0].masked_fill_(~computed, 1.0)
            place = [slice(0, length) for length in self._shape]
            place[self._axis] = slice(start + first, start + first + part)
            yield probabilities, (place[0], place[1], place[2])
        for gathered in (self._logits.movedim(1 + self._axis, 0), self._weights.movedim(self._axis, 0)):
            kept = len(gathered) - count
            for index in range(kept):  # one after the other: the slices to keep may overlap with where they go
                gathered[index].copy_(gathered[index + count])
            gathered[kept:].zero_()


def long_axis(shape: tuple[int, ...]) -> int:
    """Return the axis along which a slab moves through an image (D, H, W)."""
    return max(range(len(shape)), key=lambda axis: shape[axis])


def slab_bytes(channels: int, shape: tuple[int, ...], window: tuple[int, ...]) -> int:
    """Return the bytes that a slab takes, of an image (D, H, W)."""
    axis = long_axis(shape)
    return 4 * (channels + 2) * math.prod(shape) // shape[axis] * window[axis]


def starts_along(side: int, length: int, overlap: float) -> list[int]:
    """Return where windows of that side begin along an axis of that length: as many as that overlap needs, at even
    distances, so that they overlap by as much as so many can. As nnU-Net lays them."""
    last = max(length - side, 0)
    steps = math.ceil(last / max(1, int(side * (1 - overlap))))
    return [round(number * last / max(steps, 1)) for number in range(steps + 1)]


def moved(place: Place, by: Sequence[int]) -> Place:
    """Return a place, seen from a corner that lies there."""
    x, y, z = (slice(part.start - corner, part.stop - corner) for part, corner in zip(place, by, strict=True))
    return x, y, z


def clipped(place: Place, shape: tuple[int, ...]) -> Place:
    """Return the part of a place that lies in the image; it may be empty."""
    starts = [min(max(part.start, 0), side) for part, side in zip(place, shape, strict=True)]
    stops = [min(max(part.stop, 0), side) for part, side in zip(place, shape, strict=True)]
    x, y, z = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    return x, y, z
