"""From class probabilities on the task's grid to labels on the image's own grid, exactly, quickly and in little memory.

The label of an image's voxel is the class whose linearly interpolated probability is the highest. Computing all of
these probabilities for a large image takes minutes and gigabytes; most of them cannot matter. The image is cut into
blocks. A linear interpolation never leaves the range of the values it is made of, so in a block

- a class whose probability is nowhere near reaches 1 / C, or another class's lowest value, can win no voxel;
- a class that is the highest at every voxel of the task's grid around the block wins all of it.

What is left is interpolated block by block, for the few classes in question. Along parallel grids that is three small
matrix products per block. Besides the result, some megabytes are used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch.nn import functional

from rep3d.imaging.grid import Geometry
from rep3d.imaging.resampling import AxisMap, axis_maps

__all__ = ["Decision", "decide", "interpolated_map"]

_CELLS = 16  # side of a block, in voxels of the task's grid
_SIDES = (8, 64)  # of a block, in voxels of the image, at least and at most

Region = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Decision:
    """Labels on an image's grid.

    Attributes:
        values: (X, Y, Z) voxel values.
        counts: how many voxels each channel won, background first; within the region only.
    """

    values: np.ndarray
    counts: list[int]


def decide(
    probabilities: torch.Tensor, affine: np.ndarray, grid: Geometry, values: Sequence[int], region: Region | None = None
) -> Decision:
    """Return the label of each voxel of an image.

    Args:
        probabilities: (C, D, H, W), in single or half precision on the CPU.
        affine: (4, 4) from their voxel indices to RAS mm.
        grid: the image's grid. Outside the probabilities' grid, its rim goes on.
        values: the voxel value to write for each of the C channels.
        region: the part of the image to decide; the rest is 0. None for all of it.

    Returns:
        Among classes of the same probability, the first wins.
    """
    # In the order of a file: a large map is written in a fraction of the time.
    result = np.zeros(grid.shape, np.uint8 if max(values) <= 255 else np.uint16, order="F")
    written = np.asarray(values, result.dtype)
    counts = np.zeros(len(values), np.int64)
    blocks = _blocks_of(probabilities, affine, grid)
    for block in _cut(region, grid, blocks.step):
        around = blocks.around(block)
        candidates = _candidates(around)
        if len(candidates) == 1:
            result[block] = written[candidates[0]]
            counts[candidates[0]] += math.prod(part.stop - part.start for part in block)
            continue
        winner = np.asarray(candidates)[_winner(blocks.interpolate(_picked(around, candidates), block))]
        counts += np.bincount(winner.ravel(), minlength=len(values))
        result[block] = written[winner]
    return Decision(result, counts.tolist())


def interpolated_map(
    volume: torch.Tensor, affine: np.ndarray, grid: Geometry, region: Region | None = None
) -> np.ndarray:
    """Return a map of shares in [0, 1] on an image's grid, linearly interpolated.

    Args:
        volume: (D, H, W), float32 on the CPU.
        affine: (4, 4) from its voxel indices to RAS mm.
        grid: the image's grid.
        region: the part of the image to fill; the rest is 0. None for all of it.

    Returns:
        (X, Y, Z) uint8, in steps of 1/255.
    """
    result = np.zeros(grid.shape, np.uint8, order="F")
    blocks = _blocks_of(volume[None], affine, grid)
    for block in _cut(region, grid, blocks.step):
        found = blocks.interpolate(blocks.around(block), block)[0]
        result[block] = found.mul_(255).round_().to(torch.uint8).numpy()
    return result


def _candidates(around: torch.Tensor) -> list[int]:
    """Return the channels that can win a voxel inside a box (C, d, h, w) of the task's grid; one at least."""
    channels = around.shape[0]
    lowest, highest = torch.aminmax(around.reshape(channels, -1), dim=1)
    low, high = lowest.tolist(), highest.tolist()
    bound = max(*low, 1 / channels) - 1e-5  # rounding must not rule out a winner
    found = [channel for channel in range(channels) if high[channel] >= bound]
    if len(found) > 1:
        winner = _winner(_picked(around, found))
        first = int(winner.flat[0])
        if (winner == first).all():
            return [found[first]]
    return found


def _picked(around: torch.Tensor, channels: list[int]) -> torch.Tensor:
    if len(channels) == around.shape[0]:
        return around.contiguous()
    return around.index_select(0, torch.as_tensor(channels))


def _winner(probabilities: torch.Tensor) -> np.ndarray:
    """Return the first of the highest channels at each voxel of (K, x, y, z): argmax, many times PyTorch's speed."""
    channels = probabilities.numpy()
    best = channels[0].copy()
    kind = np.uint8 if len(channels) <= 256 else np.uint16
    winner = np.zeros(best.shape, kind)
    higher = np.empty(best.shape, bool)
    for number in range(1, len(channels)):
        np.greater(channels[number], best, out=higher)
        np.maximum(best, channels[number], out=best)
        # Numbers rise, so the highest one that was ever the best so far is the winner.
        np.maximum(winner, higher.view(np.uint8) * kind(number), out=winner)
    return winner


