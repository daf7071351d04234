"""The Rep3D segmentation network: a plain encoder of large-kernel depthwise blocks under a UNETR decoder.

Structure after Lee et al., arXiv 2505.19603: the encoder's stages halve the resolution four times; a block is depthwise
convolution (LRBM) -> BatchNorm -> GELU, with neither a residual path nor a pointwise convolution. The decoder is that
of 3D UX-Net. Modules carry the names of the authors' state dict.
"""

from __future__ import annotations

import torch
from torch import nn

from rep3d.nn.config import LRBM_SETTINGS, Rep3DConfig
from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.unetr import StagedEncoder, UnetrSegmenter

__all__ = ["Rep3D", "Rep3DBlock"]


class Rep3DBlock(nn.Module):
    """Large-kernel depthwise convolution -> BatchNorm -> GELU.

    Args:
        channels: Number of channels.
        config: Settings of the network; the block uses those of the kernel and its mask.
    """

    dwconv: LRBMConv3d | CSLAConv3d | DepthwiseConv3d
    norm: nn.BatchNorm3d | nn.Identity

    def __init__(self, channels: int, config: Rep3DConfig) -> None:
        super().__init__()
        mask = {name: getattr(config, name) for name in LRBM_SETTINGS}
        self.dwconv = LRBMConv3d(channels, config.kernel_size, **mask)
        self.norm = nn.BatchNorm3d(channels)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, D, H, W) to the same shape."""
        return self.act(self.norm(self.dwconv(x)))


class Rep3D(UnetrSegmenter):
    """The whole network: image to logits of the same size.

    Attributes:
        config: The settings it was built from.

    Args:
        config: Settings of the network.
    """

    config: Rep3DConfig

    def __init__(self, config: Rep3DConfig) -> None:
        encoder = StagedEncoder(
            config.in_channels, config.dims, config.depths, lambda channels: Rep3DBlock(channels, config)
        )
        channels = (config.in_channels, config.out_channels)
        super().__init__("rep3d", encoder, *channels, config.dims, config.hidden_size, config.decoder)
        self.config = config
