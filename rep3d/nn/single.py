"""Small 3D convolutions of a single patch, as fast on a CPU as those of two.

For one image whose channels x depth x height are 20,480 or fewer, PyTorch leaves oneDNN aside and takes a way that was
two to four times slower for the 3^3 convolutions of these networks (``benchmarks/single_patch.py``). Cut into halves
that overlap by what a kernel sees, the image is a batch of two, which oneDNN gets, and the result is the same.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from rep3d.nn.fold import replace_modules

__all__ = ["SinglePatchConv3d", "for_single_patches"]

_LEFT_ASIDE = 20_480  # channels x depth x height; `ConvParams::use_mkldnn` in PyTorch's Convolution.cpp


class SinglePatchConv3d(nn.Conv3d):
    """A 3^3 convolution with padding 1; see the module."""

    @classmethod
    def of(cls, conv: nn.Conv3d) -> SinglePatchConv3d:
        """Return one with the very parameters of a convolution."""
        new = cls(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None, device="meta")
        new.weight, new.bias = conv.weight, conv.bias
        return new

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (1, C, D, H, W) or a batch to the same shape with other channels."""
        depth = x.shape[2]
        small = len(x) == 1 and x.shape[1] * depth * x.shape[3] <= _LEFT_ASIDE
        if not small or depth < 4 or depth % 2 or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        padded = functional.pad(x, (0, 0, 0, 0, 1, 1))
        halves = torch.cat([padded[:, :, : depth // 2 + 2], padded[:, :, depth // 2 :]])
        first, second = functional.conv3d(halves, self.weight, self.bias, padding=(0, 1, 1)).split(1)
        return torch.cat([first, second], 2)


def for_single_patches(network: nn.Module) -> nn.Module:
    """Replace the 3^3 convolutions of a network, in place; names, parameters and results stay."""

    def replacement(module: nn.Module) -> nn.Module | None:
        if type(module) is not nn.Conv3d or module.groups != 1 or module.padding_mode != "zeros":
            return None
        shape = (module.kernel_size, module.stride, module.padding, module.dilation)
        return SinglePatchConv3d.of(module) if shape == ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)) else None

    return replace_modules(network, replacement)
