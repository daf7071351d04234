"""Puts Rep3D's convolutions into other networks: LRBM by `apply_lrbm`, the fast plain one by `apply_fast_conv`.

Both look for the large depthwise convolutions of a network and replace each by a layer that computes the same function,
so pretrained weights survive. The paper does this to 3D UX-Net (Lee et al., arXiv 2505.19603); MedNeXt's blocks qualify
as well. After training, `rep3d.nn.fold.reparameterize` makes plain convolutions of the LRBM ones.

Make the optimizer after the conversion: LRBM's parameters are new ones.
"""

from __future__ import annotations

import copy as copying
from collections.abc import Callable
from typing import TypeGuard

from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.fold import replace_modules
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d

__all__ = ["MIN_KERNEL_SIZE", "apply_fast_conv", "apply_lrbm", "depthwise_convolutions"]

MIN_KERNEL_SIZE = 5
"""The smallest kernel that is taken for a large one.

LRBM makes up for the rim of a kernel learning more slowly than its 3^3 core, the footprint of the small kernel in the
two-branch blocks it replaces. A 3^3 kernel has no such rim.
"""

DepthwiseConvolution = nn.Conv3d | DepthwiseConv3d


def apply_lrbm(
    module: nn.Module,
    *,
    spatial_prior: str = "learned",
    generator: str = "shared",
    prior_scale: float = 1.0,
    prior_exponent: float = 1.0,
    generator_kernel: int = 7,
    generator_depth: int = 2,
    min_kernel_size: int = MIN_KERNEL_SIZE,
    copy: bool = True,
) -> nn.Module:
    """Put a learning-rate mask (LRBM) on the large depthwise convolutions of any network.

    Taken are those of `depthwise_convolutions`; LRBM convolutions already there stay as they are, also those whose
    spatial prior is ``none``. At the moment of conversion the network computes what it did before, up to rounding: the
    trained kernel W starts as the old kernel divided by the prior. Biases, type, device, train mode and frozen
    parameters are kept; a module used at several places stays one module.

    Args:
        module: The network, or a single convolution.
        spatial_prior: ``learned``, ``fixed`` or ``none``; this and the next five as in `rep3d.nn.lrbm.LRBMConv3d`.
        generator: ``shared`` (one mask for all channels) or ``depthwise`` (one for each).
        prior_scale: beta of the prior.
        prior_exponent: g of the prior.
        generator_kernel: Side of the generator's convolutions, odd.
        generator_depth: Stages of the generator.
        min_kernel_size: Smallest kernel side to convert.
        copy: Whether to leave ``module`` as it is and convert a deep copy.

    Returns:
        The converted network. A ``module`` that is itself a convolution to convert is returned as a new module in
        either case.

    Raises:
        ConfigError: If there is nothing to convert and nothing converted already, or a setting is impossible.
    """

    def masked(conv: DepthwiseConvolution) -> nn.Module:
        return LRBMConv3d.from_weight(
            conv.weight,
            conv.bias,
            spatial_prior=spatial_prior,
            generator=generator,
            prior_scale=prior_scale,
            prior_exponent=prior_exponent,
            generator_kernel=generator_kernel,
            generator_depth=generator_depth,
        )

    return _convert(module, masked, LRBMConv3d, min_kernel_size, copy)


def apply_fast_conv(module: nn.Module, *, min_kernel_size: int = MIN_KERNEL_SIZE, copy: bool = True) -> nn.Module:
    """Let the large depthwise convolutions of any network compute by `rep3d.nn.fastconv.conv3d.depthwise_conv3d`.

    The values and the names in the state dict stay the same; large kernels train many times faster.

    Args:
        module: The network, or a single convolution.
        min_kernel_size: Smallest kernel side to convert.
        copy: Whether to leave ``module`` as it is and convert a deep copy.

    Returns:
        The converted network; see `apply_lrbm`.

    Raises:
        ConfigError: If there is nothing to convert and nothing converted already.
    """

    def fast(conv: DepthwiseConvolution) -> nn.Module:
        return DepthwiseConv3d.from_weight(conv.weight, conv.bias)

    return _convert(module, fast, DepthwiseConv3d, min_kernel_size, copy)


def depthwise_convolutions(module: nn.Module, min_kernel_size: int = MIN_KERNEL_SIZE) -> list[DepthwiseConvolution]:
    """Find the large depthwise convolutions of a network that keep the shape of their maps.

    These are each `torch.nn.Conv3d` (no subclass, no hooks, no parametrisation: those compute something else) with
    groups == in_channels == out_channels, an odd cubic kernel, stride 1, dilation 1 and 'same' zero padding, and each
    `rep3d.nn.lrbm.DepthwiseConv3d`. The insides of LRBM and CSLA convolutions are their own affair and not listed.

    Args:
        module: The network, or a single convolution.
        min_kernel_size: Smallest kernel side to list.

    Returns:
        The convolutions in the order of `torch.nn.Module.modules`, each once.
    """
    found: dict[DepthwiseConvolution, None] = {}

    def visit(part: nn.Module) -> None:
        if isinstance(part, (LRBMConv3d, CSLAConv3d)):
            return
        if _keeps_shape_depthwise(part):
            if part.weight.shape[-1] >= min_kernel_size:
                found[part] = None
            return
        for child in part.children():
            visit(child)

    visit(module)
    return list(found)


def _keeps_shape_depthwise(module: nn.Module) -> TypeGuard[DepthwiseConvolution]:
    if isinstance(module, DepthwiseConv3d):
        return True
    if type(module) is not nn.Conv3d or module._forward_pre_hooks or module._forward_hooks:
        return False
    side = module.kernel_size[0]
    return (
        module.groups == module.in_channels == module.out_channels
        and side % 2 == 1
        and module.kernel_size == (side,) * 3
        and module.stride == module.dilation == (1, 1, 1)
        and module.padding in ("same", (side // 2,) * 3)
        and module.padding_mode == "zeros"
    )


def _convert(
    module: nn.Module,
    converted: Callable[[DepthwiseConvolution], nn.Module],
    target: type[nn.Module],
    min_kernel_size: int,
    copy: bool,
) -> nn.Module:
    """Replace the large depthwise convolutions of a network that are not of type ``target`` already."""
    network = copying.deepcopy(module) if copy else module
    convolutions = [conv for conv in depthwise_convolutions(network, min_kernel_size) if type(conv) is not target]
    if not convolutions and not any(isinstance(part, target) for part in network.modules()):
        others = sum(isinstance(part, nn.Conv3d) for part in network.modules())
        raise ConfigError(
            f"{type(module).__name__}: expected depthwise 3D convolutions to convert (groups == in_channels =="
            f" out_channels, cubic odd kernel of side {min_kernel_size} or more, stride 1, dilation 1, 'same' zero"
            f" padding), found {others} nn.Conv3d of other kinds; lower min_kernel_size or take another network."
        )
    wanted = set(convolutions)

    def replacement_of(part: nn.Module) -> nn.Module | None:
        if part not in wanted:
            return None
        layer = converted(part).train(part.training)
        for parameter in layer.parameters():
            parameter.requires_grad_(part.weight.requires_grad)  # a frozen kernel has a frozen mask
        if part.bias is not None:
            layer.bias.requires_grad_(part.bias.requires_grad)
        return layer

    return replace_modules(network, replacement_of)
