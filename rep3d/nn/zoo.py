"""One registry of the networks to train and compare: Rep3D, the two-branch block it replaces, and published baselines.

Each maps images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), one tensor, in train mode too: deep
supervision is off everywhere. A network has presets; ``base`` holds every setting it has, with the values of the papers
it was compared in (Lee et al., arXiv 2209.15076 and 2505.19603) where those are public. Those of the networks that
`Rep3DConfig` does not describe are in ``zoo.json``, with what they were taken from.
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
from rep3d.nn.config import LRBM_SETTINGS, PRESETS, Rep3DConfig, require_positive_integer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_model", "model_names"]

Settings = Mapping[str, Any]
_Build = Callable[[int, int, "tuple[int, ...]", Settings], "nn.Module"]


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
) -> nn.Module:
    """Build a segmentation network, untrained.

    Args:
        name: One of `model_names`: ``rep3d``; ``csla`` (Rep3D with two-branch kernels in the place of LRBM);
            ``uxnet``; or MONAI's ``swinunetr``, ``unetr``, ``segresnet``, ``dynunet`` (as nnU-Net) and ``mednext``.
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
    if name not in _MODELS:
        raise ConfigError(f"Unknown network {name!r}; expected one of {list(_MODELS)}.")
    entry = _MODELS[name]
    if preset not in entry.presets:
        raise ConfigError(f"Unknown preset {preset!r} of {name}; expected one of {list(entry.presets)}.")
    known = entry.presets["base"]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"Unknown options {unknown} of {name}; expected some of {sorted(known)}.")
    require_positive_integer("in_channels", in_channels)
    require_positive_integer("out_channels", out_channels)
    if len(roi_size) != 3 or any(side < 1 or side % entry.multiple_of for side in roi_size):
        raise ConfigError(
            f"roi_size: expected three multiples of {entry.multiple_of} voxels for {name}, got {tuple(roi_size)}."
        )
    if max(roi_size) < 2 * entry.multiple_of:
        raise ConfigError(
            f"roi_size: expected a side of {2 * entry.multiple_of} voxels or more for {name} (its deepest maps are"
            f" normalised over their voxels), got {tuple(roi_size)}."
        )
    if entry.needs_einops and find_spec("einops") is None:
        raise ConfigError(f"{name}: expected the optional package einops, found none; pip install einops.")
    settings = {**known, **entry.presets[preset], **options}
    plug_ins = {name for name in _PLUG_INS if settings.pop(name, False)}
    try:
        network = entry.build(in_channels, out_channels, tuple(roi_size), settings)
    except (TypeError, ValueError) as error:  # MONAI's ways to refuse a setting
        raise ConfigError(f"{name}: the settings {settings} are not possible: {error}") from error
    if not plug_ins:
        return network
    from rep3d.nn.convert import apply_fast_conv, apply_lrbm

    convert = apply_lrbm if "lrbm" in plug_ins else apply_fast_conv  # what LRBM makes is fast as it is
    return convert(network, copy=False)


def _rep3d(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from rep3d.nn.rep3d import Rep3D

    return Rep3D(Rep3DConfig(in_channels=in_channels, out_channels=out_channels, **settings))


def _csla(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    """Not a `Rep3D`: no `Rep3DConfig` describes it, so a checkpoint of one could not be loaded."""
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
    return UnetrSegmenter("rep3d", encoder, in_channels, out_channels, config.dims, config.hidden_size)


def _uxnet(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from rep3d.nn.uxnet import UXNet3D

    return UXNet3D(in_channels, out_channels, **settings)


def _monai(
    network: str, in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings
) -> nn.Module:
    """Return a network of MONAI's, by its name there."""
    from monai.networks import nets

    return getattr(nets, network)(in_channels=in_channels, out_channels=out_channels, **settings)


def _unetr(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    return _monai("UNETR", in_channels, out_channels, roi_size, {"img_size": roi_size, **settings})


def _dynunet(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    deeper = len(settings["filters"]) - 1
    shape = {"kernel_size": [3, *[3] * deeper], "strides": [1, *[2] * deeper], "upsample_kernel_size": [2] * deeper}
    return _monai("DynUNet", in_channels, out_channels, roi_size, {"spatial_dims": 3, **shape, **settings})


def _mednext(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    side = settings["kernel_size"]
    if side % 2 == 0:
        raise ConfigError(f"kernel_size: expected an odd number (a kernel has a centre), got {side}.")
    return _monai("MedNeXt", in_channels, out_channels, roi_size, {"use_residual_connection": True, **settings})


@dataclass(frozen=True)
class _Model:
    """An entry of the registry.

    Attributes:
        build: Builds the network from in_channels, out_channels, roi_size and settings.
        presets: Settings by name; ``base`` lists all, the others what differs.
        multiple_of: Voxels that each side of a patch is a multiple of.
        needs_einops: Whether the network imports the optional package einops.
    """

    build: _Build
    presets: Mapping[str, Settings]
    multiple_of: int = 16
    needs_einops: bool = False


_PLUG_INS = ("lrbm", "fast_conv")
_CSLA_BRANCHES = {"small_kernel_size": 3, "large_scale": 1.0, "small_scale": 1.0}
_BUILDERS: Mapping[str, _Build] = {
    "uxnet": _uxnet,
    "swinunetr": partial(_monai, "SwinUNETR"),
    "unetr": _unetr,
    "segresnet": partial(_monai, "SegResNet"),
    "dynunet": _dynunet,
    "mednext": _mednext,
}


def _models() -> dict[str, _Model]:
    rep3d = {
        preset: {name: value for name, value in config.to_dict().items() if not name.endswith("_channels")}
        for preset, config in PRESETS.items()
    }
    csla = {
        preset: {name: value for name, value in settings.items() if name not in LRBM_SETTINGS} | _CSLA_BRANCHES
        for preset, settings in rep3d.items()
    }
    others = json.loads(Path(__file__).with_name("zoo.json").read_text(encoding="utf-8"))
    return {
        "rep3d": _Model(_rep3d, rep3d),
        "csla": _Model(_csla, csla),
        **{
            name: _Model(build, others[name]["presets"], others[name]["multiple_of"], others[name]["needs_einops"])
            for name, build in _BUILDERS.items()
        },
    }


_MODELS: Mapping[str, _Model] = MappingProxyType(_models())
