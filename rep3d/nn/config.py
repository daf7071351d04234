"""The settings of the network: one frozen, validated record, saved with the weights in every checkpoint.

The presets are ``base``, the network of the paper (Lee et al., arXiv 2505.19603); ``tiny``, the same structure and the
same 21^3 kernels with few enough channels to train on a two-core CPU; and ``quick``, which is ``tiny`` with a decoder
that ends at half resolution, where it is twice as wide: most of a step's time goes into the convolutions at full
resolution. Other networks
of the registry are named by a `NetworkConfig`. This module does not import torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from rep3d.errors import ConfigError

__all__ = [
    "DECODERS",
    "GENERATORS",
    "LRBM_SETTINGS",
    "PRESETS",
    "SPATIAL_PRIORS",
    "NetworkConfig",
    "Rep3DConfig",
    "require_one_of",
    "require_positive_integer",
]

SPATIAL_PRIORS = ("learned", "fixed", "none")
GENERATORS = ("shared", "depthwise")
DECODERS = ("full", "half")
# Those of the settings below that LRBM convolutions have.
LRBM_SETTINGS = ("spatial_prior", "generator", "prior_scale", "prior_exponent", "generator_kernel", "generator_depth")
NUM_STAGES = 4


def require_positive_integer(name: str, value: object) -> None:
    """Raise ConfigError if a setting is no whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}: expected a positive integer, got {value!r}.")


def require_one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ConfigError if a setting is none of the choices."""
    if value not in choices:
        raise ConfigError(f"{name}: expected one of {list(choices)}, got {value!r}.")


@dataclass(frozen=True)
class Rep3DConfig:
    """Everything that determines the shape of a Rep3D network.

    Attributes:
        in_channels: Channels of the input image.
        out_channels: Channels of the logits, background included.
        dims: Channels of the four encoder stages.
        depths: Blocks in each of the four encoder stages.
        hidden_size: Channels of the bottleneck that the decoder starts from.
        kernel_size: Side K of the large depthwise kernels, in voxels of their stage; odd.
        spatial_prior: What multiplies the large kernels: ``learned`` (prior plus generated correction), ``fixed`` (the
            prior alone) or ``none`` (plain kernels).
        generator: For ``learned``: one mask per block (``shared``) or one per channel (``depthwise``).
        prior_scale: beta in the prior beta / (distance ^ g + beta), distances in voxels of the stage.
        prior_exponent: g in it.
        generator_kernel: Side of the generator's convolutions, in taps; odd.
        generator_depth: Number of convolution + LayerNorm stages in the generator.
        decoder: Where the decoder ends: at the image's resolution (``full``) or at ``half`` of it; the logits are then
            interpolated.

    Raises:
        ConfigError: If a value is impossible; the message names it.
    """

    in_channels: int = 1
    out_channels: int = 2
    dims: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    hidden_size: int = 768
    kernel_size: int = 21
    spatial_prior: str = "learned"
    generator: str = "shared"
    prior_scale: float = 1.0
    prior_exponent: float = 1.0
    generator_kernel: int = 7
    generator_depth: int = 2
    decoder: str = "full"

    def __post_init__(self) -> None:
        counts = ("in_channels", "out_channels", "hidden_size", "kernel_size", "generator_kernel", "generator_depth")
        for name in counts:
            require_positive_integer(name, getattr(self, name))
        for name in ("dims", "depths"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)) or len(values) != NUM_STAGES:
                raise ConfigError(f"{name}: expected {NUM_STAGES} integers, one per stage, got {values!r}.")
            for value in values:
                require_positive_integer(name, value)
            object.__setattr__(self, name, tuple(values))  # a list, as JSON gives it, would not be hashable
        for name in ("kernel_size", "generator_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ConfigError(f"{name}: expected an odd number (a kernel has a centre), got {getattr(self, name)}.")
        require_one_of("spatial_prior", self.spatial_prior, SPATIAL_PRIORS)
        require_one_of("generator", self.generator, GENERATORS)
        require_one_of("decoder", self.decoder, DECODERS)
        for name in ("prior_scale", "prior_exponent"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigError(f"{name}: expected a positive finite number, got {value!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Rep3DConfig:
        """Build a config from `to_dict`'s output; settings that are absent keep their defaults.

        Raises:
            ConfigError: If a key is unknown or a value impossible.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ConfigError(f"Unknown network settings {unknown}; expected some of {known}.")
        return cls(**settings)


@dataclass(frozen=True)
class NetworkConfig:
    """Names a network of the registry that is no Rep3D, with all its settings.

    Attributes:
        network: Its name in `rep3d.nn.zoo`, which knows what its settings may be.
        in_channels: Channels of the input image.
        out_channels: Channels of the logits, background included.
        settings: All its settings, as plain JSON types.

    Raises:
        ConfigError: If a number of channels is impossible.
    """

    network: str
    in_channels: int
    out_channels: int
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        require_positive_integer("in_channels", self.in_channels)
        require_positive_integer("out_channels", self.out_channels)
        try:  # as a file gives them back, so that configs can be compared: lists for tuples
            object.__setattr__(self, "settings", json.loads(json.dumps(dict(self.settings))))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.network}: the settings {self.settings!r} are no plain JSON types.") from error

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> NetworkConfig:
        """Build a config from `to_dict`'s output.

        Raises:
            ConfigError, TypeError: If something is missing, unknown or impossible.
        """
        return cls(**settings)


_TINY = Rep3DConfig(dims=(16, 32, 64, 128), hidden_size=192)
PRESETS: Mapping[str, Rep3DConfig] = MappingProxyType(
    {"base": Rep3DConfig(), "tiny": _TINY, "quick": replace(_TINY, dims=(32, 32, 64, 128), decoder="half")}
)
