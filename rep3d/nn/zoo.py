"""One registry of the networks to train and compare: Rep3D, the two-branch block it replaces, and published baselines.

Each maps images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), one tensor, in train mode too: deep
supervision is off everywhere. A network has presets; ``base`` holds every setting it has, with the values of the papers
it was compared in (Lee et al., arXiv 2209.15076 and 2505.19603) where those are public.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rep3d.errors import ConfigError
from rep3d.nn.config import PRESETS, Rep3DConfig

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build_model", "model_names"]

Settings = Mapping[str, Any]


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
    for label, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ConfigError(f"{label}: expected a positive integer, got {channels!r}.")
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
    try:
        return entry.build(in_channels, out_channels, tuple(roi_size), settings)
    except (TypeError, ValueError) as error:  # MONAI's ways to refuse a setting
        raise ConfigError(f"{name}: the settings {settings} are not possible: {error}") from error


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

    shape, plugged = _split_plug_ins(settings)
    return plugged(UXNet3D(in_channels, out_channels, **shape))


def _swinunetr(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from monai.networks.nets import SwinUNETR

    return SwinUNETR(in_channels=in_channels, out_channels=out_channels, **settings)


def _unetr(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from monai.networks.nets import UNETR

    return UNETR(in_channels=in_channels, out_channels=out_channels, img_size=roi_size, **settings)


def _segresnet(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from monai.networks.nets import SegResNet

    return SegResNet(in_channels=in_channels, out_channels=out_channels, **settings)


def _dynunet(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from monai.networks.nets import DynUNet

    levels = len(settings["filters"])
    return DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * levels,
        strides=[1] + [2] * (levels - 1),
        upsample_kernel_size=[2] * (levels - 1),
        **settings,
    )


def _mednext(in_channels: int, out_channels: int, roi_size: tuple[int, ...], settings: Settings) -> nn.Module:
    from monai.networks.nets import MedNeXt

    shape, plugged = _split_plug_ins(settings)
    if shape["kernel_size"] % 2 == 0:
        raise ConfigError(f"kernel_size: expected an odd number (a kernel has a centre), got {shape['kernel_size']}.")
    return plugged(MedNeXt(in_channels=in_channels, out_channels=out_channels, use_residual_connection=True, **shape))


def _split_plug_ins(settings: Settings) -> tuple[dict[str, Any], Callable[[nn.Module], nn.Module]]:
    """Split settings into those of the network and a function that converts its large kernels as the others say."""
    from rep3d.nn.convert import apply_fast_conv, apply_lrbm

    def plugged(network: nn.Module) -> nn.Module:
        if settings["lrbm"]:  # which is fast as it is
            return apply_lrbm(network, copy=False)
        return apply_fast_conv(network, copy=False) if settings["fast_conv"] else network

    return {name: value for name, value in settings.items() if name not in _PLUG_INS}, plugged


@dataclass(frozen=True)
class _Model:
    """An entry of the registry.

    Attributes:
        build: Builds the network from in_channels, out_channels, roi_size and settings.
        presets: Settings by name; ``base`` lists all, the others what differs.
        multiple_of: Voxels that each side of a patch is a multiple of.
        needs_einops: Whether the network imports the optional package einops.
    """

    build: Callable[[int, int, tuple[int, ...], Settings], nn.Module]
    presets: Mapping[str, Settings]
    multiple_of: int
    needs_einops: bool = False


def _rep3d_settings(preset: str, dropped: Sequence[str] = ()) -> dict[str, Any]:
    settings = PRESETS[preset].to_dict()
    return {name: settings[name] for name in settings if name not in ("in_channels", "out_channels", *dropped)}


_PLUG_INS = {"lrbm": False, "fast_conv": False}
_CSLA_BRANCHES = {"small_kernel_size": 3, "large_scale": 1.0, "small_scale": 1.0}
_LRBM_SETTINGS = ("spatial_prior", "generator", "prior_scale", "prior_exponent", "generator_kernel", "generator_depth")
_TINY_WIDTHS = {"dims": (16, 32, 64, 128), "hidden_size": 192}

_MODELS: Mapping[str, _Model] = MappingProxyType(
    {
        "rep3d": _Model(_rep3d, {preset: _rep3d_settings(preset) for preset in PRESETS}, multiple_of=16),
        "csla": _Model(
            _csla,
            {preset: {**_rep3d_settings(preset, _LRBM_SETTINGS), **_CSLA_BRANCHES} for preset in PRESETS},
            multiple_of=16,
        ),
        "uxnet": _Model(
            _uxnet,
            {
                "base": {
                    "dims": (48, 96, 192, 384),
                    "depths": (2, 2, 2, 2),
                    "hidden_size": 768,
                    "kernel_size": 7,
                    "layer_scale": 1e-6,
                    **_PLUG_INS,
                },
                "tiny": _TINY_WIDTHS,
            },
            multiple_of=16,
        ),
        # As in the training script of both papers: feature size 48.
        "swinunetr": _Model(
            _swinunetr,
            {
                "base": {"feature_size": 48, "depths": (2, 2, 2, 2), "use_checkpoint": False},
                "tiny": {"feature_size": 12},
            },
            multiple_of=32,
            needs_einops=True,
        ),
        # As in the training script of both papers: ViT-B, patches embedded by a perceptron.
        "unetr": _Model(
            _unetr,
            {
                "base": {
                    "feature_size": 16,
                    "hidden_size": 768,
                    "mlp_dim": 3072,
                    "num_heads": 12,
                    "proj_type": "perceptron",
                },
                "tiny": {"hidden_size": 96, "mlp_dim": 384, "num_heads": 4},
            },
            multiple_of=16,
            needs_einops=True,
        ),
        # MONAI's defaults; the papers do not say more. `wide` has the 32 filters of Myronenko, arXiv 1810.11654.
        "segresnet": _Model(
            _segresnet,
            {
                "base": {"init_filters": 8, "blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1), "dropout_prob": None},
                "wide": {"init_filters": 32, "dropout_prob": 0.2},
            },
            multiple_of=8,
        ),
        # What nnU-Net plans for patches of about 96^3 to 128^3 (Isensee et al., arXiv 1809.10486): six levels.
        "dynunet": _Model(
            _dynunet,
            {
                "base": {"filters": (32, 64, 128, 256, 320, 320), "res_block": False},
                "tiny": {"filters": (8, 16, 32, 64, 80, 80)},
            },
            multiple_of=32,
        ),
        # Roy et al., arXiv 2303.09975. Which variant was compared is not public; 5^3 is the larger of its two kernels.
        "mednext": _Model(
            _mednext,
            {
                "base": {
                    "init_filters": 32,
                    "kernel_size": 5,
                    "encoder_expansion_ratio": (2, 3, 4, 4),
                    "bottleneck_expansion_ratio": 4,
                    "decoder_expansion_ratio": (4, 4, 3, 2),
                    "blocks_down": (2, 2, 2, 2),
                    "blocks_bottleneck": 2,
                    "blocks_up": (2, 2, 2, 2),
                    **_PLUG_INS,
                },
                "small": {
                    "encoder_expansion_ratio": 2,
                    "bottleneck_expansion_ratio": 2,
                    "decoder_expansion_ratio": 2,
                },
                "medium": {"blocks_down": (3, 4, 4, 4), "blocks_bottleneck": 4, "blocks_up": (4, 4, 4, 3)},
                "large": {
                    "encoder_expansion_ratio": (3, 4, 8, 8),
                    "bottleneck_expansion_ratio": 8,
                    "decoder_expansion_ratio": (8, 8, 4, 3),
                    "blocks_down": (3, 4, 8, 8),
                    "blocks_bottleneck": 8,
                    "blocks_up": (8, 8, 4, 3),
                },
            },
            multiple_of=16,
        ),
    }
)
