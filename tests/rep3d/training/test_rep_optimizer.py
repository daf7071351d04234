"""The theory in numbers: a plain kernel with scaled steps trains as the kernel under the fixed prior does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.rep3d import Rep3D
from rep3d.training.rep_optimizer import prior_fields, scale_steps

STEPS = 20

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def masked() -> LRBMConv3d:
    return LRBMConv3d(2, 7, spatial_prior="fixed").double()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return list(torch.randn(STEPS, 1, 2, 8, 8, 8, dtype=torch.float64))


def plain_copy(masked: LRBMConv3d) -> DepthwiseConv3d:
    """Return the same function, on a kernel without a mask."""
    return DepthwiseConv3d.from_weight(masked.effective_weight().detach(), None)


def kernels_while_training(
    layer: DepthwiseConv3d | LRBMConv3d, optimizer: torch.optim.Optimizer, batches: list[torch.Tensor]
) -> torch.Tensor:
    """Return the kernel that the layer uses after each step, shape (steps, C, 1, K, K, K)."""
    kernels = []
    for x in batches:
        optimizer.zero_grad()
        ((layer(x) - 1).tanh().square().mean() * 10).backward()
        optimizer.step()
        kernels.append(layer.effective_weight().detach().clone())
    return torch.stack(kernels)


def drift(actual: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> float:
    """Largest difference on the way, as a share of the way travelled."""
    travelled = (expected[-1] - start).norm()
    return ((actual - expected).flatten(1).norm(dim=1).max() / travelled).item()


def exact_prior(layer: DepthwiseConv3d, masked: LRBMConv3d, exponent: int) -> dict[torch.Tensor, torch.Tensor]:
    """Return the prior as the mask holds it: a float32 network turned into float64 has it rounded."""
    assert masked.prior is not None
    return {layer.weight: masked.prior.pow(exponent)}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_with_gradients_scaled_by_the_square_is_the_fixed_mask(
    masked: LRBMConv3d, batches: list[torch.Tensor], momentum: float, weight_decay: float
) -> None:
    plain, start = plain_copy(masked), masked.effective_weight().detach()
    sgd = {"lr": 0.05, "momentum": momentum, "weight_decay": weight_decay}
    scaled = scale_steps(torch.optim.SGD(plain.parameters(), **sgd), exact_prior(plain, masked, 2))
    actual = kernels_while_training(plain, scaled, batches)
    expected = kernels_while_training(masked, torch.optim.SGD(masked.parameters(), **sgd), batches)
    assert (expected[-1] - start).abs().max() > 1e-3
    assert drift(actual, expected, start) < 1e-12


def test_sgd_with_another_field_is_not(masked: LRBMConv3d, batches: list[torch.Tensor]) -> None:
    plain, start = plain_copy(masked), masked.effective_weight().detach()
    scaled = scale_steps(torch.optim.SGD(plain.parameters(), lr=0.05), exact_prior(plain, masked, 1))
    actual = kernels_while_training(plain, scaled, batches)
    expected = kernels_while_training(masked, torch.optim.SGD(masked.parameters(), lr=0.05), batches)
    assert drift(actual, expected, start) > 0.1


def test_scaling_gradients_does_nothing_to_adamw(masked: LRBMConv3d, batches: list[torch.Tensor]) -> None:
    """A constant factor drops out of the ratio of moments; eps is all that remembers it."""
    start = masked.effective_weight().detach()
    for eps, most in ((1e-8, 1e-3), (1e-16, 1e-10)):
        plain, other = plain_copy(masked), plain_copy(masked)
        scaled = scale_steps(torch.optim.AdamW(plain.parameters(), eps=eps), exact_prior(plain, masked, 2))
        actual = kernels_while_training(plain, scaled, batches)
        untouched = kernels_while_training(other, torch.optim.AdamW(other.parameters(), eps=eps), batches)
        assert drift(actual, untouched, start) < most


def test_adamw_with_updates_scaled_by_the_mask_is_the_fixed_mask_up_to_eps(
    masked: LRBMConv3d, batches: list[torch.Tensor]
) -> None:
    start = masked.effective_weight().detach()
    for eps, most in ((1e-8, 1e-4), (1e-16, 1e-11)):
        layer, plain = copy.deepcopy(masked), plain_copy(masked)
        adamw = {"eps": eps, "weight_decay": 0.0}
        fields = exact_prior(plain, masked, 1)
        scaled = scale_steps(torch.optim.AdamW(plain.parameters(), **adamw), fields, scale="update")
        actual = kernels_while_training(plain, scaled, batches)
        expected = kernels_while_training(layer, torch.optim.AdamW(layer.parameters(), **adamw), batches)
        assert drift(actual, expected, start) < most


def test_a_scaled_update_decays_by_the_share_of_the_field() -> None:
    parameter = nn.Parameter(torch.ones(2, dtype=torch.float64))
    field = torch.tensor([1.0, 0.25], dtype=torch.float64)
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
    scale_steps(optimizer, {parameter: field}, scale="update")
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(parameter.detach(), 1 - 0.1 * 0.5 * field)


class TestOptimizer:
    """It stays a PyTorch optimizer."""

    @pytest.fixture
    def parameter(self) -> nn.Parameter:
        return nn.Parameter(torch.ones(3, dtype=torch.float64))

    @pytest.fixture
    def field(self) -> torch.Tensor:
        return torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)

    @pytest.mark.parametrize("scale", ["gradient", "update"])
    def test_steps_with_and_without_a_closure_are_the_same(
        self, parameter: nn.Parameter, field: torch.Tensor, scale: str
    ) -> None:
        optimizer = scale_steps(torch.optim.SGD([parameter], lr=0.1, momentum=0.9), {parameter: field}, scale)
        other = nn.Parameter(parameter.detach().clone())
        plain = scale_steps(torch.optim.SGD([other], lr=0.1, momentum=0.9), {other: field}, scale)

        def loss_of(p: nn.Parameter, o: torch.optim.Optimizer) -> torch.Tensor:
            o.zero_grad()
            loss = p.pow(3).sum()
            loss.backward()
            return loss

        for _ in range(3):
            loss = optimizer.step(lambda: loss_of(parameter, optimizer))  # type: ignore[arg-type, return-value]
            assert loss == loss_of(other, plain)
            plain.step()
        assert torch.equal(parameter, other)
        assert parameter[2] == 1 and parameter[1] != 1

    def test_gradients_are_put_back(self, parameter: nn.Parameter, field: torch.Tensor) -> None:
        """Else a second step on the same gradients, or a norm that is logged, would see the field twice."""
        optimizer = scale_steps(torch.optim.SGD([parameter], lr=0.1), {parameter: field})
        parameter.sum().backward()
        for _ in range(2):
            optimizer.step()
            assert parameter.grad is not None and torch.equal(parameter.grad, torch.ones_like(parameter))
        assert torch.allclose(parameter, 1 - 0.2 * field)

    def test_parameters_without_gradient_are_passed_over(self, parameter: nn.Parameter, field: torch.Tensor) -> None:
        for scale in ("gradient", "update"):
            scale_steps(torch.optim.SGD([parameter], lr=0.1), {parameter: field}, scale).step()
        assert torch.equal(parameter, torch.ones_like(parameter))

    def test_schedulers_and_state_dicts_work(self, parameter: nn.Parameter, field: torch.Tensor) -> None:
        optimizer = scale_steps(torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.0), {parameter: field}, "update")
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
        parameter.sum().backward()
        optimizer.step()
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
        resumed_parameter = nn.Parameter(parameter.detach().clone())
        resumed = scale_steps(torch.optim.AdamW([resumed_parameter]), {resumed_parameter: field}, "update")
        resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        resumed_parameter.sum().backward()
        optimizer.step()
        resumed.step()
        assert torch.equal(parameter, resumed_parameter)
        assert torch.allclose(parameter, 1 - 0.11 * field, rtol=1e-6)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (torch.ones(4), r"broadcast to shape \(3,\), got \(4,\)"),
            (torch.ones(2, 3), r"broadcast to shape \(3,\), got \(2, 3\)"),
            (torch.tensor([1.0, float("nan"), 1.0]), "finite"),
        ],
    )
    def test_refuses_fields_that_do_not_fit(self, parameter: nn.Parameter, wrong: torch.Tensor, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            scale_steps(torch.optim.SGD([parameter]), {parameter: wrong})

    def test_refuses_what_it_cannot_scale(self, parameter: nn.Parameter, field: torch.Tensor) -> None:
        optimizer = torch.optim.SGD([parameter])
        with pytest.raises(ConfigError, match="that the optimizer trains"):
            scale_steps(optimizer, {nn.Parameter(torch.ones(3)): field})
        with pytest.raises(ConfigError, match="'momentum'"):
            scale_steps(optimizer, {parameter: field}, scale="momentum")
        with pytest.raises(ConfigError, match="got none"):
            scale_steps(optimizer, {})


class TestPriorFields:
    def test_each_large_kernel_of_a_plain_network_gets_the_prior(self) -> None:
        network = Rep3D(Rep3DConfig(dims=(4, 6, 8, 10), hidden_size=12, kernel_size=5, spatial_prior="none"))
        fields = prior_fields(network, power=2)
        names = {name for name, parameter in network.named_parameters() if parameter in fields}
        assert names == {f"rep3d.stages.{i}.{j}.dwconv.weight" for i in range(4) for j in range(2)}
        field = next(iter(fields.values()))
        assert field.shape == (1, 1, 5, 5, 5)
        assert field[0, 0, 2, 2, 2] == 1 and field[0, 0, 2, 2, 3] == 0.25

    def test_convolutions_of_other_networks_are_found(self) -> None:
        model = nn.Sequential(nn.Conv3d(2, 2, 7, padding=3, groups=2), nn.Conv3d(2, 2, 3, padding=1, groups=2))
        assert list(prior_fields(model, power=1)) == [model[0].weight]

    @pytest.mark.parametrize("spatial_prior", ["learned", "fixed"])
    def test_masked_kernels_have_their_field_already(self, spatial_prior: str) -> None:
        with pytest.raises(ConfigError, match="found none"):
            prior_fields(LRBMConv3d(2, 7, spatial_prior=spatial_prior), power=2)
