"""The registry: sizes, shapes, presets, and what is refused. And 3D UX-Net, which is ours to build."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import NetworkConfig
from rep3d.nn.convert import depthwise_convolutions
from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.fold import reparameterize
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.network import BorrowedNetwork
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.uxnet import UXNet3D, UXNetBlock
from rep3d.nn.zoo import build_model, build_network, model_names, preset_config, preset_word, preset_words

HAS_EINOPS = importlib.util.find_spec("einops") is not None
NEEDS_EINOPS = {"swinunetr", "unetr"}
NARROW = {"dims": (4, 6, 8, 10), "depths": (1, 1, 1, 1), "hidden_size": 12, "kernel_size": 5}
BLOCKS = ("blocks_down", "blocks_up")
SMALL: dict[str, dict[str, Any]] = {
    "rep3d": NARROW,
    "csla": NARROW,
    "uxnet": NARROW,
    "swinunetr": {"preset": "tiny", "depths": (1, 1, 1, 1)},
    "unetr": {"preset": "tiny"},
    "segresnet": {},
    "dynunet": {"filters": (4, 4, 8, 8, 8, 8)},
    "mednext": {"preset": "small", "init_filters": 4, "blocks_bottleneck": 1, **dict.fromkeys(BLOCKS, (1, 1, 1, 1))},
    "basicunet": {"features": (4, 4, 8, 8, 8, 4)},
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def skip_without_einops(name: str) -> None:
    if name in NEEDS_EINOPS and not HAS_EINOPS:
        pytest.skip("einops is not installed")


def count(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


class TestNetworks:
    def test_all_names_are_tested(self) -> None:
        assert set(model_names()) == set(SMALL)

    @pytest.mark.parametrize("name", SMALL)
    def test_logits_are_one_tensor_of_the_size_of_the_image_in_train_mode_too(self, name: str) -> None:
        skip_without_einops(name)
        network = build_model(name, 2, 3, roi_size=(64, 32, 32), **SMALL[name]).train()
        logits = network(torch.randn(1, 2, 64, 32, 32))
        assert isinstance(logits, torch.Tensor) and logits.shape == (1, 3, 64, 32, 32)

    @pytest.mark.parametrize(
        ("name", "millions"),
        [
            ("rep3d", 66.0),
            ("uxnet", 53.0),
            ("segresnet", 1.18),
            ("dynunet", 31.2),
            ("swinunetr", 62.2),
            ("unetr", 92.8),
        ],
    )
    def test_base_has_the_size_it_had_in_the_comparison(self, name: str, millions: float) -> None:
        skip_without_einops(name)
        with torch.device("cpu" if name == "swinunetr" else "meta"):  # its constructor reads values
            assert count(build_model(name, 1, 16)) == pytest.approx(millions, rel=0.01)

    def test_presets_and_options_replace_settings(self) -> None:
        network = build_model("rep3d", 1, 16, preset="tiny", kernel_size=7, spatial_prior="fixed")
        assert isinstance(network, Rep3D)
        assert network.config.dims == (16, 32, 64, 128)
        assert (network.config.kernel_size, network.config.spatial_prior) == (7, "fixed")
        with torch.device("meta"):
            assert count(build_model("uxnet", kernel_size=21)) == pytest.approx(65.85, abs=0.01)
            sizes = [count(build_model("mednext", preset=preset)) for preset in ("small", "base", "medium", "large")]
        assert sizes == sorted(sizes)

    def test_wrong_images_are_refused(self) -> None:
        for name in ("csla", "uxnet"):
            with pytest.raises(ConfigError, match=r"shape \(B, 1, D, H, W\), got \(1, 2, 32, 32, 32\)"):
                build_model(name, **NARROW)(torch.zeros(1, 2, 32, 32, 32))


class TestRefusal:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"name": "rep4d"}, "network 'rep4d'; expected one of .*'rep3d', 'csla', 'uxnet'"),
            ({"name": "rep3d", "preset": "huge"}, "preset 'huge' of rep3d; expected one of .'base', 'tiny', 'quick'"),
            (
                {"name": "segresnet", "kernel_size": 5},
                "options .'kernel_size'. of segresnet; expected .*'init_filters'",
            ),
            ({"name": "csla", "spatial_prior": "none"}, "options .'spatial_prior'. of csla; .*'small_kernel_size'"),
            ({"name": "rep3d", "in_channels": 0}, "in_channels: expected a positive integer, got 0"),
            ({"name": "unetr", "out_channels": 2.0}, "out_channels: expected a positive integer, got 2.0"),
            ({"name": "dynunet", "roi_size": (96, 96, 48)}, r"multiples of 32 voxels for dynunet, got \(96, 96, 48\)"),
            ({"name": "rep3d", "roi_size": (96, 96)}, r"three multiples of 16 voxels for rep3d, got \(96, 96\)"),
            ({"name": "rep3d", "kernel_size": 4}, "kernel_size: expected an odd number"),
            ({"name": "uxnet", "kernel_size": 4}, "kernel_size: expected an odd number"),
            ({"name": "uxnet", "dims": (4, 6)}, "dims: expected 4 integers"),
            ({"name": "uxnet", "layer_scale": 0.0}, "layer_scale: expected a positive number"),
            ({"name": "mednext", "kernel_size": 4}, "kernel_size: expected an odd number"),
            ({"name": "csla", "small_kernel_size": 23}, "small_kernel_size=23"),
            (
                {"name": "dynunet", "filters": (8, 16)},
                "dynunet: the settings .* are not possible: length of kernel_size",
            ),
        ],
    )
    def test_names_what_is_possible(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            build_model(**arguments)

    @pytest.mark.skipif(HAS_EINOPS, reason="einops is installed")
    @pytest.mark.parametrize("name", sorted(NEEDS_EINOPS))
    def test_a_missing_package_is_named(self, name: str) -> None:
        with pytest.raises(ConfigError, match="pip install einops"):
            build_model(name)


class TestPlugIns:
    def test_lrbm_and_fast_convolutions_are_options(self) -> None:
        networks = {
            "plain": build_model("uxnet", **NARROW),
            "lrbm": build_model("uxnet", **NARROW, lrbm=True),
            "fast": build_model("uxnet", **NARROW, fast_conv=True),
        }
        assert {type(conv) for conv in depthwise_convolutions(networks["plain"])} == {nn.Conv3d}
        assert {type(conv) for conv in depthwise_convolutions(networks["fast"])} == {DepthwiseConv3d}
        assert sum(isinstance(part, LRBMConv3d) for part in networks["lrbm"].modules()) == 4

    def test_small_kernels_have_nothing_to_mask(self) -> None:
        assert (
            sum(
                isinstance(part, LRBMConv3d)
                for part in build_model("mednext", preset="small", init_filters=4, lrbm=True).modules()
            )
            == 2 * 9
        )
        with pytest.raises(ConfigError, match="nn.Conv3d of other kinds"):
            build_model("mednext", preset="small", init_filters=4, kernel_size=3, lrbm=True)


@pytest.mark.parametrize("scales", [{}, {"small_kernel_size": 1, "large_scale": 0.7, "small_scale": -1.3}])
def test_the_two_branch_network_trains_both_branches_and_folds(scales: dict[str, Any]) -> None:
    network = build_model("csla", 1, 2, **NARROW, **scales).double()
    branches = [part for part in network.modules() if isinstance(part, CSLAConv3d)]
    assert len(branches) == 4
    assert branches[0].small.weight.shape[-1] == scales.get("small_kernel_size", 3)
    assert (branches[0].large_scale, branches[0].small_scale) == ((0.7, -1.3) if scales else (1.0, 1.0))
    before = [(part.large.weight.clone(), part.small.weight.clone()) for part in branches]
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        (network(torch.randn(1, 1, 32, 16, 16).double()) - 1).square().mean().backward()
        optimizer.step()
    for part, (large, small) in zip(branches, before, strict=True):
        assert (part.large.weight - large).abs().min() > 0 and (part.small.weight - small).abs().min() > 0
    folded, x = reparameterize(network), torch.randn(1, 1, 32, 16, 16).double()
    assert not any(isinstance(part, (CSLAConv3d, nn.BatchNorm3d)) for part in folded.modules())
    with torch.no_grad():
        assert torch.allclose(folded(x), network.eval()(x), rtol=1e-10, atol=1e-12)


class TestUXNet:
    def test_block_is_the_published_one(self) -> None:
        """Written out with the channels last, as the authors do, and with products for the grouped convolutions."""
        block = UXNetBlock(3, kernel_size=5, layer_scale=0.3).double()
        for parameter in block.parameters():
            nn.init.normal_(parameter)
        x = torch.randn(2, 3, 6, 5, 7, dtype=torch.float64)
        y = F.conv3d(x, block.dwconv.weight, block.dwconv.bias, padding=2, groups=3).movedim(1, -1)
        y = F.layer_norm(y, (3,), block.norm.weight, block.norm.bias, eps=1e-6)
        wide = y[..., None] * block.pwconv1.weight.view(3, 4) + block.pwconv1.bias.view(3, 4)
        narrow = (F.gelu(wide) * block.pwconv2.weight.view(3, 4)).sum(-1) + block.pwconv2.bias
        assert torch.allclose(block(x), x + (block.gamma * narrow).movedim(-1, 1), rtol=1e-10)

    def test_state_dict_has_the_authors_names(self) -> None:
        with torch.device("meta"):
            names = set(UXNet3D(depths=(1, 1, 1, 1)).state_dict())
        prefix = "uxnet_3d.stages.0.0."
        block = {name.removeprefix(prefix) for name in names if name.startswith(prefix)}
        layers = ("dwconv", "norm", "pwconv1", "pwconv2")
        assert block == {"gamma", *(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))}
        assert {
            "uxnet_3d.downsample_layers.0.0.weight",
            "uxnet_3d.norm3.bias",
            "encoder5.layer.conv1.conv.weight",
        } <= names

    def test_residual_branches_start_small(self) -> None:
        block, x = UXNetBlock(3), torch.randn(1, 3, 8, 8, 8)
        assert torch.equal(block.gamma, torch.full((3,), 1e-6))
        assert torch.allclose(block(x), x, atol=1e-4)


class TestWords:
    def test_every_word_names_one_network_in_one_spelling(self) -> None:
        words = preset_words()
        assert {"tiny", "base", "quick", "segresnet", "segresnet:wide", "basicunet", "csla:quick"} < set(words)
        assert [preset_word(word) for word in words] == list(words)
        assert [preset_word(word) for word in ("rep3d", "rep3d:quick", "dynunet:base")] == ["base", "quick", "dynunet"]

    @pytest.mark.parametrize("word", ["huge", "", ":", "segresnet:", ":tiny", "segresnet:tiny", "tiny:base", 3, None])
    def test_wrong_words_are_answered_with_the_list(self, word: object) -> None:
        with pytest.raises(ConfigError, match="preset: .* is unknown; expected one of base, tiny, quick, .*basicunet"):
            preset_word(word)

    def test_settings_of_a_file_are_checked(self) -> None:
        config = preset_config("segresnet", 1, 2)
        for wrong in ({}, {**config.settings, "kernel_size": 3}):
            with pytest.raises(ConfigError, match="segresnet: expected the settings"):
                build_network(replace(config, settings=wrong))
        for name in ("rep3d", "torch.nn"):
            with pytest.raises(ConfigError, match=name):
                build_network(replace(config, network=name))


def test_a_network_of_one_size_takes_smaller_images_as_the_sliding_window_pads_them() -> None:
    config = NetworkConfig("unetr", 1, 2, {})
    network = BorrowedNetwork(nn.Conv3d(1, 2, 3, padding=1), config, 16, window=(48, 32, 32))
    x = torch.randn(1, 1, 32, 32, 16)
    padded = F.pad(x, (0, 16, 0, 0, 0, 16))
    assert torch.equal(network(x), network.network(padded)[..., :32, :32, :16])
    with pytest.raises(ConfigError, match=r"\(48, 32, 32\) voxels or fewer.*got \(64, 32, 32\)"):
        network(torch.zeros(1, 1, 64, 32, 32))
