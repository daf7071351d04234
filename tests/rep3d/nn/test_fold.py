"""Folding: the deployed network equals the trained one in eval mode, over every variant, and folding is idempotent."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from rep3d.nn.config import Rep3DConfig
from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.fold import reparameterize
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.rep3d import Rep3D, Rep3DBlock
from rep3d.nn.zoo import build_model

VARIANTS = [("learned", "shared"), ("learned", "depthwise"), ("fixed", "shared"), ("none", "shared")]


NARROW, WIDE = (4, 6, 8, 10), (9, 5, 12, 16)


def settings(
    spatial_prior: str = "learned",
    generator: str = "shared",
    kernel_size: int = 5,
    dims: tuple[int, ...] = NARROW,
) -> Rep3DConfig:
    return Rep3DConfig(
        dims=dims,
        depths=(1, 2, 1, 1),
        hidden_size=12,
        kernel_size=kernel_size,
        spatial_prior=spatial_prior,
        generator=generator,
        generator_kernel=3,
    )


def trained(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a network with statistics, masks and norms away from their start, in eval mode."""
    network = network.to(dtype)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(1, 1, 32, 16, 16, dtype=dtype) * 3 + 1).square().mean().backward()
        optimizer.step()
    return network.eval()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def check_folding(network: nn.Module, precision: tuple[torch.dtype, float]) -> None:
    dtype, tolerance = precision
    start = copy.deepcopy(network).to(dtype).eval()
    network = trained(network, dtype)
    folded = reparameterize(network)
    assert not any(isinstance(part, (LRBMConv3d, CSLAConv3d, nn.BatchNorm3d)) for part in folded.modules())
    x = torch.randn(1, 1, 32, 16, 16, dtype=dtype)
    with torch.no_grad():
        expected = network(x)
        assert relative_error(folded(x), expected) < tolerance
        assert relative_error(start(x), expected) > 0.01, "training changed nothing, so this test would prove nothing"


PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-12)]


@pytest.mark.parametrize(
    ("variant", "sizes", "precision"),
    itertools.product(VARIANTS, [(3, WIDE), (7, NARROW), (21, NARROW)], PRECISIONS),
    ids=str,
)
def test_folded_network_equals_the_trained_one(
    variant: tuple[str, str], sizes: tuple[int, tuple[int, ...]], precision: tuple[torch.dtype, float]
) -> None:
    torch.manual_seed(0)
    check_folding(Rep3D(settings(*variant, *sizes)), precision)


@pytest.mark.parametrize(
    ("sides", "dims", "precision"),
    [((3, 3), WIDE, PRECISIONS[1]), ((7, 3), WIDE, PRECISIONS[0]), ((21, 5), NARROW, PRECISIONS[1])],
    ids=str,
)
def test_folded_two_branch_network_equals_the_trained_one(
    sides: tuple[int, int], dims: tuple[int, ...], precision: tuple[torch.dtype, float]
) -> None:
    torch.manual_seed(0)
    large, small = sides
    narrow = {"dims": dims, "depths": (1, 2, 1, 1), "hidden_size": 12}
    network = build_model("csla", kernel_size=large, small_kernel_size=small, small_scale=-0.7, **narrow)
    check_folding(network, precision)


class TestBlock:
    @pytest.fixture
    def block(self) -> Rep3DBlock:
        torch.manual_seed(0)
        block = Rep3DBlock(4, settings())
        for parameter in (block.norm.weight, block.norm.bias):
            nn.init.normal_(parameter)  # type: ignore[arg-type]
        for _ in range(3):
            block(torch.randn(2, 4, 8, 8, 8) * 2 + 1)
        return block.eval()

    def test_leaves_the_original_alone(self, block: Rep3DBlock) -> None:
        before = copy.deepcopy(block.state_dict())
        folded = reparameterize(block.train())
        assert block.training and isinstance(block.dwconv, LRBMConv3d)
        assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())
        shared = {p.data_ptr() for p in block.parameters()} & {p.data_ptr() for p in folded.parameters()}
        assert not shared

    def test_only_convolution_bias_and_gelu_remain(self, block: Rep3DBlock) -> None:
        folded = reparameterize(block)
        assert set(folded.state_dict()) == {"dwconv.weight", "dwconv.bias"}
        assert not folded.training
        x = torch.randn(1, 4, 6, 6, 6)
        assert torch.allclose(folded(x), nn.functional.gelu(folded.dwconv(x)))  # type: ignore[operator]

    def test_folding_twice_changes_nothing(self, block: Rep3DBlock) -> None:
        once = reparameterize(block)
        twice = reparameterize(once)
        assert list(once.state_dict()) == list(twice.state_dict())
        assert all(torch.equal(once.state_dict()[name], value) for name, value in twice.state_dict().items())

    def test_a_bias_before_the_norm_is_folded_in(self, block: Rep3DBlock) -> None:
        block.dwconv = LRBMConv3d(4, 5, bias=True, generator_kernel=3)
        nn.init.normal_(block.dwconv.bias)  # type: ignore[arg-type]
        x = torch.randn(1, 4, 6, 6, 6)
        assert relative_error(reparameterize(block)(x), block(x)) < 1e-5

    def test_in_place(self, block: Rep3DBlock) -> None:
        x = torch.randn(1, 4, 6, 6, 6)
        expected = block(x)
        assert reparameterize(block, copy=False) is block
        assert isinstance(block.dwconv, DepthwiseConv3d)
        assert relative_error(block(x), expected) < 1e-5


@pytest.mark.parametrize("conv", [LRBMConv3d(3, 5, bias=True, generator_kernel=3), CSLAConv3d(3, 5)])
def test_convolutions_outside_blocks_are_folded_too(conv: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv, nn.ReLU())
    x = torch.randn(1, 3, 6, 6, 6)
    folded = reparameterize(model)
    assert isinstance(folded[0], DepthwiseConv3d)  # type: ignore[index]
    assert isinstance(reparameterize(model[0]), DepthwiseConv3d)
    assert relative_error(folded(x), model(x)) < 1e-5


def test_a_convolution_used_twice_is_folded_at_both_places_and_stays_one() -> None:
    conv = LRBMConv3d(3, 5, generator_kernel=3)
    model = nn.ModuleDict({"first": conv, "second": conv, "inner": nn.Sequential(conv)})
    folded = reparameterize(model)
    assert isinstance(folded["first"], DepthwiseConv3d)  # type: ignore[index]
    assert folded["first"] is folded["second"] is folded["inner"][0]  # type: ignore[index]


def test_other_modules_are_untouched() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    folded = reparameterize(model)
    assert list(folded.state_dict()) == list(model.state_dict())
