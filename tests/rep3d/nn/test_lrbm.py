"""LRBM: the prior's values, its start at the fixed prior, what learns and when, and that forward changes nothing."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import distributed, nn

from rep3d.errors import ConfigError
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d, MaskGenerator, distance_prior
from rep3d.training.worker import leave_group

VARIANTS = [("learned", "shared"), ("learned", "depthwise"), ("fixed", "shared"), ("none", "shared")]
LEARNED = VARIANTS[:2]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def conv(spatial_prior: str = "learned", generator: str = "shared", depth: int = 2, bias: bool = False) -> LRBMConv3d:
    return LRBMConv3d(
        3,
        5,
        spatial_prior=spatial_prior,
        generator=generator,
        prior_scale=2.0,
        generator_kernel=3,
        generator_depth=depth,
        bias=bias,
    )


def train_one_step(layer: torch.nn.Module, x: torch.Tensor) -> None:
    layer.zero_grad()
    (layer(x) * torch.linspace(-1, 1, x.numel()).view_as(x)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1e-2).step()


class TestPrior:
    def test_values(self) -> None:
        prior = distance_prior(5, scale=2.0)
        assert prior.shape == (5, 5, 5) and prior.dtype == torch.float64
        assert prior[2, 2, 2] == 1
        assert prior[2, 2, 4] == 0.5
        assert prior[0, 0, 0].item() == pytest.approx(2 / (math.sqrt(12) + 2))

    def test_is_the_same_along_each_axis(self) -> None:
        prior = distance_prior(7)
        for axis in range(3):
            assert torch.equal(prior, prior.flip(axis))
            assert torch.equal(prior, prior.transpose(axis, (axis + 1) % 3))

    def test_exponent_acts_on_the_distance(self) -> None:
        """With scale 1 this is the prior of the published code."""
        prior = distance_prior(5, exponent=3.0)
        assert prior[2, 2, 2] == 1
        assert prior[2, 2, 4] == pytest.approx(1 / (1 + 2**3))
        assert prior[1, 1, 2] == pytest.approx(1 / (1 + 2**1.5))
        assert torch.equal(distance_prior(5, exponent=1.0), distance_prior(5))

    def test_even_kernels_have_no_centre(self) -> None:
        with pytest.raises(ConfigError, match="odd kernel size .*got 4"):
            distance_prior(4)

    @pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
    def test_impossible_scales_are_refused(self, scale: float) -> None:
        with pytest.raises(ConfigError, match=f"positive finite scale.*got {scale}"):
            distance_prior(5, scale)


class TestStart:
    @pytest.mark.parametrize(("spatial_prior", "generator"), LEARNED)
    @pytest.mark.parametrize("depth", [1, 2, 3])
    def test_starts_at_exactly_the_fixed_prior(self, spatial_prior: str, generator: str, depth: int) -> None:
        mask = conv(spatial_prior, generator, depth).mask()
        assert mask is not None and mask.shape == (3 if generator == "depthwise" else 1, 1, 5, 5, 5)
        assert torch.equal(mask, distance_prior(5, 2.0).float().expand_as(mask))

    def test_without_prior_the_kernel_is_used_as_it_is(self) -> None:
        layer = conv("none")
        assert layer.mask() is None
        assert layer.effective_weight() is layer.weight
        assert [name for name, _ in layer.named_parameters()] == ["weight"]

    @pytest.mark.parametrize("spatial_prior", ["learned", "fixed", "none"])
    def test_unit_noise_in_unit_noise_out(self, spatial_prior: str) -> None:
        layer = LRBMConv3d(64, 9, spatial_prior=spatial_prior, generator_kernel=3)
        with torch.no_grad():
            inner = layer(torch.randn(1, 64, 12, 12, 12))[..., 4:-4, 4:-4, 4:-4]
        assert inner.std().item() == pytest.approx(1, abs=0.1)


class TestLearning:
    @pytest.mark.parametrize(("spatial_prior", "generator"), LEARNED)
    def test_kernel_and_last_norm_learn_at_once_and_all_of_theta_from_the_second_step(
        self, spatial_prior: str, generator: str
    ) -> None:
        layer, x = conv(spatial_prior, generator), torch.randn(2, 3, 6, 6, 6)
        train_one_step(layer, x)
        learning = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.count_nonzero() > 0}
        assert learning == {"weight", "generator.norms.1.weight", "generator.norms.1.bias"}
        train_one_step(layer, x)
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-6, name

    def test_a_step_moves_the_effective_kernel_by_the_square_of_the_mask(self) -> None:
        layer, x = conv("fixed"), torch.randn(1, 3, 6, 6, 6)
        before = layer.effective_weight().detach().clone()
        plain = before.clone().requires_grad_()
        F.conv3d(x, plain, padding=2, groups=3).square().mean().backward()
        layer(x).square().mean().backward()
        torch.optim.SGD(layer.parameters(), lr=0.1).step()
        mask = layer.mask()
        assert mask is not None and plain.grad is not None
        expected = -0.1 * mask.square() * plain.grad
        assert torch.allclose(layer.effective_weight() - before, expected, rtol=1e-3, atol=1e-7)

    def test_depthwise_generator_gives_each_channel_its_own_mask(self) -> None:
        layer, x = conv("learned", "depthwise"), torch.randn(2, 3, 6, 6, 6)
        for _ in range(2):
            train_one_step(layer, x)
        mask = layer.mask()
        assert mask is not None
        assert (mask[0] - mask[1]).abs().max() > 1e-4

    def test_generator_correction_is_normalised_over_the_taps(self) -> None:
        generator = MaskGenerator(2, 5, generator_kernel=3)
        torch.nn.init.ones_(generator.norms[-1].weight)  # type: ignore[arg-type]
        correction = generator(distance_prior(5).float().expand(1, 2, 5, 5, 5))
        assert correction.mean((2, 3, 4)).abs().max() < 1e-5
        assert torch.allclose(correction.var((2, 3, 4), correction=0), torch.ones(1, 2), atol=1e-2)


@pytest.mark.parametrize(("spatial_prior", "generator"), VARIANTS)
class TestState:
    """The published code assigns parameters in forward: its kernels shrink at every call and are never trained."""

    def test_forward_is_a_convolution_with_the_effective_kernel(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator, bias=True), torch.randn(2, 3, 6, 7, 5)
        for _ in range(2):
            train_one_step(layer, x)
        expected = F.conv3d(x, layer.effective_weight(), layer.bias, padding=2, groups=3)
        assert torch.allclose(layer(x), expected, atol=1e-5)

    @pytest.mark.parametrize("training", [True, False])
    def test_forward_changes_no_state(self, spatial_prior: str, generator: str, training: bool) -> None:
        layer, x = conv(spatial_prior, generator).train(training), torch.randn(1, 3, 6, 6, 6)
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        tensors = [id(value) for value in (*layer.parameters(), *layer.buffers())]
        first, second = layer(x), layer(x)
        assert torch.equal(first, second)
        assert tensors == [id(value) for value in (*layer.parameters(), *layer.buffers())]
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())

    def test_copies_and_state_dicts_carry_everything(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator), torch.randn(1, 3, 6, 6, 6)
        for _ in range(2):
            train_one_step(layer, x)
        other = conv(spatial_prior, generator)
        other.load_state_dict(layer.state_dict())
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
        assert torch.equal(other(x), layer(x))

    def test_deployed_form_equals_it_and_shares_nothing(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator, bias=True).double(), torch.randn(1, 3, 6, 6, 6).double()
        train_one_step(layer, x)
        expected = layer(x)
        deployed = layer.deployed()
        assert isinstance(deployed, DepthwiseConv3d)
        assert torch.allclose(deployed(x), expected, rtol=1e-12, atol=1e-12)
        train_one_step(layer, x)
        assert torch.allclose(deployed(x), expected, rtol=1e-12, atol=1e-12)

    def test_autocast_keeps_the_mask_in_float32(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator), torch.randn(1, 3, 6, 6, 6)
        for _ in range(2):
            train_one_step(layer, x)
        expected = layer.effective_weight()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(layer.effective_weight(), expected)
            assert layer(x).dtype == torch.bfloat16

    def test_saved_weights_load_without_running_code(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator, bias=True), torch.randn(1, 3, 6, 6, 6)
        for _ in range(2):
            train_one_step(layer, x)
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        other = conv(spatial_prior, generator, bias=True)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(x), layer(x))

    def test_a_copy_is_trained_on_its_own(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator), torch.randn(1, 3, 6, 6, 6)
        expected = layer(x)
        twin = copy.deepcopy(layer)
        train_one_step(twin, x)
        assert torch.equal(layer(x), expected)
        assert not torch.equal(twin(x), expected)

    def test_memory_formats_change_nothing(self, spatial_prior: str, generator: str) -> None:
        layer, x = conv(spatial_prior, generator, bias=True).double(), torch.randn(2, 3, 6, 7, 5).double()
        train_one_step(layer, x)
        last = copy.deepcopy(layer).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        assert last.weight.is_contiguous(memory_format=torch.channels_last_3d)
        gradients = []
        for module, maps in ((layer, x), (layer, x.contiguous(memory_format=torch.channels_last_3d)), (last, x)):
            module.zero_grad()
            y = module(maps)
            (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
            assert torch.allclose(y, layer(x), rtol=1e-12)
            gradients.append([parameter.grad for parameter in module.parameters()])
        for other in gradients[1:]:
            assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(gradients[0], other, strict=True))


class TestFromWeight:
    """A layer that starts as a given convolution."""

    @pytest.mark.parametrize(("spatial_prior", "generator"), VARIANTS)
    def test_starts_as_the_convolution_and_copies_it(self, spatial_prior: str, generator: str) -> None:
        weight, bias = torch.randn(3, 1, 5, 5, 5, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
        layer = LRBMConv3d.from_weight(
            weight,
            bias,
            spatial_prior=spatial_prior,
            generator=generator,
            prior_scale=2.0,
            prior_exponent=1.5,
            generator_kernel=3,
        )
        assert torch.allclose(layer.effective_weight(), weight, rtol=1e-14)
        assert layer.bias is not None and torch.equal(layer.bias, bias)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
        nn.init.zeros_(layer.weight)
        assert weight.abs().min() > 0

    @pytest.mark.parametrize("shape", [(3, 1, 5, 5), (3, 3, 5, 5, 5), (3, 1, 5, 5, 7), (3, 1, 4, 4, 4)])
    @pytest.mark.parametrize("layer", [LRBMConv3d, DepthwiseConv3d])
    def test_refuses_other_kernels(self, layer: Any, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError, match=r"shape \(C, 1, K, K, K\), got \(3, |odd kernel size .*got 4"):
            layer.from_weight(torch.zeros(shape), None)


def train_in_parallel(rank: int, world: int, meeting_point: str, x: torch.Tensor, results: str) -> None:
    """One of the processes below: a step's gradients on its share of the batch."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=world)
    torch.manual_seed(rank)  # the wrapper hands the weights of rank 0 to all
    model = nn.parallel.DistributedDataParallel(conv().double())
    for _ in range(2):
        model.zero_grad()
        model(x[rank::world]).square().mean().backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    torch.save({name: parameter.grad for name, parameter in model.module.named_parameters()}, f"{results}.{rank}")
    leave_group()


