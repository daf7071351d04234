"""How sure a prediction is of each label."""

from __future__ import annotations

import torch

__all__ = ["label_confidence"]

_SLICES_AT_ONCE = 16


def label_confidence(probabilities: torch.Tensor) -> list[float | None]:
    """Mean probability of each class over the voxels where it is the most probable, on the grid of the probabilities.

    Args:
        probabilities: (C, D, H, W) softmax output.

    Returns:
        One number per class, background first; None for a class that is the most probable nowhere.
    """
    channels = probabilities.shape[0]
    counts = torch.zeros(channels, dtype=torch.float64)
    sums = torch.zeros(channels, dtype=torch.float64)
    for slab in probabilities.split(_SLICES_AT_ONCE, dim=1):
        highest, channel = slab.max(0)
        flat = channel.flatten()
        counts += torch.bincount(flat, minlength=channels)
        sums += torch.bincount(flat, weights=highest.flatten().double(), minlength=channels)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
