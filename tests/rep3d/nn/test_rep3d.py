"""The whole network: sizes, parameter counts, names, refused inputs, and that it trains."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rep3d.errors import ConfigError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.unetr import ChannelLayerNorm
from rep3d.nn.zoo import preset_config

SMALL = Rep3DConfig(in_channels=2, out_channels=3, dims=(4, 6, 8, 10), hidden_size=12, kernel_size=5)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def network() -> Rep3D:
    return Rep3D(SMALL)


def count(config: Rep3DConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Rep3D(config).parameters())


class TestSize:
    """Against the counts that the paper gives for AMOS: 66.0 million, 65.8 million with the fixed prior."""

    def test_base_has_the_parameters_of_the_paper(self) -> None:
        learned = preset_config("base", in_channels=1, out_channels=16)
        fixed = Rep3DConfig(out_channels=16, spatial_prior="fixed")
        assert count(learned) == pytest.approx(66.0e6, rel=0.01)
        assert count(fixed) == pytest.approx(65.8e6, rel=0.001)

    def test_tiny_is_small(self) -> None:
        assert count(preset_config("tiny", in_channels=1, out_channels=16)) <= 12e6


class TestForward:
    @pytest.mark.parametrize("shape", [(32, 32, 32), (16, 32, 48)])
    def test_logits_have_the_size_of_the_image(self, network: Rep3D, shape: tuple[int, ...]) -> None:
        assert network(torch.randn(1, 2, *shape)).shape == (1, 3, *shape)

    def test_stages_halve_the_resolution(self, network: Rep3D) -> None:
        outputs = network.encode(torch.randn(2, 2, 32, 16, 48))
        assert [tuple(output.shape) for output in outputs] == [
            (2, 4, 16, 8, 24),
            (2, 6, 8, 4, 12),
            (2, 8, 4, 2, 6),
            (2, 10, 2, 1, 3),
        ]

    def test_evaluation_is_repeatable_and_changes_nothing(self, network: Rep3D) -> None:
        network.eval()
        x = torch.randn(1, 2, 32, 16, 16)
        before = copy.deepcopy(network.state_dict())
        with torch.inference_mode():
            assert torch.equal(network(x), network(x))
        assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())

    def test_runs_under_autocast(self, network: Rep3D) -> None:
        x = torch.randn(1, 2, 32, 32, 32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            network(x).float().square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((2, 32, 32, 32), r"shape \(B, 2, D, H, W\), got \(2, 32, 32, 32\)"),
            ((1, 1, 32, 32, 32), r"shape \(B, 2, D, H, W\), got \(1, 1, 32, 32, 32\)"),
            ((1, 2, 32, 30, 32), r"multiples of 16.*got \(32, 30, 32\)"),
            ((1, 2, 32, 32, 8), r"multiples of 16.*got \(32, 32, 8\)"),
            ((1, 2, 32, 0, 32), "multiples of 16"),
            ((1, 2, 16, 16, 16), "at least one of them 32"),
        ],
    )
    def test_refuses_images_it_cannot_segment(self, network: Rep3D, shape: tuple[int, ...], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            network(torch.zeros(shape))
        with pytest.raises(ConfigError, match=message):
            network.encode(torch.zeros(shape))


@pytest.mark.parametrize("spatial_prior", ["learned", "fixed", "none"])
def test_overfits_one_image(spatial_prior: str) -> None:
    network = Rep3D(Rep3DConfig(dims=(4, 6, 8, 10), hidden_size=12, kernel_size=5, spatial_prior=spatial_prior))
    x = torch.randn(1, 1, 32, 16, 16)
    target = (F.avg_pool3d(x, 5, stride=1, padding=2)[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = F.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_every_parameter_learns(network: Rep3D) -> None:
    x = torch.randn(1, 2, 32, 32, 32)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(2):  # the mask generators' first layers learn from the second step on
        optimizer.zero_grad()
        (network(x) * torch.linspace(-1, 1, x[:, :1].numel()).view(1, 1, 32, 32, 32)).sum().backward()
        optimizer.step()
    still = [name for name, parameter in network.named_parameters() if not (parameter.grad.abs().max() > 0)]  # type: ignore[union-attr]
    assert still == []


def test_a_decoder_that_ends_at_half_resolution_interpolates_its_logits() -> None:
    half, x = Rep3D(replace(SMALL, decoder="half")), torch.randn(1, 2, 32, 48, 16)
    seen: list[torch.Tensor] = []
    half.out.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = half.train()(x)
    assert seen[0].shape == (1, 3, 16, 24, 8)
    assert torch.equal(logits, F.interpolate(seen[0], x.shape[2:], mode="trilinear", align_corners=False))
    full = Rep3D(SMALL).state_dict()
    left_out = {name for name in full if name.startswith(("encoder1.", "decoder1.", "decoder2."))}
    assert set(half.state_dict()) == set(full) - left_out
    assert preset_config("quick", 1, 4).decoder == "half" and preset_config("rep3d:tiny", 1, 4).decoder == "full"


def test_state_dict_has_the_authors_names() -> None:
    with torch.device("meta"):
        names = set(Rep3D(SMALL).state_dict())
    parts = {name.split(".")[0] for name in names}
    assert parts == {"rep3d", "out", *(f"encoder{i}" for i in range(1, 6)), *(f"decoder{i}" for i in range(1, 6))}
    assert {
        "rep3d.downsample_layers.0.0.weight",
        "rep3d.downsample_layers.0.1.weight",
        "rep3d.downsample_layers.3.0.weight",
        "rep3d.downsample_layers.3.1.bias",
        "rep3d.stages.0.0.dwconv.weight",
        "rep3d.stages.3.1.dwconv.weight",
        "rep3d.norm0.weight",
        "rep3d.norm3.bias",
        "encoder1.layer.conv1.conv.weight",
        "decoder5.transp_conv.conv.weight",
        "out.conv.conv.weight",
    } <= names
    assert not [name for name in names if "prior" in name]


class TestChannelLayerNorm:
    def test_equals_layer_norm_over_channels(self) -> None:
        norm, x = ChannelLayerNorm(5), torch.randn(2, 5, 3, 4, 2) * 3 + 7
        torch.nn.init.uniform_(norm.weight)
        torch.nn.init.uniform_(norm.bias)
        expected = F.layer_norm(x.movedim(1, -1), (5,), norm.weight, norm.bias, norm.eps).movedim(-1, 1)
        assert torch.allclose(norm(x), expected, atol=1e-5)

    def test_gradients(self) -> None:
        norm = ChannelLayerNorm(3).double()
        assert torch.autograd.gradcheck(norm, torch.randn(1, 3, 2, 2, 2, dtype=torch.float64, requires_grad=True))

    def test_half_precision_input_is_normalised_in_float32(self) -> None:
        norm, x = ChannelLayerNorm(4), (torch.randn(1, 4, 2, 2, 2) + 100).to(torch.bfloat16)
        assert torch.allclose(norm(x), norm(x.float()))


def test_bfloat16_training_on_tiny_maps_has_finite_gradients() -> None:
    """On maps of a voxel or two, PyTorch's bfloat16 weight gradient reads memory that was never written.

    Freed memory is filled with NaN first, so that reading it shows.
    """
    config = Rep3DConfig(out_channels=2, dims=(16, 32, 64, 128), depths=(1, 1, 1, 1), hidden_size=192, kernel_size=5)
    for seed in range(6):
        torch.manual_seed(seed)
        network = Rep3D(config).train()
        sizes = (100, 5_000, 20_000, 100_000, 300_000, 1_000_000)
        poison = [torch.full((size,), float("nan")) for size in sizes for _ in range(12)]
        del poison
        with torch.autocast("cpu", torch.bfloat16):
            loss = network(torch.randn(1, 1, 16, 32, 16)).square().mean()
        poison = [torch.full((size,), float("nan")) for size in sizes for _ in range(12)]
        del poison
        loss.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("spatial_prior", ["learned", "fixed", "none"])
def test_compiles_as_one_graph(spatial_prior: str) -> None:
    network = Rep3D(Rep3DConfig(dims=(2, 2, 4, 4), hidden_size=4, kernel_size=9, spatial_prior=spatial_prior))
    image = torch.randn(1, 1, 32, 32, 32)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    gradients = []
    for forward in (network, compiled):
        network.zero_grad()
        F.cross_entropy(forward(image), (image[:, 0] > 0).long()).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(network.named_parameters()).keys()
    for name, expected in gradients[0].items():
        assert torch.allclose(gradients[1][name], expected, atol=1e-6), name
