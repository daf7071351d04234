"""The label of each voxel by a sliding window, with the scores of one layer of windows in memory.

The scores of all classes for a whole CT (512 x 512 x 700 voxels, 14 classes) are 10 GB. But where windows are taken in
order along the longest axis, what lies before the next one is settled: its labels are written down, and the scores
forgotten. What is blended, and how, is as in MONAI's SlidingWindowInferer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices

__all__ = ["cut", "streamed_labels"]

_MOST_ON_GPU = 2 * 10**9  # bytes of scores; more are put together in main memory


def cut(volume: np.ndarray, first: Sequence[int], sides: Sequence[int]) -> np.ndarray:
    """Return a part of a volume; what the volume lacks is filled with zeros, half of it on either side.

    Args:
        volume: (D, H, W).
        first: the part's first voxel.
        sides: of the part, in voxels.
    """
    part = volume[tuple(slice(start, start + side) for start, side in zip(first, sides, strict=True))]
    lacking = [side - length for side, length in zip(sides, part.shape, strict=True)]
    return np.pad(part, [(short // 2, short - short // 2) for short in lacking]) if any(lacking) else part


def streamed_labels(
    image: np.ndarray,
    window: tuple[int, ...],
    overlap: float,
    predict: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
) -> np.ndarray:
    """Return the most likely channel of each voxel, windows blended with Gaussian weights.

    Args:
        image: (D, H, W), scaled as the task says; it may be memory-mapped.
        window: sides of the sliding window in voxels.
        overlap: of neighbouring windows, as a share of their sides.
        predict: maps windows (1, 1, D, H, W), float32 and on the device, to scores (1, C, D, H, W).
        device: where the windows are computed.

    Returns:
        (D, H, W) channel indices, uint8 where they suffice, else uint16.
    """
    size = [max(side, length) for side, length in zip(window, image.shape, strict=True)]
    axis = int(np.argmax(size))
    steps = [side if side == length else int(side * (1 - overlap)) for side, length in zip(window, size, strict=True)]
    starts = [tuple(part.start for part in parts) for parts in dense_patch_slices(size, window, steps)]
    starts.sort(key=lambda start: start[axis])
    weights = compute_importance_map(window, "gaussian", 0.125, device)
    inside = tuple(
        slice((whole - length) // 2, (whole - length) // 2 + length)
        for whole, length in zip(size, image.shape, strict=True)
    )
    layer = list(size)
    layer[axis] = window[axis]
    scores: torch.Tensor | None = None
    labels = np.empty(0)
    settled = 0
    for first, group in itertools.groupby(
        [*starts, None], key=lambda start: size[axis] if start is None else start[axis]
    ):
        if scores is not None:
            done = first - settled
            part = scores.narrow(1 + axis, 0, done).argmax(0).cpu().numpy()
            where = [slice(None)] * 3
            where[axis] = slice(settled, first)
            labels[tuple(where)] = part
            left = scores.narrow(1 + axis, done, window[axis] - done).clone()
            scores.zero_().narrow(1 + axis, 0, window[axis] - done).copy_(left)
            settled = first
        for start in group:
            if start is None:
                break
            patch = torch.from_numpy(cut(image, start, window).astype(np.float32))
            found = predict(patch[None, None].to(device))[0].float() * weights
            if scores is None:
                on_gpu = 4 * len(found) * math.prod(layer) <= _MOST_ON_GPU
                scores = torch.zeros(len(found), *layer, device=device if on_gpu else "cpu")
                labels = np.empty(size, np.uint8 if len(found) <= 256 else np.uint16)
            place = [slice(begin, begin + side) for begin, side in zip(start, window, strict=True)]
            place[axis] = slice(0, window[axis])
            scores[(slice(None), *place)] += found.to(scores.device)
    return labels[inside]
