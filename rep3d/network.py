"""The Rep3D segmentation network: a plain encoder of large-kernel depthwise blocks under a UNETR decoder.

Structure after Lee et al., arXiv 2505.19603: the encoder's stages halve the resolution four times; a block is depthwise
convolution (LRBM) -> BatchNorm -> GELU, with neither a residual path nor a pointwise convolution. The decoder is that
of 3D UX-Net (arXiv 2209.15076), built from MONAI's UNETR blocks. Modules carry the names of the authors' state dict.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import nn

from rep3d.config import Rep3DConfig
from rep3d.errors import ConfigError
from rep3d.lrbm import DepthwiseConv3d, LRBMConv3d

__all__ = ["Rep3D", "Rep3DBlock", "Rep3DEncoder"]


class ChannelLayerNorm(nn.Module):
    """Normalises the channels of each voxel of maps (B, C, D, H, W), with a trained weight and bias per channel.

    Args:
        channels: Number of channels C.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not F.layer_norm: it wants the channels last, and bringing them there costs more than the arithmetic.
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = x - x.mean(1, keepdim=True)
        scale = (centred.square().mean(1, keepdim=True) + self.eps).rsqrt()
        per_channel = (-1, 1, 1, 1)
        normalised = torch.addcmul(self.bias.view(per_channel), centred * scale, self.weight.view(per_channel))
        return normalised.to(self.weight.dtype)


class Rep3DBlock(nn.Module):
    """Large-kernel depthwise convolution -> BatchNorm -> GELU.

    Args:
        channels: Number of channels.
        config: Settings of the network; the block uses those of the kernel and its mask.
    """

    dwconv: LRBMConv3d | DepthwiseConv3d
    norm: nn.BatchNorm3d | nn.Identity

    def __init__(self, channels: int, config: Rep3DConfig) -> None:
        super().__init__()
        self.dwconv = LRBMConv3d(
            channels,
            config.kernel_size,
            spatial_prior=config.spatial_prior,
            generator=config.generator,
            prior_scale=config.prior_scale,
            generator_kernel=config.generator_kernel,
            generator_depth=config.generator_depth,
        )
        self.norm = nn.BatchNorm3d(channels)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, D, H, W) to the same shape."""
        return self.act(self.norm(self.dwconv(x)))


class Rep3DEncoder(nn.Module):
    """Four stages of blocks at 1/2, 1/4, 1/8 and 1/16 of the input's resolution.

    Args:
        config: Settings of the network.
    """

    def __init__(self, config: Rep3DConfig) -> None:
        super().__init__()
        dims = config.dims
        stem = nn.Sequential(
            nn.Conv3d(config.in_channels, dims[0], kernel_size=7, stride=2, padding=3), ChannelLayerNorm(dims[0])
        )
        self.downsample_layers = nn.ModuleList([stem])
        for narrow, wide in zip(dims[:-1], dims[1:], strict=True):
            self.downsample_layers.append(
                nn.Sequential(ChannelLayerNorm(narrow), nn.Conv3d(narrow, wide, kernel_size=2, stride=2))
            )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Rep3DBlock(channels, config) for _ in range(depth)))
            for channels, depth in zip(dims, config.depths, strict=True)
        )
        for stage, channels in enumerate(dims):
            self.add_module(f"norm{stage}", ChannelLayerNorm(channels))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps an image (B, in_channels, D, H, W) to the stage outputs (B, dims[i], D / 2^(i+1), ...), normalised."""
        outputs = []
        for index, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(downsample(x))
            outputs.append(self.get_submodule(f"norm{index}")(x))
        return outputs


class Rep3D(nn.Module):
    """The whole network: image to logits of the same size.

    Attributes:
        config: The settings it was built from.
        stride: Voxels of the input per voxel of the deepest stage; each side of an input is a multiple of it.

    Args:
        config: Settings of the network.
    """

    stride = 16

    def __init__(self, config: Rep3DConfig) -> None:
        super().__init__()
        self.config = config
        dims, hidden = config.dims, config.hidden_size
        self.rep3d = Rep3DEncoder(config)
        self.encoder1 = _residual_block(config.in_channels, dims[0])
        self.encoder2 = _residual_block(dims[0], dims[1])
        self.encoder3 = _residual_block(dims[1], dims[2])
        self.encoder4 = _residual_block(dims[2], dims[3])
        self.encoder5 = _residual_block(dims[3], hidden)
        self.decoder5 = _upsampling_block(hidden, dims[3])
        self.decoder4 = _upsampling_block(dims[3], dims[2])
        self.decoder3 = _upsampling_block(dims[2], dims[1])
        self.decoder2 = _upsampling_block(dims[1], dims[0])
        self.decoder1 = _residual_block(dims[0], dims[0])
        self.out = UnetOutBlock(spatial_dims=3, in_channels=dims[0], out_channels=config.out_channels)

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Maps an image (B, in_channels, D, H, W) to the four stage outputs (B, dims[i], D / 2^(i+1), ...).

        Raises:
            ConfigError: If the image has the wrong rank, channel count or size.
        """
        self._check_input(x)
        return self.rep3d(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps an image (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

        Raises:
            ConfigError: If the image has the wrong rank, channel count or size.
        """
        half, quarter, eighth, sixteenth = self.encode(x)
        up = self._deepest_level(sixteenth, eighth)
        up = self.decoder4(up, self.encoder3(quarter))
        up = self.decoder3(up, self.encoder2(half))
        up = self.decoder2(up, self.encoder1(x))
        return self.out(self.decoder1(up))

    def _deepest_level(self, sixteenth: torch.Tensor, eighth: torch.Tensor) -> torch.Tensor:
        """The decoder's first step, in the weights' precision on a CPU, also under autocast.

        On maps of one or two voxels a side, oneDNN's bfloat16 weight gradient reads memory that was never written (NaN
        in one run of ten with PyTorch 2.13). These maps are so small that lower precision would save nothing.
        """
        if sixteenth.device.type != "cpu":
            return self.decoder5(self.encoder5(sixteenth), self.encoder4(eighth))
        dtype = self.decoder5.transp_conv.conv.weight.dtype
        with torch.autocast("cpu", enabled=False):
            return self.decoder5(self.encoder5(sixteenth.to(dtype)), self.encoder4(eighth.to(dtype)))

    def _check_input(self, x: torch.Tensor) -> None:
        shape = tuple(x.shape)
        if len(shape) != 5 or shape[1] != self.config.in_channels:
            raise ConfigError(
                f"Rep3D: expected an image of shape (B, {self.config.in_channels}, D, H, W), got {shape};"
                " add the missing axes or build the network with other in_channels."
            )
        if any(side == 0 or side % self.stride for side in shape[2:]) or max(shape[2:]) < 2 * self.stride:
            raise ConfigError(
                f"Rep3D: expected sides that are multiples of {self.stride}, at least one of them {2 * self.stride} or"
                f" more (the deepest stage is normalised over its voxels), got {shape[2:]}; pad the image."
            )


def _residual_block(in_channels: int, out_channels: int) -> UnetrBasicBlock:
    """Two 3^3 convolutions with instance norm and a residual path."""
    return UnetrBasicBlock(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        stride=1,
        norm_name="instance",
        res_block=True,
    )


def _upsampling_block(in_channels: int, out_channels: int) -> UnetrUpBlock:
    """Doubles the resolution, concatenates the skip connection, and applies a residual block."""
    return UnetrUpBlock(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=3,
        upsample_kernel_size=2,
        norm_name="instance",
        res_block=True,
    )
