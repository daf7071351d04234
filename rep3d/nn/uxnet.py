"""3D UX-Net (Lee et al., arXiv 2209.15076): ConvNeXt's block in 3D under a UNETR decoder; Rep3D's nearest relative.

Structure and names are those of the authors' public code, in the form whose size the paper gives: 7^3 kernels and
pointwise convolutions that are depthwise themselves. (That code has also held 13^3 kernels and dense pointwise
convolutions.) The Rep3D paper (arXiv 2505.19603) compares with 7^3 and 21^3 kernels and puts LRBM into this network;
`rep3d.nn.convert.apply_lrbm` does that here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.unetr import ChannelLayerNorm, StagedEncoder, UnetrSegmenter

__all__ = ["UXNet3D", "UXNetBlock"]


class UXNetBlock(nn.Module):
    """Depthwise K^3 -> LayerNorm -> depthwise scaling C -> 4C -> GELU -> 4C -> C, scaled and added to the input.

    Args:
        channels: Number of channels C.
        kernel_size: Side K of the large kernels, odd.
        layer_scale: Start of the trained factor that each channel of the residual branch is multiplied by.
    """

    def __init__(self, channels: int, kernel_size: int = 7, layer_scale: float = 1e-6) -> None:
        super().__init__()
        self.dwconv = nn.Conv3d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = ChannelLayerNorm(channels)
        self.pwconv1 = nn.Conv3d(channels, 4 * channels, kernel_size=1, groups=channels)
        self.act = nn.GELU()
        self.pwconv2 = nn.Conv3d(4 * channels, channels, kernel_size=1, groups=channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, D, H, W) to the same shape."""
        branch = self.pwconv2(self.act(self.pwconv1(self.norm(self.dwconv(x)))))
        return x + self.gamma.view(-1, 1, 1, 1) * branch


class UXNet3D(UnetrSegmenter):
    """The whole network: image to logits of the same size.

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the logits, background included.
        dims: Channels of the four encoder stages.
        depths: Blocks in each of the four encoder stages.
        hidden_size: Channels of the bottleneck that the decoder starts from.
        kernel_size: Side K of the large depthwise kernels, odd.
        layer_scale: Start of the factors on the residual branches, positive.

    Raises:
        ConfigError: If a setting is impossible; the message names it.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        dims: Sequence[int] = (48, 96, 192, 384),
        depths: Sequence[int] = (2, 2, 2, 2),
        hidden_size: int = 768,
        kernel_size: int = 7,
        layer_scale: float = 1e-6,
    ) -> None:
        # The settings that both networks have are checked where Rep3D's are.
        Rep3DConfig(in_channels, out_channels, tuple(dims), tuple(depths), hidden_size, kernel_size)
        if not layer_scale > 0:
            raise ConfigError(f"layer_scale: expected a positive number, got {layer_scale!r}.")
        encoder = StagedEncoder(
            in_channels, dims, depths, lambda channels: UXNetBlock(channels, kernel_size, layer_scale)
        )
        super().__init__("uxnet_3d", encoder, in_channels, out_channels, dims, hidden_size)
