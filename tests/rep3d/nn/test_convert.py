"""LRBM in other networks: the same function at conversion, training that moves kernel and mask, folding back."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import MedNeXt
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.convert import apply_fast_conv, apply_lrbm, depthwise_convolutions
from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.fold import reparameterize
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.uxnet import UXNet3D, UXNetBlock

VARIANTS = [("learned", "shared"), ("learned", "depthwise"), ("fixed", "shared"), ("none", "shared")]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def uxnet() -> nn.Module:
    """Return a small 3D UX-Net whose residual branches count: at the start of training, a millionth of them is
    added."""
    return UXNet3D(dims=(4, 6, 8, 10), depths=(1, 1, 1, 1), hidden_size=12, layer_scale=0.5).double()


def mednext() -> nn.Module:
    """Return a small MedNeXt; its strided and transposed convolutions are depthwise as well."""
    return MedNeXt(
        init_filters=4, kernel_size=5, use_residual_connection=True, blocks_down=(1, 1), blocks_up=(1, 1)
    ).double()


def depthwise(channels: int = 3, side: int = 5, bias: bool = True) -> nn.Conv3d:
    return nn.Conv3d(channels, channels, side, padding=side // 2, groups=channels, bias=bias)


def image() -> torch.Tensor:
    return torch.randn(1, 1, 32, 16, 16, dtype=torch.float64)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def train(network: nn.Module, steps: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(image()) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("make", [uxnet, mednext])
class TestNetworks:
    @pytest.mark.parametrize(("spatial_prior", "generator"), VARIANTS)
    def test_conversion_keeps_the_function(
        self, make: Callable[[], nn.Module], spatial_prior: str, generator: str
    ) -> None:
        network, x = make(), image()
        converted = apply_lrbm(network, spatial_prior=spatial_prior, generator=generator, generator_kernel=3)
        with torch.no_grad():
            assert relative_error(converted(x), network(x)) < 1e-10
        masks = [part for part in converted.modules() if isinstance(part, LRBMConv3d)]
        assert len(masks) == len(depthwise_convolutions(network)) > 3
        assert not depthwise_convolutions(converted)

    def test_a_step_moves_kernels_and_masks_and_the_folded_network_equals_the_trained_one(
        self, make: Callable[[], nn.Module]
    ) -> None:
        network = apply_lrbm(make(), generator_kernel=3)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        train(network, steps=1)
        moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
        for name, part in network.named_modules():
            if isinstance(part, LRBMConv3d):
                assert {f"{name}.weight", f"{name}.bias", f"{name}.generator.norms.1.bias"} <= moved
        train(network, steps=2)
        folded, x = reparameterize(network), image()
        assert not any(isinstance(part, LRBMConv3d) for part in folded.modules())
        with torch.no_grad():
            assert relative_error(folded(x), network.eval()(x)) < 1e-12

    def test_a_folded_network_has_the_names_of_the_original(self, make: Callable[[], nn.Module]) -> None:
        network = make()
        folded = reparameterize(apply_lrbm(network))
        assert list(folded.state_dict()) == list(network.state_dict())
        network.load_state_dict(folded.state_dict())

    def test_fast_convolutions_give_the_same_values_and_gradients(self, make: Callable[[], nn.Module]) -> None:
        network, x = make(), image()
        fast = apply_fast_conv(network)
        assert list(fast.state_dict()) == list(network.state_dict())
        assert not any(type(part) is nn.Conv3d for part in depthwise_convolutions(fast))
        for model in (network, fast):
            (model(x) - 1).square().mean().backward()
        assert relative_error(fast(x), network(x)) < 1e-12
        for (name, expected), actual in zip(network.named_parameters(), fast.parameters(), strict=True):
            assert torch.allclose(actual.grad, expected.grad, rtol=1e-8, atol=1e-12), name


def test_mednext_keeps_its_strided_and_transposed_convolutions() -> None:
    converted = apply_lrbm(mednext())
    assert isinstance(converted.enc_stages[0][0].conv1, LRBMConv3d)
    assert type(converted.down_blocks[0].conv1) is nn.Conv3d
    assert type(converted.up_blocks[0].conv1) is nn.ConvTranspose3d


class TestConvolution:
    """What a single convolution keeps."""

    def test_the_root_itself(self) -> None:
        conv, x = depthwise(), torch.randn(2, 3, 6, 7, 5)
        converted = apply_lrbm(conv)
        assert isinstance(converted, LRBMConv3d)
        assert torch.allclose(converted(x), conv(x), atol=1e-6)
        assert isinstance(reparameterize(converted), DepthwiseConv3d)

    @pytest.mark.parametrize("bias", [True, False])
    @pytest.mark.parametrize("padding", [2, (2, 2, 2), "same"])
    def test_forms_of_the_same_convolution(self, bias: bool, padding: int | tuple[int, ...] | str) -> None:
        conv = nn.Conv3d(3, 3, 5, padding=padding, groups=3, bias=bias)
        converted = apply_lrbm(conv)
        assert (converted.bias is None) is (not bias)
        x = torch.randn(1, 3, 5, 5, 5)
        assert torch.allclose(converted(x), conv(x), atol=1e-6)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_type_and_train_mode(self, dtype: torch.dtype) -> None:
        model = nn.Sequential(depthwise().to(dtype).eval(), nn.Sequential(depthwise().to(dtype)))
        for converted in (apply_lrbm(model), apply_fast_conv(model)):
            assert [part.training for part in (converted[0], converted[1][0])] == [False, True]
            assert {parameter.dtype for parameter in converted.parameters()} == {dtype}

    def test_device(self) -> None:
        converted = apply_lrbm(nn.Sequential(depthwise()).to("meta"))
        tensors = [*converted.parameters(), *converted.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"meta"} and len(tensors) > 4

    def test_frozen_parameters_stay_frozen_and_freeze_the_mask(self) -> None:
        conv = depthwise()
        conv.weight.requires_grad_(False)
        trainable = {name for name, value in apply_lrbm(conv).named_parameters() if value.requires_grad}
        assert trainable == {"bias"}


class TestWhere:
    def test_shared_modules_stay_shared(self) -> None:
        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = depthwise()
                self.again = self.first
                self.inner = nn.Sequential(self.first, nn.ReLU())

        for model in (apply_lrbm(Shared()), reparameterize(apply_lrbm(Shared()))):
            assert not isinstance(model.first, nn.Conv3d)
            assert model.first is model.again is model.inner[0]  # type: ignore[index]

    def test_a_copy_leaves_the_original_alone(self) -> None:
        model = nn.Sequential(depthwise())
        before = copy.deepcopy(model.state_dict())
        converted = apply_lrbm(model)
        nn.init.zeros_(converted[0].weight)
        assert type(model[0]) is nn.Conv3d
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_in_place(self) -> None:
        model = nn.Sequential(depthwise())
        assert apply_lrbm(model, copy=False) is model
        assert isinstance(model[0], LRBMConv3d)

    def test_a_second_time_changes_nothing(self) -> None:
        once = apply_lrbm(nn.Sequential(depthwise(side=7)))
        twice = apply_lrbm(once, min_kernel_size=3)
        assert list(twice.state_dict()) == list(once.state_dict())
        assert all(torch.equal(value, once.state_dict()[name]) for name, value in twice.state_dict().items())
        assert isinstance(twice[0].generator.convs[0], DepthwiseConv3d)

    def test_networks_that_have_lrbm_or_two_branches_are_left_alone(self) -> None:
        network = Rep3D(Rep3DConfig(dims=(4, 6, 8, 10), hidden_size=12, kernel_size=7))
        assert list(apply_lrbm(network).state_dict()) == list(network.state_dict())
        assert depthwise_convolutions(nn.Sequential(CSLAConv3d(3, 7, small_kernel_size=5))) == []

    def test_a_folded_network_can_be_given_masks_again(self) -> None:
        block = UXNetBlock(4, kernel_size=5)
        folded = reparameterize(apply_lrbm(block))
        x = torch.randn(1, 4, 6, 6, 6)
        again = apply_lrbm(folded)
        assert isinstance(again.dwconv, LRBMConv3d)
        assert torch.allclose(again(x), folded(x), atol=1e-6)

    @pytest.mark.parametrize(
        "other",
        [
            nn.Conv3d(3, 3, 3, padding=1, groups=3),
            nn.Conv3d(3, 3, 5, padding=2),
            nn.Conv3d(3, 6, 5, padding=2, groups=3),
            nn.Conv3d(3, 3, 5, padding=2, groups=3, stride=2),
            nn.Conv3d(3, 3, 5, padding="same", groups=3, dilation=2),
            nn.Conv3d(3, 3, 5, padding=4, groups=3, dilation=2),
            nn.Conv3d(3, 3, 5, groups=3),
            nn.Conv3d(3, 3, 5, padding=1, groups=3),
            nn.Conv3d(3, 3, (5, 5, 7), padding="same", groups=3),
            nn.Conv3d(3, 3, 6, padding="same", groups=3),
            nn.Conv3d(3, 3, 5, padding=2, groups=3, padding_mode="replicate"),
            nn.utils.parametrizations.weight_norm(nn.Conv3d(3, 3, 5, padding=2, groups=3)),
            nn.Conv2d(3, 3, 5, padding=2, groups=3),
            nn.ConvTranspose3d(3, 3, 5, padding=2, groups=3),
        ],
        ids=str,
    )
    def test_other_convolutions_stay_and_alone_are_refused(self, other: nn.Module) -> None:
        model = nn.Sequential(other, depthwise())
        assert type(apply_lrbm(model)[0]) is type(other)
        count = int(isinstance(other, nn.Conv3d))
        for convert in (apply_lrbm, apply_fast_conv):
            with pytest.raises(ConfigError, match=f"side 5 or more.*found {count} nn.Conv3d of other kinds"):
                convert(nn.Sequential(other))

    def test_a_convolution_with_a_hook_stays(self) -> None:
        """The hook would be lost; older weight normalisation is one."""
        conv = depthwise()
        conv.register_forward_hook(lambda module, inputs, output: output * 2)
        assert depthwise_convolutions(nn.Sequential(conv)) == []

    @pytest.mark.parametrize(
        "wrong",
        [{"spatial_prior": "learnt"}, {"generator": "none"}, {"prior_scale": 0.0}, {"generator_kernel": 4}]
        + [{"generator_depth": 0}],
    )
    def test_impossible_settings_are_refused(self, wrong: dict[str, object]) -> None:
        with pytest.raises(ConfigError, match=f"got {next(iter(wrong.values()))!r}"):
            apply_lrbm(depthwise(), **wrong)  # type: ignore[arg-type]

    def test_the_smallest_kernel_is_a_setting(self) -> None:
        model = nn.Sequential(depthwise(side=3), depthwise(side=5), depthwise(side=7))
        assert [conv.weight.shape[-1] for conv in depthwise_convolutions(model)] == [5, 7]
        assert len(depthwise_convolutions(model, min_kernel_size=3)) == 3
        assert len(depthwise_convolutions(model, min_kernel_size=7)) == 1
