"""The theory of spatial re-parameterisation in numbers: two branches train as one kernel with a learning-rate field."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from rep3d.errors import ConfigError
from rep3d.nn.csla import CSLAConv3d, adamw_field, sgd_field

LARGE_RATE, SMALL_RATE = 0.02, 0.05
STEPS = 20

Update = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def layer() -> CSLAConv3d:
    return CSLAConv3d(2, 7, small_kernel_size=3, large_scale=0.7, small_scale=-1.3).double()


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return list(torch.randn(STEPS, 1, 2, 8, 8, 8, dtype=torch.float64))


def loss_of(y: torch.Tensor) -> torch.Tensor:
    """Not quadratic, so that the gradient depends on everything learned so far."""
    return (y - 1).tanh().square().mean() * 10


def train_branches(layer: CSLAConv3d, optimizer: torch.optim.Optimizer, batches: list[torch.Tensor]) -> torch.Tensor:
    for x in batches:
        optimizer.zero_grad()
        loss_of(layer(x)).backward()
        optimizer.step()
    return layer.effective_weight().detach()


def train_merged(weight: torch.Tensor, step: Update, batches: list[torch.Tensor]) -> torch.Tensor:
    """Train one kernel by ``weight += step(weight, gradient)``, on plain PyTorch convolutions."""
    for x in batches:
        weight = weight.detach().requires_grad_()
        loss_of(F.conv3d(x, weight, padding=3, groups=2)).backward()
        assert weight.grad is not None
        weight = (weight + step(weight, weight.grad)).detach()
    return weight


def sgd_step(field: torch.Tensor, momentum: float = 0.0, shrink: float = 0.0) -> Update:
    """SGD with a learning rate per tap; ``shrink`` is the share of the weight that decay takes in a step."""
    velocity = torch.zeros(())

    def step(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        nonlocal velocity
        velocity = momentum * velocity + field * gradient + shrink * weight
        return -velocity

    return step


def adamw_step(field: torch.Tensor, shrink: float, eps: float = 1e-8) -> Update:
    """AdamW (0.9, 0.999) with a learning rate per tap, written out."""
    first, second, count = torch.zeros(()), torch.zeros(()), 0

    def step(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        nonlocal first, second, count
        count += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        ratio = (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + eps)
        return -field * ratio - shrink * weight

    return step


def branch_groups(layer: CSLAConv3d, shrink: float) -> list[dict[str, object]]:
    """Both branches lose the same share of their weights in a step."""
    return [
        {"params": layer.large.parameters(), "lr": LARGE_RATE, "weight_decay": shrink / LARGE_RATE},
        {"params": layer.small.parameters(), "lr": SMALL_RATE, "weight_decay": shrink / SMALL_RATE},
    ]


def relative_difference(actual: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> float:
    """Of the way travelled, not of the weights: these hardly move."""
    return ((actual - expected).norm() / (expected - start).norm()).item()


class TestBlock:
    def test_merged_kernel_equals_the_sum_of_the_branches(self, layer: CSLAConv3d) -> None:
        x = torch.randn(2, 2, 9, 8, 7, dtype=torch.float64)
        large = F.conv3d(x, layer.large.weight, padding=3, groups=2)
        small = F.conv3d(x, layer.small.weight, padding=1, groups=2)
        assert torch.allclose(layer(x), 0.7 * large - 1.3 * small, atol=1e-12)
        assert torch.allclose(layer.deployed()(x), layer(x), atol=1e-12)

    @pytest.mark.parametrize(("large", "small"), [(6, 3), (7, 4), (3, 5)])
    def test_refuses_kernels_that_do_not_nest(self, large: int, small: int) -> None:
        with pytest.raises(ConfigError, match=f"kernel_size={large}, small_kernel_size={small}"):
            CSLAConv3d(2, large, small)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("shrink", [0.0, 0.01])
def test_sgd_on_two_branches_is_one_kernel_with_a_learning_rate_field(
    layer: CSLAConv3d, batches: list[torch.Tensor], momentum: float, shrink: float
) -> None:
    start = layer.effective_weight().detach()
    field = sgd_field(layer, LARGE_RATE, SMALL_RATE)
    branches = train_branches(layer, torch.optim.SGD(branch_groups(layer, shrink), momentum=momentum), batches)
    merged = train_merged(start, sgd_step(field, momentum, shrink), batches)
    assert (merged - start).abs().max() > 1e-3
    assert relative_difference(branches, merged, start) < 1e-12


def test_the_field_matters(layer: CSLAConv3d, batches: list[torch.Tensor]) -> None:
    start = layer.effective_weight().detach()
    uniform = torch.tensor(LARGE_RATE * layer.large_scale**2)
    branches = train_branches(layer, torch.optim.SGD(branch_groups(layer, shrink=0.0)), batches)
    assert relative_difference(train_merged(start, sgd_step(uniform), batches), branches, start) > 0.1


def test_sgd_decay_of_different_strength_has_no_merged_form(layer: CSLAConv3d, batches: list[torch.Tensor]) -> None:
    """The condition on the decays is needed: with one decay for both branches the merged kernel is not enough."""
    start = layer.effective_weight().detach()
    groups = branch_groups(layer, shrink=0.01)
    groups[1]["weight_decay"] = groups[0]["weight_decay"]
    branches = train_branches(layer, torch.optim.SGD(groups), batches)
    merged = train_merged(start, sgd_step(sgd_field(layer, LARGE_RATE, SMALL_RATE), shrink=0.01), batches)
    assert relative_difference(branches, merged, start) > 0.01


@pytest.mark.parametrize("steps", [1, STEPS])
@pytest.mark.parametrize("shrink", [0.0, 0.001])
def test_adamw_on_two_branches_is_one_kernel_with_a_learning_rate_field_up_to_eps(
    layer: CSLAConv3d, batches: list[torch.Tensor], steps: int, shrink: float
) -> None:
    """A constant scale drops out of the ratio of moments in every step; what is left comes from eps alone."""
    start = layer.effective_weight().detach()
    field = adamw_field(layer, LARGE_RATE, SMALL_RATE)
    drift = {}
    for eps in (1e-8, 1e-16):
        trained = CSLAConv3d(2, 7, 3, large_scale=0.7, small_scale=-1.3).double()
        trained.load_state_dict(layer.state_dict())
        optimizer = torch.optim.AdamW(branch_groups(trained, shrink), eps=eps)
        branches = train_branches(trained, optimizer, batches[:steps])
        merged = train_merged(start, adamw_step(field, shrink, eps), batches[:steps])
        drift[eps] = relative_difference(branches, merged, start)
    assert drift[1e-8] < 1e-3
    assert drift[1e-16] < 1e-9


def test_reading_adamw_as_sgd_gives_the_wrong_field(layer: CSLAConv3d, batches: list[torch.Tensor]) -> None:
    start = layer.effective_weight().detach()
    branches = train_branches(layer, torch.optim.AdamW(branch_groups(layer, shrink=0.0)), batches[:1])
    merged = train_merged(start, adamw_step(sgd_field(layer, LARGE_RATE, SMALL_RATE), shrink=0.0), batches[:1])
    assert relative_difference(merged, branches, start) > 0.1
