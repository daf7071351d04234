"""The label of each of an image's own voxels by a sliding window, slab by slab, of an image that may lie on disk.

Where :class:`rep3d.inference.predictor.Predictor` keeps the probabilities of the whole image, here they are decided, by
the same code, as soon as no further window changes them: neither these nor the label map are ever whole in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rep3d.imaging.grid import Geometry, Place
from rep3d.imaging.resampling import axis_maps
from rep3d.inference.label_resampling import decide
from rep3d.inference.slab import Slab, clipped, long_axis, moved, slab_bytes
from rep3d.inference.stage import kept_type

__all__ = ["cut", "slab_axis", "streamed_labels"]

_MOST_ON_GPU = 2 * 10**9  # bytes of scores; more are put together in main memory


def cut(volume: np.ndarray, first: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """Return a part of a volume; what the volume lacks is filled with zeros, half of it on either side.

    Args:
        volume: (..., D, H, W).
        first: the part's first voxel.
        sides: of the part, in voxels.
    """
    place: tuple[Any, ...] = tuple(slice(start, start + side) for start, side in zip(first, sides, strict=True))
    part = volume[(..., *place)]
    lacking = [0] * (part.ndim - 3) + [side - length for side, length in zip(sides, part.shape[-3:], strict=True)]
    return np.pad(part, [(short // 2, short - short // 2) for short in lacking]) if any(lacking) else part


def slab_axis(seen: Geometry, window: tuple[int, ...], grid: Geometry) -> int | None:
    """Return the axis of an image along which :func:`streamed_labels` yields it in parts; None where it yields all.

    Args:
        seen: the grid of what the network sees.
        window: sides of the sliding window in voxels.
        grid: the image's own.
    """
    maps = axis_maps(seen.shape, seen.affine, grid.shape, grid.affine)
    return None if maps is None else [along.source for along in maps].index(long_axis(_padded(seen.shape, window)))


def streamed_labels(
    image: np.ndarray,
    affine: np.ndarray,
    grid: Geometry,
    window: tuple[int, ...],
    overlap: float,
    predict: Callable[[torch.Tensor], torch.Tensor],
    values: Sequence[int],
    device: torch.device,
) -> Iterator[tuple[Place, np.ndarray]]:
    """Yield the labels of an image's own voxels, part by part; windows are blended with Gaussian weights.

    Args:
        image: (K, D, H, W) on the task's grid, scaled as the task says; it may be memory-mapped.
        affine: (4, 4) from its voxel indices to RAS mm.
        grid: the image's own grid.
        window: sides of the sliding window in voxels.
        overlap: of neighbouring windows, as a share of their sides.
        predict: maps windows (1, K, D, H, W), float32 and on the device, to scores (1, C, D, H, W).
        values: the voxel value of each of the C channels.
        device: where the windows are computed.

    Yields:
        A part of the image's own grid, and the (x, y, z) voxel values there. Each voxel comes once.
    """
    seen = Geometry(tuple(image.shape[1:]), affine)
    found = _probabilities(image, window, overlap, predict, len(values), device)
    maps = axis_maps(seen.shape, affine, grid.shape, grid.affine)
    own = slab_axis(seen, window, grid)
    if maps is None or own is None:  # at an angle: a part of the image is not a part of what was seen
        whole = torch.empty((len(values), *seen.shape), dtype=kept_type(len(values), seen.shape))
        for probabilities, place in found:
            whole[(slice(None), *place)] = probabilities
        yield _part(grid, 0, slice(0, grid.shape[0])), decide(whole, affine, grid, values).values
        return
    axis, position = maps[own].source, maps[own].position
    before: torch.Tensor | None = None  # the last slice of the part before, between which and this one voxels may lie
    first, reached = 0, -1
    for probabilities, place in found:
        last = place[axis].stop - 1
        planes = np.flatnonzero((position > reached) & (position <= last))
        if before is not None:
            probabilities = torch.cat([before, probabilities], 1 + axis)
        if len(planes):
            part = _part(grid, own, slice(int(planes[0]), int(planes[-1]) + 1))
            here = Geometry(tuple(each.stop - each.start for each in part), _moved(grid.affine, own, int(planes[0])))
            yield part, decide(probabilities, _moved(affine, axis, first), here, values).values
        before = probabilities.narrow(1 + axis, probabilities.shape[1 + axis] - 1, 1).clone()
        first = reached = last


def _probabilities(
    image: np.ndarray,
    window: tuple[int, ...],
    overlap: float,
    predict: Callable[[torch.Tensor], torch.Tensor],
    channels: int,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, Place]]:
    """Yield class probabilities (C, d, h, w) on the CPU, some slices at a time and in their order, and their place."""
    shape = tuple(image.shape[1:])
    size = _padded(shape, window)
    before = [(whole - length) // 2 for whole, length in zip(size, shape, strict=True)]
    gathers_on = device if slab_bytes(channels, size, window) <= _MOST_ON_GPU else torch.device("cpu")
    slab = Slab(window, size, channels, gathers_on)
    for start, places in slab.rounds(overlap):
        for place in places:
            patch = torch.from_numpy(cut(image, [part.start for part in place], window).astype(np.float32))
            slab.add(predict(patch[None].to(device))[0], place, start)
        for probabilities, place in slab.finished(start):
            at = moved(place, before)
            inside = clipped(at, shape)
            if all(part.start < part.stop for part in inside):
                yield probabilities[(slice(None), *moved(inside, [part.start for part in at]))].cpu(), inside


def _padded(shape: tuple[int, ...], window: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(side, length) for side, length in zip(window, shape, strict=True))


def _part(grid: Geometry, axis: int, along: slice) -> Place:
    x, y, z = (along if number == axis else slice(0, side) for number, side in enumerate(grid.shape))
    return x, y, z


def _moved(affine: np.ndarray, axis: int, voxels: int) -> np.ndarray:
    """Return the affine of a volume whose first slices along an axis are left out."""
    moved_affine = affine.copy()
    moved_affine[:3, 3] += voxels * affine[:3, axis]
    return moved_affine
