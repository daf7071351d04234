"""The label of each voxel by a sliding window, of an image that may lie on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rep3d.inference.slab import Slab, clipped, moved, slab_bytes

__all__ = ["cut", "streamed_labels"]

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


def streamed_labels(
    image: np.ndarray,
    window: tuple[int, ...],
    overlap: float,
    predict: Callable[[torch.Tensor], torch.Tensor],
    channels: int,
    device: torch.device,
) -> np.ndarray:
    """Return the most likely channel of each voxel, windows blended with Gaussian weights.

    Args:
        image: (K, D, H, W), scaled as the task says; it may be memory-mapped.
        window: sides of the sliding window in voxels.
        overlap: of neighbouring windows, as a share of their sides.
        predict: maps windows (1, K, D, H, W), float32 and on the device, to scores (1, C, D, H, W).
        channels: C.
        device: where the windows are computed.

    Returns:
        (D, H, W) channel indices, uint8 where they suffice, else uint16.
    """
    shape = image.shape[1:]
    size = tuple(max(side, length) for side, length in zip(window, shape, strict=True))
    before = [(whole - length) // 2 for whole, length in zip(size, shape, strict=True)]
    gathers_on = device if slab_bytes(channels, size, window) <= _MOST_ON_GPU else torch.device("cpu")
    slab = Slab(window, size, channels, gathers_on)
    labels = np.empty(shape, np.uint8 if channels <= 256 else np.uint16)
    for start, places in slab.rounds(overlap):
        for place in places:
            patch = torch.from_numpy(cut(image, [part.start for part in place], window).astype(np.float32))
            slab.add(predict(patch[None].to(device))[0], place, start)
        for probabilities, place in slab.finished(start):
            at = moved(place, before)
            inside = clipped(at, shape)
            there = probabilities[(slice(None), *moved(inside, [part.start for part in at]))]
            labels[inside] = there.argmax(0).cpu().numpy()
    return labels
