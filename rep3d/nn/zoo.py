"""One registry of the networks to train and compare: Rep3D, the two-branch block it replaces, and published baselines.

Each is a `rep3d.nn.network.Network`: images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), one tensor,
in train mode too, as deep supervision is off everywhere. A network has presets; ``base`` holds every setting it has,
with the values of the papers it was compared in (Lee et al., arXiv 2209.15076 and 2505.19603) where those are public.
Those of the networks that `Rep3DConfig` does not describe are in ``zoo.json``, with what they were taken from.

Users name a network and its preset by one word: ``tiny`` (of Rep3D), ``segresnet`` (its ``base``), ``segresnet:wide``.
This module does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rep3d.errors import ConfigError
from rep3d.nn.config import LRBM_SETTINGS, PRESETS, NetworkConfig, Rep3DConfig

if TYPE_CHECKING:
    from torch import nn

    from rep3d.nn.network import Network

__all__ = [
    "build_model",
    "build_network",
    "model_names",
    "preset_config",
    "preset_stride",
    "preset_word",
    "preset_words",
]

Settings = Mapping[str, Any]
Config = Rep3DConfig | NetworkConfig
_Build = Callable[[int, int, Settings], "nn.Module"]


def preset_words() -> tuple[str, ...]:
    """Return the words that name a network and its preset, each once: those of Rep3D, then those of the others."""
    return tuple(_word(name, preset) for name, entry in _MODELS.items() for preset in entry.presets)


def preset_word(word: object) -> str:
    """Return the one spelling of a word that names a network and its preset: ``rep3d:tiny`` is ``tiny``.

    Raises:
        ConfigError: If there is no such network or preset; the message lists all.
    """
    name, preset = _parts(word)
    return _word(name, preset)


def _word(name: str, preset: str) -> str:
    if name == "rep3d":
        return preset
    return name if preset == "base" else f"{name}:{preset}"


def _parts(word: object) -> tuple[str, str]:
    if isinstance(word, str) and word and not word.endswith(":"):
        name, _, preset = word.partition(":") if ":" in word or word in _MODELS else ("rep3d", "", word)
        preset = preset or "base"
        if name in _MODELS and preset in _MODELS[name].presets:
            return name, preset
    raise ConfigError(f"preset: {word!r} is unknown; expected one of {', '.join(preset_words())}.")


def preset_config(word: str, in_channels: int, out_channels: int, roi_size: Sequence[int] = (96, 96, 96)) -> Config:
    """Return what the network is that a word names, for a task's number of input and output channels.

    Args:
        word: One of `preset_words`, or another spelling of it.
        in_channels: Channels of the image.
        out_channels: Channels of the logits, background included.
        roi_size: Voxels (D, H, W) of the patches it will see; only ``unetr`` depends on it.

    Raises:
        ConfigError: If there is no such network or preset, or a number of channels is impossible.
    """
    name, preset = _parts(word)
    return _config(name, preset, in_channels, out_channels, roi_size, {})


def preset_stride(word: str) -> int:
    """Return the voxels that each side of a patch is a multiple of, for the network that a word names.

    Raises:
        ConfigError: If there is no such network or preset.
    """
    return _MODELS[_parts(word)[0]].multiple_of


def build_network(config: Config) -> Network:
    """Build the network that a config names, untrained.

    Raises:
        ConfigError: If the name or a setting is unknown, a value impossible, or an optional package missing.
    """
    from rep3d.nn.network import BorrowedNetwork, Network
    from rep3d.nn.rep3d import Rep3D

    if isinstance(config, Rep3DConfig):
        return Rep3D(config)
    entry, name = _entry(config.network), config.network
    if entry.build is None:
        raise ConfigError(f"{name}: expected a Rep3DConfig, got a NetworkConfig.")
    if set(config.settings) != set(entry.presets["base"]):
        raise ConfigError(
            f"{name}: expected the settings {sorted(entry.presets['base'])}, got {list(config.settings)}."
        )
    if entry.transformer and find_spec("einops") is None:
        raise ConfigError(f"{name}: expected the optional package einops, found none; pip install einops.")
    settings = dict(config.settings)
    plug_ins = {plug_in for plug_in in _PLUG_INS if settings.pop(plug_in, False)}
    try:
        network = entry.build(config.in_channels, config.out_channels, settings)
    except (TypeError, ValueError) as error:  # MONAI's ways to refuse a setting
        raise ConfigError(f"{name}: the settings {settings} are not possible: {error}") from error
    if plug_ins:
        from rep3d.nn.convert import apply_fast_conv, apply_lrbm

        convert = apply_lrbm if "lrbm" in plug_ins else apply_fast_conv  # what LRBM makes is fast as it is
        network = convert(network, copy=False)
    if not isinstance(network, Network):
        return BorrowedNetwork(network, config, entry.multiple_of, not entry.transformer, settings.get(_WINDOW))
    network.config = config
    return network


def _entry(name: str) -> _Model:
    if name not in _MODELS:
        raise ConfigError(f"Unknown network {name!r}; expected one of {list(_MODELS)}.")
    return _MODELS[name]


def _config(
    name: str, preset: str, in_channels: int, out_channels: int, roi_size: Sequence[int], options: Settings
) -> Config:
    presets = _entry(name).presets
    settings = {**presets["base"], **presets[preset], **options}
    if _WINDOW in settings:
        settings[_WINDOW] = list(roi_size)
    if name == "rep3d":
        return Rep3DConfig(in_channels=in_channels, out_channels=out_channels, **settings)
    return NetworkConfig(name, in_channels, out_channels, settings)


def model_names() -> tuple[str, ...]:
    """Return the names that `build_model` knows."""
    return tuple(_MODELS)


def build_model(
    name: str,
    in_channels: int = 1,
    out_channels: int = 2,
    *,
    preset: str = "base",
    roi_size: Sequence[int] = (96, 96, 96),
    **options: Any,
) -> Network:
    """Build a segmentation network, untrained.

    Args:
        name: One of `model_names`: ``rep3d``; ``csla`` (Rep3D with two-branch kernels in the place of LRBM);
            ``uxnet``; or MONAI's ``swinunetr``, ``unetr``, ``segresnet``, ``dynunet`` (as nnU-Net), ``mednext`` and
            ``basicunet``.
        in_channels: Channels of the image.
        out_channels: Channels of the logits, background included.
        preset: A set of settings of that network; all have ``base``.
        roi_size: Voxels (D, H, W) of the patches it will see. Only ``unetr`` depends on it, the others take any size
            that can be halved as often; it is checked for all.
        options: Settings that differ from the preset. Each network has its own; a wrong one is answered with the list.
            ``uxnet`` and ``mednext`` know ``lrbm=True`` (LRBM on their large kernels, see
            `rep3d.nn.convert.apply_lrbm`) and ``fast_conv=True`` (`rep3d.nn.convert.apply_fast_conv`).

    Raises:
        ConfigError: If a name, preset or option is unknown, a value impossible, or an optional package missing.
    """
    entry = _entry(name)
    if preset not in entry.presets:
        raise ConfigError(f"Unknown preset {preset!r} of {name}; expected one of {list(entry.presets)}.")
    known = entry.presets["base"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"Unknown options {unknown} of {name}; expected some of {sorted(known)}.")
    if len(roi_size) != 3 or any(side < 1 or side % entry.multiple_of for side in roi_size):
        raise ConfigError(
            f"roi_size: expected three multiples of {entry.multiple_of} voxels for {name}, got {tuple(roi_size)}."
        )
    if max(roi_size) < 2 * entry.multiple_of:
        raise ConfigError(
            f"roi_size: expected a side of {2 * entry.multiple_of} voxels or more for {name} (its deepest maps are"
            f" normalised over their voxels), got {tuple(roi_size)}."
        )
    return build_network(_config(name, preset, in_channels, out_channels, roi_size, options))


def _csla(in_channels: int, out_channels: int, settings: Settings) -> nn.Module:
    """Not a `Rep3D`: no `Rep3DConfig` describes it."""
    from rep3d.nn.csla import CSLAConv3d
    from rep3d.nn.rep3d import Rep3DBlock
    from rep3d.nn.unetr import StagedEncoder, UnetrSegmenter

    shape = {name: value for name, value in settings.items() if name not in _CSLA_BRANCHES}
    branches = {name: settings[name] for name in _CSLA_BRANCHES}
    config = Rep3DConfig(in_channels=in_channels, out_channels=out_channels, spatial_prior="none", **shape)

    def two_branch_block(channels: int) -> Rep3DBlock:
        block = Rep3DBlock(channels, config)
        block.dwconv = CSLAConv3d(channels, config.kernel_size, **branches)
        return block

    encoder = StagedEncoder(in_channels, config.dims, config.depths, two_branch_block)
    return UnetrSegmenter("rep3d", encoder, in_channels, out_channels, config.dims, config.hidden_size, config.decoder)


def _uxnet(in_channels: int, out_channels: int, settings: Settings) -> nn.Module:
    from rep3d.nn.uxnet import UXNet3D

    return UXNet3D(in_channels, out_channels, **settings)


def _monai(network: str, in_channels: int, out_channels: int, settings: Settings) -> nn.Module:
    """Return a network of MONAI's, by its name there."""
    from monai.networks import nets

    return getattr(nets, network)(in_channels=in_channels, out_channels=out_channels, **settings)


