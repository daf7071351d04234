"""Convolutions of a single patch: the same results and gradients, whatever the way."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rep3d.nn.single import SinglePatchConv3d, for_single_patches


@pytest.mark.parametrize(
    "shape", [(1, 3, 6, 5, 4), (1, 3, 5, 4, 6), (2, 3, 6, 4, 4), (1, 3, 2, 4, 4), (1, 3, 90, 80, 2)]
)
def test_results_and_gradients_are_those_of_the_plain_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(3, 4, 3, padding=1)
    found = []
    for conv in (plain, SinglePatchConv3d.of(plain)):
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).requires_grad_()
        y = conv(x)
        plain.zero_grad()
        (y * y.detach().cos()).sum().backward()
        assert plain.weight.grad is not None and plain.bias is not None and plain.bias.grad is not None
        found.append((y.detach(), x.grad, plain.weight.grad.clone(), plain.bias.grad.clone()))
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


def test_only_plain_3_3_3_convolutions_are_replaced_and_names_stay() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(2, 2, 3, padding=1, groups=2), nn.Conv3d(2, 2, 3, stride=2, padding=1)
    )
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    for_single_patches(network)
    assert [type(module) for module in network] == [SinglePatchConv3d, nn.Conv3d, nn.Conv3d]
    assert {name: tensor.data_ptr() for name, tensor in network.state_dict().items()} == before
