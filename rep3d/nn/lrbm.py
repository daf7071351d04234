"""Low-rank Receptive Bias Modeling (LRBM): a large depthwise kernel with a learned field of learning rates.

A large kernel that is trained as it is converges fast at its centre and slowly at its rim. Rep3D (Lee et al., arXiv
2505.19603) multiplies the trained kernel W by a mask M before it convolves ::

    P[k]  = beta / (|k - c|^g + beta)     prior: decays with the distance of tap k from the centre c; g = beta = 1
    M     = P + f_theta(P)                mask: the prior, corrected by a small generator
    W_eff = W * M                         what the convolution uses

Since dL/dW = M * dL/dW_eff, a gradient step on W with rate lr moves tap k of W_eff by lr * M[k]^2 * dL/dW_eff[k]: the
mask is a learning rate for each tap. W and theta are ordinary parameters of the one optimizer; nothing is assigned in
`forward`. After training, `rep3d.nn.fold` multiplies the mask into the kernel for good.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.config import GENERATORS, SPATIAL_PRIORS, require_one_of
from rep3d.nn.fastconv.conv3d import depthwise_conv3d

__all__ = ["DepthwiseConv3d", "LRBMConv3d", "MaskGenerator", "distance_prior"]


def distance_prior(kernel_size: int, scale: float = 1.0, exponent: float = 1.0) -> torch.Tensor:
    """Return beta / (distance to the centre ^ g + beta) for each tap: 1 at the centre, decaying outwards.

    The paper's text has g = 1 and varies beta; its published code has beta = 1 and varies g.

    Args:
        kernel_size: Side K of the kernel, odd.
        scale: beta; with g = 1 the distance, in taps, at which the prior has fallen to one half.
        exponent: g.

    Returns:
        Shape (K, K, K), float64, on the CPU; positive everywhere.

    Raises:
        ConfigError: If the kernel is even, or the scale or the exponent not a positive finite number.
    """
    _require_odd("distance_prior", "kernel size", kernel_size)
    if not 0 < scale < math.inf:
        raise ConfigError(f"distance_prior: expected a positive finite scale, got {scale!r}.")
    if not 0 < exponent < math.inf:
        raise ConfigError(f"distance_prior: expected a positive finite exponent, got {exponent!r}.")
    offset = torch.arange(kernel_size, dtype=torch.float64, device="cpu") - kernel_size // 2
    distance = (offset[:, None, None] ** 2 + offset[None, :, None] ** 2 + offset[None, None, :] ** 2).sqrt()
    return scale / (distance**exponent + scale)


class MaskGenerator(nn.Module):
    """The network f_theta that corrects the prior: convolution -> LayerNorm -> sigmoid -> convolution -> LayerNorm.

    LayerNorm runs over the K^3 taps of a mask. The last one starts with weight and bias zero, so the correction starts
    at exactly zero and training at the fixed prior; its weight and bias learn from the first step on, everything before
    it from the second. The convolutions have no bias: normalising would take it out again.

    Args:
        channels: Masks to generate.
        kernel_size: Side K of a mask, odd.
        generator_kernel: Side of the convolutions, odd.
        depth: Number of convolution + LayerNorm stages, a sigmoid between any two.

    Raises:
        ConfigError: If a kernel side is even, or there is no stage.
    """

    def __init__(self, channels: int, kernel_size: int, generator_kernel: int = 7, depth: int = 2) -> None:
        super().__init__()
        if depth < 1:
            raise ConfigError(f"MaskGenerator: expected a depth of at least one stage, got {depth}.")
        mask_shape = (kernel_size,) * 3
        self.convs = nn.ModuleList(DepthwiseConv3d(channels, generator_kernel, bias=False) for _ in range(depth))
        norms = [nn.LayerNorm(mask_shape) for _ in range(depth)]
        nn.init.zeros_(norms[-1].weight)
        self.norms = nn.ModuleList(norms)

    def forward(self, prior: torch.Tensor) -> torch.Tensor:
        """Map the prior, shape (1, C, K, K, K), to its correction, same shape."""
        hidden = prior
        for stage, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if stage > 0:
                hidden = torch.sigmoid(hidden)
            hidden = norm(conv(hidden))
        return hidden


class DepthwiseConv3d(nn.Module):
    """A depthwise convolution that keeps the map's shape, by `depthwise_conv3d`; also the deployed form of LRBM.

    Args:
        channels: Number of channels C.
        kernel_size: Side K of the kernels, odd.
        bias: Whether to add a trained constant to each channel.

    Raises:
        ConfigError: If the kernel side is even.
    """

    def __init__(self, channels: int, kernel_size: int, bias: bool = True) -> None:
        super().__init__()
        _require_odd("DepthwiseConv3d", "kernel size", kernel_size)
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        _init_unit_gain(self.weight, gain=kernel_size**3)

    @classmethod
    def from_weight(cls, weight: torch.Tensor, bias: torch.Tensor | None) -> DepthwiseConv3d:
        """Return a convolution with copies of a kernel (C, 1, K, K, K) and, if given, a bias (C,).

        Raises:
            ConfigError: If the kernel is not of that shape, or K even.
        """
        _require_cubic(cls.__name__, weight)
        conv = cls(weight.shape[0], weight.shape[-1], bias=bias is not None).to(weight)
        _copy_into(conv, weight, bias)
        return conv

    def effective_weight(self) -> torch.Tensor:
        """Return the kernel that the convolution uses, shape (C, 1, K, K, K): the weight itself."""
        return self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve maps (B, C, D, H, W)."""
        return depthwise_conv3d(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, bias={self.bias is not None}"


class LRBMConv3d(nn.Module):
    """A depthwise convolution whose kernel is modulated by a fixed or learned spatial mask.

    Args:
        channels: Number of channels C.
        kernel_size: Side K of the kernels, odd.
        spatial_prior: ``learned``, ``fixed`` or ``none``; see `rep3d.nn.config.Rep3DConfig`.
        generator: ``shared`` (one mask for all channels) or ``depthwise`` (one for each).
        prior_scale: beta of the prior.
        prior_exponent: g of the prior.
        generator_kernel: Side of the generator's convolutions, odd.
        generator_depth: Stages of the generator.
        bias: Whether to add a trained constant to each channel; pointless before a BatchNorm.

    Raises:
        ConfigError: If ``spatial_prior`` or ``generator`` is unknown, a kernel side even, the scale of the prior not
            positive, or the generator without a stage.
    """

    prior: torch.Tensor | None

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        spatial_prior: str = "learned",
        generator: str = "shared",
        prior_scale: float = 1.0,
        prior_exponent: float = 1.0,
        generator_kernel: int = 7,
        generator_depth: int = 2,
        bias: bool = False,
    ) -> None:
        super().__init__()
        require_one_of("spatial_prior", spatial_prior, SPATIAL_PRIORS)
        require_one_of("generator", generator, GENERATORS)
        self.spatial_prior = spatial_prior
        prior = distance_prior(kernel_size, prior_scale, prior_exponent)
        masks = channels if spatial_prior == "learned" and generator == "depthwise" else 1
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.generator = (
            MaskGenerator(masks, kernel_size, generator_kernel, generator_depth) if spatial_prior == "learned" else None
        )
        fixed = None if spatial_prior == "none" else prior.to(self.weight).expand(1, masks, -1, -1, -1).clone()
        self.register_buffer("prior", fixed, persistent=False)  # not in the state dict: the settings determine it
        _init_unit_gain(self.weight, gain=kernel_size**3 if fixed is None else prior.square().sum().item())

    @classmethod
    def from_weight(cls, weight: torch.Tensor, bias: torch.Tensor | None, **settings: Any) -> LRBMConv3d:
        """Return a layer that starts as the convolution with a given kernel: W is the kernel divided by the mask.

        At the start the mask is the prior, positive everywhere, so the division is safe.

        Args:
            weight: The kernel that the layer is to use at first, shape (C, 1, K, K, K); copied.
            bias: Optional, shape (C,); copied.
            **settings: Those of the class, from ``spatial_prior`` to ``generator_depth``.

        Raises:
            ConfigError: As the class does, or if the kernel has another shape.
        """
        _require_cubic(cls.__name__, weight)
        layer = cls(weight.shape[0], weight.shape[-1], **settings, bias=bias is not None).to(weight)
        start = weight if layer.prior is None else weight.double() / layer.prior.transpose(0, 1).double()
        _copy_into(layer, start, bias)
        return layer

    def mask(self) -> torch.Tensor | None:
        """Return M, shape (1 or C, 1, K, K, K), or None where the kernel is used as it is."""
        if self.prior is None:
            return None
        if self.generator is None:
            return self.prior.transpose(0, 1)
        # The mask scales every later update of the kernel: rounding it to half precision would be felt.
        with torch.autocast(self.prior.device.type, enabled=False):
            return (self.prior + self.generator(self.prior)).transpose(0, 1)

    def effective_weight(self) -> torch.Tensor:
        """Return W_eff, shape (C, 1, K, K, K): the kernel to deploy."""
        mask = self.mask()
        return self.weight if mask is None else self.weight * mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve maps (B, C, D, H, W)."""
        return depthwise_conv3d(x, self.effective_weight(), self.bias)

    def deployed(self) -> DepthwiseConv3d:
        """Return the plain convolution with the mask multiplied in; shares nothing with this module."""
        return DepthwiseConv3d.from_weight(self.effective_weight(), self.bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}, spatial_prior={self.spatial_prior!r}"


def _require_odd(owner: str, name: str, side: int) -> None:
    if side < 1 or side % 2 == 0:
        raise ConfigError(f"{owner}: expected an odd {name} (a kernel has a centre), got {side}.")


def _require_cubic(owner: str, weight: torch.Tensor) -> None:
    if weight.dim() != 5 or weight.shape[1] != 1 or len(set(weight.shape[2:])) != 1:
        raise ConfigError(f"{owner}: expected a kernel of shape (C, 1, K, K, K), got {tuple(weight.shape)}.")


@torch.no_grad()
def _copy_into(layer: DepthwiseConv3d | LRBMConv3d, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)


def _init_unit_gain(weight: torch.Tensor, gain: float) -> None:
    """Draw a kernel so that, once masked, it turn unit-variance noise into unit-variance noise.

    The taps are independent, so the output variance is the sum over k of var(W[k]) * M[k]^2. Every W[k] gets the same
    variance; the mask alone shapes the kernel.

    Args:
        weight: Kernels, overwritten.
        gain: Sum over the taps of the squared mask.
    """
    nn.init.normal_(weight, std=1 / math.sqrt(gain))