def _dynunet(in_channels: int, out_channels: int, settings: Settings) -> nn.Module:
    deeper = len(settings["filters"]) - 1
    shape = {"kernel_size": [3, *[3] * deeper], "strides": [1, *[2] * deeper], "upsample_kernel_size": [2] * deeper}
    return _monai("DynUNet", in_channels, out_channels, {"spatial_dims": 3, **shape, **settings})


def _mednext(in_channels: int, out_channels: int, settings: Settings) -> nn.Module:
    side = settings["kernel_size"]
    if side % 2 == 0:
        raise ConfigError(f"kernel_size: expected an odd number (a kernel has a centre), got {side}.")
    return _monai("MedNeXt", in_channels, out_channels, {"use_residual_connection": True, **settings})


@dataclass(frozen=True)
class _Model:
    """An entry of the registry.

    Attributes:
        build: Builds the network from in_channels, out_channels and settings; None for Rep3D, which its config builds.
        presets: Settings by name; ``base`` lists all, the others what differs.
        multiple_of: Voxels that each side of a patch is a multiple of.
        transformer: Whether the network imports the optional package einops, and takes decisions on the size of images.
    """

    build: _Build | None
    presets: Mapping[str, Settings]
    multiple_of: int = 16
    transformer: bool = False


_PLUG_INS = ("lrbm", "fast_conv")
_WINDOW = "img_size"  # the setting of a network that takes images of one size
_CSLA_BRANCHES = {"small_kernel_size": 3, "large_scale": 1.0, "small_scale": 1.0}
_BUILDERS: Mapping[str, _Build] = {
    "uxnet": _uxnet,
    "swinunetr": partial(_monai, "SwinUNETR"),
    "unetr": partial(_monai, "UNETR"),
    "segresnet": partial(_monai, "SegResNet"),
    "dynunet": _dynunet,
    "mednext": _mednext,
    "basicunet": partial(_monai, "BasicUNet"),
}


def _models() -> dict[str, _Model]:
    ours = {
        preset: {name: value for name, value in config.to_dict().items() if not name.endswith("_channels")}
        for preset, config in PRESETS.items()
    }
    csla = {
        preset: {name: value for name, value in settings.items() if name not in LRBM_SETTINGS} | _CSLA_BRANCHES
        for preset, settings in ours.items()
    }
    others = json.loads(Path(__file__).with_name("zoo.json").read_text(encoding="utf-8"))
    return {
        "rep3d": _Model(None, ours),
        "csla": _Model(_csla, csla),
        **{
            name: _Model(build, others[name]["presets"], others[name]["multiple_of"], others[name]["transformer"])
            for name, build in _BUILDERS.items()
        },
    }


_MODELS: Mapping[str, _Model] = MappingProxyType(_models())