def test_two_processes_train_as_one_on_the_whole_batch(tmp_path: Path) -> None:
    """DistributedDataParallel averages the gradients of kernel and mask; the mask is no buffer to be left behind."""
    x, results = torch.randn(2, 3, 6, 6, 6, dtype=torch.float64), str(tmp_path / "gradients")
    arguments = (2, str(tmp_path / "meeting_point"), x, results)
    torch.multiprocessing.spawn(train_in_parallel, arguments, nprocs=2)
    torch.manual_seed(0)
    layer = conv().double()
    for _ in range(2):
        layer.zero_grad()
        layer(x).square().mean().backward()
        torch.optim.SGD(layer.parameters(), lr=0.1).step()
    for rank in range(2):
        gradients = torch.load(f"{results}.{rank}", weights_only=True)
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
            assert torch.allclose(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("spatial_prior", "learnt"),
        ("generator", "none"),
        ("kernel_size", 4),
        ("generator_kernel", 6),
        ("generator_depth", 0),
        ("prior_scale", -1.0),
    ],
)
def test_refuses_impossible_settings(setting: str, value: object) -> None:
    arguments: dict[str, Any] = {"channels": 2, "kernel_size": 5, setting: value}
    with pytest.raises(ConfigError, match=f"got .*{value}"):
        LRBMConv3d(**arguments)


@pytest.mark.parametrize("shape", [(3, 6, 6, 6), (1, 2, 6, 6, 6)])
def test_refuses_maps_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=rf"maps of shape.*{shape[0]}, {shape[1]}, 6"):
        conv()(torch.zeros(shape))
