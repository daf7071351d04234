"""What a machine can train, and how long a step takes on it, measured on a small patch."""

from __future__ import annotations

import math
import time

import torch
from torch.nn import functional

from rep3d.nn.single import for_single_patches
from rep3d.training.precision import MixedPrecision
from rep3d.training.settings import AUTO

__all__ = ["default_preset", "measure_step"]

_PATCH = 64  # voxels along each side: large enough that a step is not all overhead
_BASE_NEEDS = 12 * 10**9  # bytes of a GPU


def default_preset(device: torch.device) -> str:
    """Return the network to train on a device where nobody asked for another.

    On a CPU ``"tiny"`` learned more than ``"quick"`` within the same minutes, see ``docs/results/minutes.json``.
    """
    large = device.type == "cuda" and torch.cuda.get_device_properties(device).total_memory >= _BASE_NEEDS
    return "base" if large else "tiny"


def measure_step(network: torch.nn.Module, in_channels: int, device: torch.device, precision: str = AUTO) -> float:
    """Return seconds per voxel of a training step on one patch, the best of three: the first one is slower.

    Args:
        network: in its training form, on the CPU; it is left there with gradients of no meaning.
        in_channels: channels of its images.
        device: where to measure.
        precision: in which, as in :class:`rep3d.training.precision.MixedPrecision`.
    """
    run = MixedPrecision(device, precision=precision)
    network = for_single_patches(network).to(device).train()
    patch = torch.rand(1, in_channels, _PATCH, _PATCH, _PATCH, device=device)
    seconds = math.inf
    for _ in range(3):
        started = time.perf_counter()
        logits = run(patch, network)
        functional.cross_entropy(logits, torch.zeros_like(patch[:, 0], dtype=torch.long)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = min(seconds, time.perf_counter() - started)
    return seconds / _PATCH**3
