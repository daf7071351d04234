"""How much memory a training step takes, worked out without computing one.

PyTorch runs a network on tensors that have shapes and no values, and tells each tensor that it would keep for the
gradients. Measured steps took 0.14 to 0.28 GB more than that and the weights (``docs/results/patch_memory.json``, by
``benchmarks/memory.py --patches``), so whoever plans with it leaves room.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from rep3d.nn.zoo import build_network, preset_config, preset_stride

__all__ = ["StepMemory", "step_memory"]

_SIDE = 64  # voxels of the patch that is looked at; what is kept grows with the voxels
_WEIGHT = 16  # bytes of each in single precision: itself, its gradient, and the two moments of AdamW


@dataclass(frozen=True)
class StepMemory:
    """What a step takes in single precision, in bytes.

    Attributes:
        fixed: weights, gradients, and the optimizer's state.
        per_voxel: for each voxel of the patches.
    """

    fixed: int
    per_voxel: float

    def of(self, patch: Sequence[int]) -> int:
        """Return the bytes that a step on one patch (D, H, W) takes."""
        return self.fixed + round(self.per_voxel * math.prod(patch))


def step_memory(preset: str, in_channels: int, out_channels: int) -> StepMemory:
    """Return the memory of a training step on one patch.

    Args:
        preset: the network, one of :func:`rep3d.nn.zoo.preset_words`.
        in_channels: of its images.
        out_channels: of its logits, background included.

    Raises:
        ConfigError: if there is no such network.
    """
    sides = (max(_SIDE, 2 * preset_stride(preset)),) * 3
    network = build_network(preset_config(preset, in_channels, out_channels, sides)).train()
    weights = {weight.untyped_storage()._cdata for weight in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True), saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(torch.empty(1, in_channels, *sides))
        functional.cross_entropy(logits, torch.zeros(1, *sides, dtype=torch.long))
    total = sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights)
    fixed = _WEIGHT * sum(weight.numel() for weight in network.parameters())
    return StepMemory(fixed, total / math.prod(sides))
