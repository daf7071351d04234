"""Deep supervision: coarser maps of the decoder are made to say the labels, too, while the network is trained.

After nnU-Net (Isensee et al. 2021, Nature Methods 18): each level of the decoder has a 1x1x1 convolution of its own,
its loss is that of the label map at its size, and weighs half as much as that of the next finer one. The convolutions
belong to the training alone: the network that is saved is the same with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn import functional

from rep3d.errors import ConfigError
from rep3d.nn.network import BorrowedNetwork, Network
from rep3d.nn.unetr import UnetrSegmenter

__all__ = ["DeepLoss", "DeeplySupervised"]

_LEVELS = 3  # beside the finest: 1/2, 1/4 and 1/8 of the image's size


class DeeplySupervised(nn.Module):
    """A network with heads on its decoder; in train mode it returns all logits, the finest first, else those alone.

    Args:
        network: the network, in which nothing changes.

    Raises:
        ConfigError: if it has no such levels.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self._maps: dict[int, torch.Tensor] = {}
        self._gathers = False
        for number, level in enumerate(_levels(network)):
            level.register_forward_hook(self._keep(number))
        self.heads = nn.ModuleList(nn.Conv3d(width, network.config.out_channels, 1) for width in self._channels())

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map an image (B, C, D, H, W) to logits; in train mode those of all levels, the finest first."""
        if not self.training:
            return self.network(x)
        logits, maps = self._mapped(x)
        with torch.autocast(x.device.type, enabled=False):
            return [logits, *(head(found.float()) for head, found in zip(self.heads, maps, strict=True))]

    def _mapped(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the logits, and the maps of the levels."""
        self._gathers = True
        try:
            logits = self.network(x)
            return logits, [self._maps[number] for number in sorted(self._maps)]
        finally:
            self._gathers = False
            self._maps.clear()

    def _keep(self, number: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            if self._gathers:
                self._maps[number] = output

        return keep

    def _channels(self) -> list[int]:
        trains, side = self.network.training, 2 * self.network.stride
        self.network.eval()
        with torch.no_grad():
            _, maps = self._mapped(torch.zeros(1, self.network.in_channels, side, side, side))
        self.network.train(trains)
        return [found.shape[1] for found in maps]


def _levels(network: Network) -> list[nn.Module]:
    """Return the decoder's blocks below the finest, the finer ones first."""
    if isinstance(network, UnetrSegmenter):
        return [*([] if network.ends_at_half else [network.decoder3]), network.decoder4, network.decoder5]
    inner = network.network if isinstance(network, BorrowedNetwork) else None
    if not isinstance(inner, DynUNet):
        raise ConfigError("deep_supervision: this network's decoder has no levels to supervise. Leave it out.")
    return list(inner.upsamples)[-2 : -2 - _LEVELS : -1]


class DeepLoss(nn.Module):
    """A loss over all levels: the sum of each one's, weighted with 1, 1/2, 1/4 ..., which add up to 1.

    Args:
        loss: takes logits (B, C, D, H, W) and a label map (B, 1, D, H, W).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        """Return the loss; of a network in eval mode that of its one map."""
        if isinstance(logits, torch.Tensor):
            return self.loss(logits, label)
        weights = [0.5**level for level in range(len(logits))]
        losses = []
        for found in logits:
            size = found.shape[2:]
            there = label if size == label.shape[2:] else functional.interpolate(label.float(), size, mode="nearest")
            losses.append(self.loss(found, there.to(label.dtype)))
        return sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
