"""Turns a trained Rep3D into its deployed form: every block becomes depthwise convolution -> GELU.

The mask is multiplied into the kernel and BatchNorm, which in evaluation is a fixed scale and shift per channel, into
the kernel and a bias. The mask generators are gone. The folded network equals the trained one in eval mode up to
rounding.
"""

from __future__ import annotations

import copy as copying

import torch
from torch import nn

from rep3d.csla import CSLAConv3d
from rep3d.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.network import Rep3DBlock

__all__ = ["reparameterize"]


def reparameterize(model: nn.Module, copy: bool = True) -> nn.Module:
    """Folds masks, branches and batch norms into the large kernels, anywhere in a model, and puts it in eval mode.

    Folding a folded model changes nothing.

    Args:
        model: Any module, for instance a `Rep3D` or one of its blocks.
        copy: Whether to leave ``model`` as it is and fold a deep copy. Without a copy the model cannot be trained as
            before; a model that is itself a single convolution to fold is returned as a new module in either case.

    Returns:
        The folded model, in eval mode.
    """
    folded = copying.deepcopy(model) if copy else model
    with torch.no_grad():
        for block in [module for module in folded.modules() if isinstance(module, Rep3DBlock)]:
            _fold_block(block)
        folded = _replace_convolutions(folded)
    return folded.eval()


def _fold_block(block: Rep3DBlock) -> None:
    if isinstance(block.norm, nn.Identity):
        return
    block.dwconv = _fold_batch_norm(block.dwconv, block.norm)
    block.norm = nn.Identity()


def _fold_batch_norm(conv: LRBMConv3d | CSLAConv3d | DepthwiseConv3d, norm: nn.BatchNorm3d) -> DepthwiseConv3d:
    """Returns the convolution that equals ``norm(conv(x))`` in eval mode; computed in float64, rounded once."""
    weight = conv.effective_weight()
    running_mean, running_var = norm.running_mean, norm.running_var
    assert running_mean is not None and running_var is not None, "a Rep3DBlock's BatchNorm tracks statistics"
    scale = norm.weight.double() / (running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - running_mean.double() * scale
    bias = getattr(conv, "bias", None)
    if bias is not None:
        shift = shift + bias.double() * scale
    return DepthwiseConv3d.from_weight((weight.double() * scale.view(-1, 1, 1, 1, 1)).to(weight), shift)


def _replace_convolutions(module: nn.Module) -> nn.Module:
    """Returns the module with every masked or two-branch convolution left in it replaced by its deployed form."""
    if isinstance(module, (LRBMConv3d, CSLAConv3d)):
        return module.deployed()
    for name, child in module.named_children():
        replacement = _replace_convolutions(child)
        if replacement is not child:
            setattr(module, name, replacement)
    return module
