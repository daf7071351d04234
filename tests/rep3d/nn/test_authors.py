"""The authors' weights: a network built as theirs is, and the logits that ours must give with its state dict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rep3d.errors import CheckpointError, ConfigError
from rep3d.nn.authors import load_authors_state_dict
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.fold import reparameterize
from rep3d.nn.lrbm import distance_prior
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.unetr import StagedEncoder, UnetrSegmenter

DIMS, KERNEL_SIZE = (4, 6, 8, 10), 5
FIRST = "rep3d.stages.0.0."

State = dict[str, torch.Tensor]


class ChannelNorm(nn.Module):
    """A weight and a bias by the names that their own LayerNorm has."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class AuthorsBlock(nn.Module):
    """Their block by name and by arithmetic, except that forward assigns nothing and pads the second generator right.

    Args:
        channels: Number of channels.
        bias: Whether the large kernel has a bias (theirs has none).
        masked: Whether forward multiplies the mask in; without, the kernel is used as it is, as by their ``deploy``.
    """

    def __init__(self, channels: int, bias: bool, masked: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(channels, channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2, groups=channels, bias=bias)
        self.norm = nn.BatchNorm3d(channels)
        prior = distance_prior(KERNEL_SIZE).float()
        self.register_buffer("prior_map", prior.expand(channels, 1, -1, -1, -1).clone())
        self.prior_conv = nn.Conv3d(1, 1, kernel_size=7, padding=3)
        self.norm_w = ChannelNorm(1)
        self.prior_conv2 = nn.Conv3d(1, 1, kernel_size=7, padding=3)
        self.norm_w2 = ChannelNorm(1)
        self.masked = masked

    def mask(self) -> torch.Tensor:
        def over_channels(x: torch.Tensor, norm: ChannelNorm) -> torch.Tensor:
            return nn.functional.layer_norm(x.movedim(1, -1), (1,), norm.weight, norm.bias).movedim(-1, 1)

        assert isinstance(self.prior_map, torch.Tensor)
        hidden = over_channels(self.prior_conv(self.prior_map), self.norm_w).sigmoid()
        return self.prior_map + over_channels(self.prior_conv2(hidden), self.norm_w2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.dwconv.weight * self.mask() if self.masked else self.dwconv.weight
        y = nn.functional.conv3d(x, weight, self.dwconv.bias, padding=KERNEL_SIZE // 2, groups=x.shape[1])
        return nn.functional.gelu(self.norm(y))


def authors_network(bias: bool = False, masked: bool = False) -> UnetrSegmenter:
    """Return their network with statistics and weights away from their start, in eval mode."""
    torch.manual_seed(0)
    encoder = StagedEncoder(2, DIMS, (1, 2, 1, 1), lambda channels: AuthorsBlock(channels, bias, masked))
    network = UnetrSegmenter("rep3d", encoder, 2, 3, DIMS, 12)
    for parameter in network.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.2)
    for _ in range(3):
        network(torch.randn(1, 2, 32, 16, 16))
    return network.eval()


def logits(network: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return network(torch.randn(1, 2, 32, 16, 16))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_logits_are_those_of_the_authors_network(bias: bool, masked: bool) -> None:
    reference = authors_network(bias, masked)
    loaded = load_authors_state_dict(reference.state_dict(), prior="fold" if masked else "in_weights")
    assert isinstance(loaded, Rep3D) and not loaded.training
    assert loaded.config == Rep3DConfig(
        in_channels=2,
        out_channels=3,
        dims=DIMS,
        depths=(1, 2, 1, 1),
        hidden_size=12,
        kernel_size=KERNEL_SIZE,
        spatial_prior="none",
    )
    assert relative_error(logits(loaded), logits(reference)) < 1e-5
    assert relative_error(logits(reparameterize(loaded)), logits(reference)) < 1e-5
    other = load_authors_state_dict(reference.state_dict(), prior="in_weights" if masked else "fold")
    assert relative_error(logits(other), logits(reference)) > 1e-3, "the choice changed nothing"


def test_the_default_takes_the_kernels_as_they_are() -> None:
    reference = authors_network()
    loaded = load_authors_state_dict(reference.state_dict())
    kernel = loaded.state_dict()[f"{FIRST}dwconv.weight"]
    assert torch.equal(kernel, reference.state_dict()[f"{FIRST}dwconv.weight"])


@pytest.mark.parametrize("prior", ["in_weights", "fold"])
def test_states_without_mask_or_step_counters_are_accepted(prior: str) -> None:
    """As saved by code whose prior is fixed and no buffer, or by an old version of PyTorch."""
    state = authors_network().state_dict()
    plain = {name: value for name, value in state.items() if "prior" not in name and "norm_w" not in name}
    plain = {name: value for name, value in plain.items() if "num_batches_tracked" not in name}
    loaded = load_authors_state_dict(plain, prior=prior)
    kernel = state[f"{FIRST}dwconv.weight"]
    expected = kernel * distance_prior(KERNEL_SIZE).float() if prior == "fold" else kernel
    assert torch.allclose(loaded.state_dict()[f"{FIRST}dwconv.weight"], expected)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(wrapper: str | None, prefix: str) -> None:
    reference = authors_network()
    state: dict[str, Any] = {prefix + name: value for name, value in reference.state_dict().items()}
    loaded = load_authors_state_dict(state if wrapper is None else {wrapper: state, "epoch": 3})
    assert relative_error(logits(loaded), logits(reference)) < 1e-5


class TestRefusal:
    @pytest.fixture
    def state(self) -> State:
        return dict(authors_network().state_dict())

    def test_of_missing_tensors(self, state: State) -> None:
        del state[f"{FIRST}norm.weight"]
        with pytest.raises(CheckpointError, match=rf"missing: \['{FIRST}norm.weight'\] \(1\), unknown: \[\]"):
            load_authors_state_dict(state)

    def test_of_unknown_tensors(self, state: State) -> None:
        state[f"{FIRST}gamma"] = torch.ones(4)
        with pytest.raises(CheckpointError, match=rf"unknown: \['{FIRST}gamma'\]"):
            load_authors_state_dict(state)

    def test_of_shapes_that_do_not_fit(self, state: State) -> None:
        state["encoder2.layer.conv1.conv.weight"] = torch.zeros(6, 5, 3, 3, 3)
        with pytest.raises(CheckpointError, match=r"expected \(6, 4, 3, 3, 3\), got \(6, 5, 3, 3, 3\)"):
            load_authors_state_dict(state)

    def test_of_values_that_are_not_finite(self, state: State) -> None:
        state["out.conv.conv.bias"] = torch.full((3,), float("nan"))
        with pytest.raises(CheckpointError, match="NaN or infinity in .'out.conv.conv.bias'"):
            load_authors_state_dict(state)

    def test_of_other_networks(self) -> None:
        with pytest.raises(CheckpointError, match="REP3D network.*got 2 others, such as .'bias', 'weight'"):
            load_authors_state_dict(nn.Linear(2, 2).state_dict())

    @pytest.mark.parametrize("other", [{}, {"epoch": 3}, {"optimizer": {"lr": 1}}, [1], nn.Linear(2, 2)])
    def test_of_what_is_no_state_dict(self, other: Any) -> None:
        with pytest.raises(CheckpointError, match="expected"):
            load_authors_state_dict(other)

    def test_of_a_bias_that_does_not_fit(self, state: State) -> None:
        state[f"{FIRST}dwconv.bias"] = torch.zeros(5)
        with pytest.raises(CheckpointError, match=rf"unknown: \['{FIRST}dwconv.bias'\]"):
            load_authors_state_dict(state)

    def test_of_an_unknown_reading(self, state: State) -> None:
        with pytest.raises(ConfigError, match="'in_weights', 'fold'.*'both'"):
            load_authors_state_dict(state, prior="both")

    def test_of_a_generator_that_learned_more_than_a_number(self, state: State) -> None:
        """Corrected code would normalise over the taps; only that code knows the mask."""
        state[f"{FIRST}norm_w2.bias"] = torch.zeros(KERNEL_SIZE, KERNEL_SIZE, KERNEL_SIZE)
        with pytest.raises(CheckpointError, match="published mask generator.*got shapes"):
            load_authors_state_dict(state, prior="fold")
        del state[f"{FIRST}norm_w2.bias"]
        with pytest.raises(CheckpointError, match="published mask generator"):
            load_authors_state_dict(state, prior="fold")
        load_authors_state_dict(state, prior="in_weights")
