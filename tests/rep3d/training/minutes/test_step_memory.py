"""What a step keeps, worked out on tensors without values, is what it keeps on tensors that have them."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from rep3d.nn.zoo import build_network, preset_config
from rep3d.training.minutes.step_memory import step_memory


def test_what_is_kept_is_what_a_real_step_keeps() -> None:
    found = step_memory("segresnet", 1, 3)
    network = build_network(preset_config("segresnet", 1, 3, (64, 64, 64))).train()
    weights = {weight.data_ptr() for weight in network.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = network(torch.rand(1, 1, 64, 64, 64))
        torch.nn.functional.cross_entropy(logits, torch.zeros(1, 64, 64, 64, dtype=torch.long))
    real = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    assert found.per_voxel * 64**3 == pytest.approx(real, rel=0.01)
    assert found.fixed == 16 * sum(weight.numel() for weight in network.parameters())
    assert found.of((64, 64, 128)) - found.fixed == pytest.approx(2 * real, rel=0.01)


def test_more_labels_take_more() -> None:
    assert step_memory("tiny", 1, 30).per_voxel > step_memory("tiny", 1, 2).per_voxel > 500
