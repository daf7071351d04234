"""How unsure a prediction is, in one number that does not grow with the image; and how sure it is of each label.

A sum over voxels prefers large images, and a mean over all voxels prefers tight crops: most voxels are background that
no model doubts. Here each measure is a mean over the same region, the predicted foreground and what is next to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

__all__ = [
    "label_confidence",
    "mean_entropy",
    "mean_margin",
    "mean_variance",
    "regional_mean",
    "voxel_entropy",
    "voxel_margin",
    "voxel_variance",
]

_REACH = 5  # voxels: side of the cube by which the predicted foreground is grown
_SLICES_AT_ONCE = 16


def voxel_entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """Entropy of each voxel as a share of the largest possible.

    Args:
        probabilities: (C, D, H, W) softmax output, C >= 2.

    Returns:
        (D, H, W), from 0 (certain) to 1 (every class equally likely).
    """
    scale = -1.0 / math.log(probabilities.shape[0])
    slabs = [
        slab.clamp_min(1e-8).log_().mul_(slab).sum(0).mul_(scale)
        # Copies of all classes at once might not fit.
        for slab in map(torch.Tensor.float, probabilities.split(_SLICES_AT_ONCE, dim=1))
    ]
    return torch.cat(slabs)


def voxel_margin(probabilities: torch.Tensor) -> torch.Tensor:
    """1 - (p1 - p2) of each voxel, with p1 and p2 the probabilities of its two likeliest classes.

    Args:
        probabilities: (C, D, H, W) softmax output, C >= 2.

    Returns:
        (D, H, W), from 0 (certain) to 1 (two classes equally likely).
    """
    first, second = probabilities.topk(2, dim=0).values
    return 1 - (first - second)


def voxel_variance(views: Iterable[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how much the views of one image disagree at each voxel.

    The variance over the views, summed over the classes, is at most 1 - 1 / n for n views (each certain, of another
    class), and at most 1 - 1 / C for C classes; it is given as a share of the smaller of the two.

    Args:
        views: (C, D, H, W) softmax outputs on one grid; they are read one after the other, so that a generator never
            holds them all.

    Returns:
        (D, H, W) from 0 (all agree) to 1, and the mean of the views (C, D, H, W).
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for view in views:
        count += 1
        change = view - mean
        mean = mean + change / count
        squares = squares + change * (view - mean)  # Welford: no difference of large numbers
    largest = 1 - 1 / min(count, mean.shape[0]) if count > 1 else 1.0
    return (squares.sum(0) / max(count, 1) / largest).clamp(0, 1), mean


def mean_entropy(probabilities: torch.Tensor) -> float:
    """Return the mean of :func:`voxel_entropy` in and around the predicted foreground; see :func:`regional_mean`."""
    return regional_mean(voxel_entropy(probabilities), probabilities)


def mean_margin(probabilities: torch.Tensor) -> float:
    """Return the mean of :func:`voxel_margin` in and around the predicted foreground; see :func:`regional_mean`."""
    return regional_mean(voxel_margin(probabilities), probabilities)


def mean_variance(views: Iterable[torch.Tensor]) -> float:
    """Return the mean of :func:`voxel_variance` in and around the foreground that the views predict together."""
    variance, probabilities = voxel_variance(views)
    return regional_mean(variance, probabilities)


def regional_mean(amount: torch.Tensor, probabilities: torch.Tensor) -> float:
    """Return the mean of a voxel map (D, H, W) in and around the predicted foreground.

    Where no foreground is predicted there is no region; the map is then weighted by itself (sum of squares over sum),
    which voxels without doubt do not change either, however many they are.
    """
    region = probabilities[0] < 0.5
    for axis in range(3):  # along one axis after the other: the same cube with 12 comparisons instead of 125
        found = region.clone()
        for reach in range(1, min(_REACH // 2 + 1, region.shape[axis])):
            kept = region.shape[axis] - reach
            found.narrow(axis, reach, kept).logical_or_(region.narrow(axis, 0, kept))
            found.narrow(axis, 0, kept).logical_or_(region.narrow(axis, reach, kept))
        region = found
    if bool(region.any()):
        return float(amount[region].mean())
    total = float(amount.double().sum())
    return float(amount.double().square().sum()) / total if total > 0 else 0.0


def label_confidence(probabilities: torch.Tensor) -> list[float | None]:
    """Return the mean probability of each class where it is the most probable, on the grid of the probabilities.

    Args:
        probabilities: (C, D, H, W) softmax output.

    Returns:
        One number per class, background first; None for a class that is the most probable nowhere.
    """
    channels = probabilities.shape[0]
    counts = torch.zeros(channels, dtype=torch.float64)
    sums = torch.zeros(channels, dtype=torch.float64)
    for slab in probabilities.split(_SLICES_AT_ONCE, dim=1):
        highest, channel = slab.float().max(0)
        flat = channel.flatten()
        counts += torch.bincount(flat, minlength=channels)
        sums += torch.bincount(flat, weights=highest.flatten().double(), minlength=channels)
    return [float(total / count) if count else None for total, count in zip(sums, counts, strict=True)]
