"""The frame that Rep3D and 3D UX-Net share: a four-stage encoder of some block, under a UNETR decoder.

Structure after 3D UX-Net (Lee et al., arXiv 2209.15076), whose decoder Rep3D takes over. The decoder is built from
MONAI's UNETR blocks. Modules carry the names of the authors' state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import nn
from torch.nn.functional import interpolate

from rep3d.nn.config import DECODERS, require_one_of
from rep3d.nn.network import Network

__all__ = ["ChannelLayerNorm", "StagedEncoder", "UnetrSegmenter"]


class ChannelLayerNorm(nn.Module):
    """Normalises the channels of each voxel of maps (B, C, D, H, W), with a trained weight and bias per channel.

    Args:
        channels: Number of channels C.
    """

    eps = 1e-6  # added to the variance

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not F.layer_norm: it wants the channels last, and bringing them there costs more than the arithmetic.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        per_channel = (-1, 1, 1, 1)
        normalised = torch.addcmul(self.bias.view(per_channel), centred * scale, self.weight.view(per_channel))
        return normalised.to(self.weight.dtype)


class StagedEncoder(nn.Module):
    """Four stages of blocks at 1/2, 1/4, 1/8 and 1/16 of the input's resolution.

    Args:
        in_channels: Channels of the input image.
        dims: Channels of the stages.
        depths: Blocks in each stage.
        make_block: Makes a block for a number of channels; it keeps the shape of its maps.
    """

    def __init__(
        self, in_channels: int, dims: Sequence[int], depths: Sequence[int], make_block: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        stem = nn.Sequential(
            nn.Conv3d(in_channels, dims[0], kernel_size=7, stride=2, padding=3), ChannelLayerNorm(dims[0])
        )
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in zip(dims[:-1], dims[1:], strict=True):
            self.downsample_layers.append(
                nn.Sequential(ChannelLayerNorm(narrow), nn.Conv3d(narrow, wide, kernel_size=2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(make_block(channels) for _ in range(depth)))
            for channels, depth in zip(dims, depths, strict=True)
        )
        for stage, channels in enumerate(dims):
            self.add_module(f"norm{stage}", ChannelLayerNorm(channels))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map an image (B, in_channels, D, H, W) to the stage outputs (B, dims[i], D / 2^(i+1), ...), normalised."""
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(downsample(x))
            outputs.append(self.get_submodule(f"norm{index}")(x))
        return outputs


class UnetrSegmenter(Network):
    """A staged encoder and the UNETR decoder: image to logits of the same size.

    Attributes:
        encoder_name: Name of the submodule that is the encoder, as in the authors' state dict.
        stride: Voxels of the input per voxel of the deepest stage.

    Args:
        encoder_name: See above.
        encoder: Maps an image to the outputs of its four stages.
        in_channels: Channels of the input image.
        out_channels: Channels of the logits, background included.
        dims: Channels of the encoder's four stages.
        hidden_size: Channels of the bottleneck that the decoder starts from.
        decoder: ``full``, or ``half`` for one that ends at half resolution, with the logits interpolated to the
            image's: it has no ``encoder1``, ``decoder2`` and ``decoder1``, which take most of the time.
    """

    stride = 16

    def __init__(
        self,
        encoder_name: str,
        encoder: nn.Module,
        in_channels: int,
        out_channels: int,
        dims: Sequence[int],
        hidden_size: int,
        decoder: str = "full",
    ) -> None:
        super().__init__()
        require_one_of("decoder", decoder, DECODERS)
        self.ends_at_half = decoder == "half"
        self.encoder_name = encoder_name
        self.add_module(encoder_name, encoder)
        self.in_channels = in_channels
        if not self.ends_at_half:
            self.encoder1 = _residual_block(in_channels, dims[0])
        self.encoder2 = _residual_block(dims[0], dims[1])
        self.encoder3 = _residual_block(dims[1], dims[2])
        self.encoder4 = _residual_block(dims[2], dims[3])
        self.encoder5 = _residual_block(dims[3], hidden_size)
        self.decoder5 = _upsampling_block(hidden_size, dims[3])
        self.decoder4 = _upsampling_block(dims[3], dims[2])
        self.decoder3 = _upsampling_block(dims[2], dims[1])
        if not self.ends_at_half:
            self.decoder2 = _upsampling_block(dims[1], dims[0])
            self.decoder1 = _residual_block(dims[0], dims[0])
        last = dims[1] if self.ends_at_half else dims[0]
        self.out = UnetOutBlock(spatial_dims=3, in_channels=last, out_channels=out_channels)

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Map an image (B, in_channels, D, H, W) to the four stage outputs (B, dims[i], D / 2^(i+1), ...).

        Raises:
            ConfigError: If the image has the wrong rank, channel count or size.
        """
        self.check_input(x)
        return self.get_submodule(self.encoder_name)(x)

    def decode(self, x: torch.Tensor, stages: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map the image and its stage outputs (of `encode`) to logits (B, out_channels, D, H, W)."""
        half, quarter, eighth, sixteenth = stages
        up = self._deepest_level(sixteenth, eighth)
        up = self.decoder4(up, self.encoder3(quarter))
        up = self.decoder3(up, self.encoder2(half))
        if self.ends_at_half:
            return interpolate(self.out(up), scale_factor=2, mode="trilinear", align_corners=False)
        up = self.decoder2(up, self.encoder1(x))
        return self.out(self.decoder1(up))

    def deepest(self, x: torch.Tensor) -> torch.Tensor:
        """Map an image to the output of its encoder's last stage (B, dims[3], D / 16, H / 16, W / 16)."""
        return self.encode(x)[-1]

    def _deepest_level(self, sixteenth: torch.Tensor, eighth: torch.Tensor) -> torch.Tensor:
        """Return the decoder's first step, in the weights' precision on a CPU, also under autocast.

        On maps of one or two voxels a side, oneDNN's bfloat16 weight gradient reads memory that was never written (NaN
        in one run of ten with PyTorch 2.13). These maps are so small that lower precision would save nothing.
        """
        if sixteenth.device.type != "cpu":
            return self.decoder5(self.encoder5(sixteenth), self.encoder4(eighth))
        dtype = self.decoder5.transp_conv.conv.weight.dtype
        with torch.autocast("cpu", enabled=False):
            return self.decoder5(self.encoder5(sixteenth.to(dtype)), self.encoder4(eighth.to(dtype)))


_BLOCK: dict[str, Any] = {"spatial_dims": 3, "kernel_size": 3, "norm_name": "instance", "res_block": True}


def _residual_block(in_channels: int, out_channels: int) -> UnetrBasicBlock:
    """Return two 3^3 convolutions with instance norm and a residual path."""
    return UnetrBasicBlock(in_channels=in_channels, out_channels=out_channels, stride=1, **_BLOCK)


def _upsampling_block(in_channels: int, out_channels: int) -> UnetrUpBlock:
    """Double the resolution, concatenate the skip connection, and apply a residual block."""
    return UnetrUpBlock(in_channels=in_channels, out_channels=out_channels, upsample_kernel_size=2, **_BLOCK)
