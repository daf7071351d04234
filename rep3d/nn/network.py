"""What every network of the registry has in common: what it is, what it may be fed, where its head is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import NetworkConfig, Rep3DConfig

__all__ = ["BorrowedNetwork", "Network", "head_of"]


class Network(nn.Module):
    """Maps images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W), one tensor, in train mode too.

    A network whose large kernels are better left to PyTorch while something else computes the rest splits its forward
    into `encode` and `decode`.

    Attributes:
        config: Names it, with all its settings; `rep3d.nn.zoo.build_network` builds it anew from them.
        in_channels: Channels of the input image.
        stride: Each side of an input is a multiple of it, in voxels.
        any_size: Whether what it computes for images of one size, once recorded, holds for those of others.
    """

    any_size = True
    config: Rep3DConfig | NetworkConfig
    in_channels: int
    stride: int

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps that `decode` needs beside the image; none where the network is not split.

        Raises:
            ConfigError: If the image has the wrong rank, channel count or size.
        """
        self.check_input(x)
        return []

    def decode(self, x: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the image and what `encode` made of it to logits (B, out_channels, D, H, W)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map an image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

        Raises:
            ConfigError: If the image has the wrong rank, channel count or size.
        """
        return self.decode(x, self.encode(x))

    def deepest(self, x: torch.Tensor) -> torch.Tensor:
        """Map an image to the feature map (B, C, d, h, w) that has the fewest voxels; of several, the last one made."""
        least = x

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            nonlocal least
            if isinstance(output, torch.Tensor) and output.dim() == 5:
                least = min(output, least, key=lambda feature_map: math.prod(feature_map.shape[2:]))

        hooks = [module.register_forward_hook(keep) for module in self.modules() if module is not self]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        return least

    def check_input(self, x: torch.Tensor) -> None:
        """Make sure that an image can be mapped.

        Raises:
            ConfigError: If it has the wrong rank, channel count or size.
        """
        shape = tuple(x.shape)
        if len(shape) != 5 or shape[1] != self.in_channels:
            raise ConfigError(
                f"{type(self).__name__}: expected an image of shape (B, {self.in_channels}, D, H, W), got {shape};"
                " add the missing axes or build the network with other in_channels."
            )
        if any(side == 0 or side % self.stride for side in shape[2:]) or max(shape[2:]) < 2 * self.stride:
            raise ConfigError(
                f"{type(self).__name__}: expected sides that are multiples of {self.stride}, at least one of them"
                f" {2 * self.stride} or more (the deepest stage is normalised over its voxels), got {shape[2:]}; pad"
                " the image."
            )


class BorrowedNetwork(Network):
    """A network that others wrote (MONAI's), with what ours have.

    Args:
        network: Maps images to logits, one tensor.
        config: Names it.
        stride: Voxels that each side of an image is a multiple of.
        any_size: See `Network`.
        window: The one size (D, H, W) in voxels that the network takes, where it takes no other; smaller images are
            padded with zeros to it.
    """

    def __init__(
        self,
        network: nn.Module,
        config: NetworkConfig,
        stride: int,
        any_size: bool = True,
        window: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.in_channels = config.in_channels
        self.stride = stride
        self.any_size = any_size
        self.window = tuple(window) if window else None

    def decode(self, x: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the image to logits (B, out_channels, D, H, W); there are no stages."""
        if self.window is None or tuple(x.shape[2:]) == self.window:
            return self.network(x)
        missing = [side - length for side, length in zip(self.window, x.shape[2:], strict=True)]
        if min(missing) < 0:
            raise ConfigError(
                f"{type(self.network).__name__}: expected an image of {self.window} voxels or fewer, as it was"
                f" built for them, got {tuple(x.shape[2:])}."
            )
        logits = self.network(nn.functional.pad(x, [part for more in reversed(missing) for part in (0, more)]))
        return logits[(..., *(slice(length) for length in x.shape[2:]))]


def head_of(network: Network) -> nn.Conv3d | nn.ConvTranspose3d:
    """Return the layer whose outputs are the logits: the last 1x1x1 convolution with one output per class.

    Raises:
        ConfigError: If there is none.
    """
    classes = network.config.out_channels
    found = [
        module
        for module in network.modules()
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d))
        and module.kernel_size == module.stride == (1, 1, 1)
        and module.groups == 1
        and module.out_channels == classes
    ]
    if not found:
        raise ConfigError(f"{type(network).__name__} has no 1x1x1 convolution with {classes} outputs for its labels.")
    return found[-1]
