"""The two-branch block that Rep3D's theory starts from: constant-scale linear addition (CSLA) of two kernels.

A block y = a_L (W_L * x) + a_S (W_S * x) with constant scales is, by linearity, one convolution with the merged kernel
W' = a_L W_L + a_S pad(W_S). With G = dL/dW', its branches receive a_L G and, on the small footprint S, a_S G. So
training the branches trains the merged kernel with a learning rate of its own for each tap k (Ding et al., arXiv
2205.15242, for optimizers; Lee et al., arXiv 2505.19603, for space) ::

    SGD    lr_L a_L^2 + lr_S a_S^2 [k in S]    for any number of steps, also with one momentum for both branches
    AdamW  lr_L |a_L| + lr_S |a_S| [k in S]    for any number of steps, as far as Adam's eps is negligible

For AdamW the constant factor drops out of the ratio of moments in every step, not only in the first; what remains is
eps. Measured in float64 (7^3 kernels), the two part by 2e-6, 9e-7 and 7e-5 of the way travelled after 1, 20 and 200
steps with eps = 1e-8, and by less than 1e-12 with eps = 1e-16. Weight decay keeps the equivalence if both branches lose
the same share of their weights in a step: lr_L decay_L = lr_S decay_S.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.fastconv.conv3d import depthwise_conv3d
from rep3d.nn.lrbm import DepthwiseConv3d

__all__ = ["CSLAConv3d", "adamw_field", "sgd_field"]


class CSLAConv3d(nn.Module):
    """A large and a small depthwise convolution, added with constant scales.

    Args:
        channels: Number of channels C.
        kernel_size: Side of the large kernel, odd.
        small_kernel_size: Side of the small kernel, odd and not larger.
        large_scale: a_L.
        small_scale: a_S.

    Raises:
        ConfigError: If a kernel side is even, or the small kernel larger than the large one.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        small_kernel_size: int = 3,
        large_scale: float = 1.0,
        small_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0 or small_kernel_size % 2 == 0 or small_kernel_size > kernel_size:
            raise ConfigError(
                f"CSLAConv3d: expected odd kernel sides, the small one not larger than the large one, got"
                f" kernel_size={kernel_size}, small_kernel_size={small_kernel_size}."
            )
        self.large = DepthwiseConv3d(channels, kernel_size, bias=False)
        self.small = DepthwiseConv3d(channels, small_kernel_size, bias=False)
        self.large_scale = large_scale
        self.small_scale = small_scale

    def effective_weight(self) -> torch.Tensor:
        """Return the merged kernel W', shape (C, 1, K, K, K)."""
        margin = (self.large.weight.shape[-1] - self.small.weight.shape[-1]) // 2
        return self.large_scale * self.large.weight + self.small_scale * F.pad(self.small.weight, (margin,) * 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve maps (B, C, D, H, W), once, with the merged kernel; the branches get their gradients through it."""
        return depthwise_conv3d(x, self.effective_weight())

    def deployed(self) -> DepthwiseConv3d:
        """Return the merged convolution; shares nothing with this module."""
        return DepthwiseConv3d.from_weight(self.effective_weight(), None)


def sgd_field(layer: CSLAConv3d, large_rate: float, small_rate: float) -> torch.Tensor:
    """Return the learning rate of each tap of the merged kernel, shape (K, K, K), when SGD trains the branches."""
    return _field(layer, large_rate * layer.large_scale**2, small_rate * layer.small_scale**2)


def adamw_field(layer: CSLAConv3d, large_rate: float, small_rate: float) -> torch.Tensor:
    """Return the learning rate of each tap of the merged kernel, shape (K, K, K), when AdamW trains the branches."""
    return _field(layer, large_rate * abs(layer.large_scale), small_rate * abs(layer.small_scale))


def _field(layer: CSLAConv3d, everywhere: float, inside: float) -> torch.Tensor:
    """Return `everywhere`, plus `inside` on the footprint of the small kernel."""
    small = torch.full_like(layer.small.weight[0, 0], inside, requires_grad=False)
    margin = (layer.large.weight.shape[-1] - small.shape[-1]) // 2
    return everywhere + F.pad(small, (margin,) * 6)