def _blocks_of(volume: torch.Tensor, affine: np.ndarray, grid: Geometry) -> _ParallelBlocks | _ObliqueBlocks:
    """Return how an image is cut and interpolated from a volume (K, D, H, W)."""
    maps = axis_maps(tuple(volume.shape[1:]), affine, grid.shape, grid.affine)
    return _ParallelBlocks(volume, maps) if maps else _ObliqueBlocks(volume, affine, grid)


def _cut(region: Region | None, grid: Geometry, step: tuple[int, int, int]) -> Iterator[Region]:
    """Cut a region, or all of a grid, into blocks."""
    region = region or (slice(0, grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
    parts = [
        [slice(start, min(start + side, part.stop)) for start in range(part.start, part.stop, side)]
        for part, side in zip(region, step, strict=True)
    ]
    yield from product(parts[0], parts[1], parts[2])


def _side(voxels_per_cell: float) -> int:
    return int(min(max(round(_CELLS * voxels_per_cell), _SIDES[0]), _SIDES[1]))


class _ParallelBlocks:
    """Blocks of an image whose axes are parallel to those of the probabilities."""

    def __init__(self, probabilities: torch.Tensor, maps: tuple[AxisMap, AxisMap, AxisMap]) -> None:
        self._volume = probabilities.permute(0, *(1 + along.source for along in maps))
        lengths = self._volume.shape[1:]
        self._corners = [along.corners(length) for along, length in zip(maps, lengths, strict=True)]
        steps = [len(along.position) / max(float(np.ptp(along.position)), 1.0) for along in maps]
        self.step = (_side(steps[0]), _side(steps[1]), _side(steps[2]))

    def _range(self, axis: int, part: slice) -> tuple[int, int]:
        first, second, _ = self._corners[axis]
        return int(first[part].min()), int(second[part].max())

    def around(self, block: Region) -> torch.Tensor:
        """Return all that the block's voxels are interpolated from."""
        ranges = (self._range(axis, part) for axis, part in enumerate(block))
        return self._volume[(slice(None), *(slice(low, high + 1) for low, high in ranges))].float()

    def _weights(self, axis: int, part: slice) -> torch.Tensor:
        """(voxels of the block, voxels around it) matrix that interpolates along one axis."""
        low, high = self._range(axis, part)
        first, second, weight = (values[part] for values in self._corners[axis])
        matrix = np.zeros((len(first), high - low + 1), np.float32)
        rows = np.arange(len(first))
        np.add.at(matrix, (rows, first - low), 1 - weight)
        np.add.at(matrix, (rows, second - low), weight)
        return torch.from_numpy(matrix)

    def interpolate(self, around: torch.Tensor, block: Region) -> torch.Tensor:
        """(K, d, h, w) around a block to (K, x, y, z) in it."""
        x, y, z = (self._weights(axis, part) for axis, part in enumerate(block))
        lines = y @ (around @ z.T)
        channels, depth, height, width = lines.shape
        return (x @ lines.reshape(channels, depth, height * width)).reshape(channels, -1, height, width)


class _ObliqueBlocks:
    """Blocks of an image that lies at an angle to the probabilities."""

    def __init__(self, probabilities: torch.Tensor, affine: np.ndarray, grid: Geometry) -> None:
        self._volume = probabilities
        self._lengths = np.array(probabilities.shape[1:])
        self._matrix = np.linalg.inv(affine) @ grid.affine
        cells = np.linalg.norm(self._matrix[:3, :3], axis=0)
        x, y, z = (_side(1 / length) for length in cells)
        self.step = (x, y, z)

    def _low_and_high(self, block: Region) -> tuple[np.ndarray, np.ndarray]:
        corners = np.array(list(product(*((part.start, part.stop - 1) for part in block)))).T
        position = self._matrix[:3, :3] @ corners + self._matrix[:3, 3:]
        low = np.clip(np.floor(position.min(1) - 1e-3), 0, self._lengths - 1).astype(int)
        high = np.clip(np.ceil(position.max(1) + 1e-3), 0, self._lengths - 1).astype(int)
        return low, high

    def around(self, block: Region) -> torch.Tensor:
        """Return all that the block's voxels are interpolated from."""
        low, high = self._low_and_high(block)
        return self._volume[(slice(None), *(slice(a, b + 1) for a, b in zip(low, high, strict=True)))].float()

    def interpolate(self, around: torch.Tensor, block: Region) -> torch.Tensor:
        """(K, d, h, w) around a block to (K, x, y, z) in it."""
        low, _ = self._low_and_high(block)
        index = np.stack(np.meshgrid(*(np.arange(part.start, part.stop) for part in block), indexing="ij"), -1)
        position = index @ self._matrix[:3, :3].T + self._matrix[:3, 3]
        position = np.clip(position, 0, self._lengths - 1) - low
        lengths = np.array(around.shape[1:])
        share = 2 * position / np.maximum(lengths - 1, 1) - 1  # grid_sample's coordinates, the last axis first
        sample = torch.from_numpy(share[..., ::-1].astype(np.float32))
        return functional.grid_sample(
            around[None], sample[None], mode="bilinear", padding_mode="border", align_corners=True
        )[0]
