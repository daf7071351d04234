"""Turns a trained network into its deployed form; in Rep3D every block becomes depthwise convolution -> GELU.

The mask is multiplied into the kernel and BatchNorm, which in evaluation is a fixed scale and shift per channel, into
the kernel and a bias. The mask generators are gone. The folded network equals the trained one in eval mode up to
rounding.
"""

from __future__ import annotations

import copy as copying
from collections.abc import Callable
from typing import TypeVar, cast

import torch
from torch import nn

from rep3d.nn.csla import CSLAConv3d
from rep3d.nn.lrbm import DepthwiseConv3d, LRBMConv3d
from rep3d.nn.rep3d import Rep3DBlock

__all__ = ["reparameterize", "replace_modules"]


_Model = TypeVar("_Model", bound=nn.Module)


def reparameterize(model: _Model, copy: bool = True) -> _Model:
    """Fold masks, branches and batch norms into the large kernels, anywhere in a model, and put it in eval mode.

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
        folded = cast(_Model, replace_modules(folded, _deployed))  # a convolution stays one, of another class
    return folded.eval()


def _fold_block(block: Rep3DBlock) -> None:
    if isinstance(block.norm, nn.Identity):
        return
    block.dwconv = _fold_batch_norm(block.dwconv, block.norm)
    block.norm = nn.Identity()


def _fold_batch_norm(conv: LRBMConv3d | CSLAConv3d | DepthwiseConv3d, norm: nn.BatchNorm3d) -> DepthwiseConv3d:
    """Return the convolution that equals ``norm(conv(x))`` in eval mode; computed in float64, rounded once."""
    weight = conv.effective_weight()
    running_mean, running_var = norm.running_mean, norm.running_var
    assert running_mean is not None and running_var is not None, "a Rep3DBlock's BatchNorm tracks statistics"
    scale = norm.weight.double() / (running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - running_mean.double() * scale
    bias = getattr(conv, "bias", None)
    if bias is not None:
        shift = shift + bias.double() * scale
    return DepthwiseConv3d.from_weight((weight.double() * scale.view(-1, 1, 1, 1, 1)).to(weight), shift)


def _deployed(module: nn.Module) -> nn.Module | None:
    """Return the deployed form of a masked or two-branch convolution, None for any other module."""
    return module.deployed() if isinstance(module, (LRBMConv3d, CSLAConv3d)) else None


def replace_modules(root: nn.Module, replacement_of: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace modules anywhere in a model, in place; one that is used at several places stays one module.

    Args:
        root: The model.
        replacement_of: Called once for each module, from the outside in: returns what to put in its place, or None to
            keep it and look inside.

    Returns:
        The model: ``root``, or its replacement.
    """
    visited: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module) -> nn.Module:
        if module not in visited:
            replacement = replacement_of(module)
            visited[module] = module if replacement is None else replacement
            if replacement is None:
                # Not `named_children`: it passes over the second name of a child that has two.
                for name, child in list(module._modules.items()):
                    if child is not None and visit(child) is not child:
                        setattr(module, name, visited[child])
        return visited[module]

    return visit(root)
