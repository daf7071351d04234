"""RepOptimizer for space: a plain kernel trained with a fixed learning rate for each tap, instead of a mask on it.

RepOptimizer (Ding et al., arXiv 2205.15242) moves the structure of a re-parameterised block into the optimizer, which
multiplies each gradient by a constant field. Rep3D (Lee et al., arXiv 2505.19603) compares with it. For a kernel W'
that stands for the masked one, W' = M W with a fixed mask M, the two are the same training if the field fits the
optimizer ::

    SGD, also with momentum    scale="gradient", field M^2    equal, for any number of steps
    AdamW, Adam                scale="update",   field M      equal, as far as Adam's eps is negligible

Adam divides the mean of the gradients by the root of their mean square, and a constant factor drops out of that ratio:
scaling the gradient does nothing there, but through eps. So with Adam it is the step itself that has to be scaled.

Weight decay: SGD adds ``decay * W'`` to the gradient after it was scaled, so decay is not scaled; neither is it with a
mask, and the equality stands. AdamW's decay is a part of the step, so with ``scale="update"`` a tap decays by
``lr * decay * field`` of its weight; with a mask each tap decays by ``lr * decay``. Where that matters, put the kernels
in a parameter group without decay. Adam's own ``weight_decay`` goes through the ratio and has no counterpart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.convert import MIN_KERNEL_SIZE, depthwise_convolutions
from rep3d.nn.lrbm import LRBMConv3d, distance_prior

__all__ = ["SCALES", "prior_fields", "scale_steps"]

SCALES = ("gradient", "update")

Fields = Mapping[torch.Tensor, torch.Tensor]
_Optimizer = TypeVar("_Optimizer", bound=torch.optim.Optimizer)


def prior_fields(module: nn.Module, power: int) -> dict[torch.Tensor, torch.Tensor]:
    """Return the field of the fixed prior, P ** power, for each large depthwise kernel of a network.

    Args:
        module: A network with plain kernels, for instance a `rep3d.nn.rep3d.Rep3D` with the spatial prior ``none``.
        power: 2 to scale gradients for SGD, 1 to scale updates for Adam or AdamW; see the head of this module.

    Returns:
        For each kernel (C, 1, K, K, K), its field of shape (1, 1, K, K, K), of its type and on its device.

    Raises:
        ConfigError: If there is no such kernel. Kernels with a mask of their own are not counted.
    """
    unmasked = [part for part in module.modules() if isinstance(part, LRBMConv3d) and part.prior is None]
    convolutions = (*unmasked, *depthwise_convolutions(module))
    kernels = [conv.weight for conv in convolutions if conv.weight.shape[-1] >= MIN_KERNEL_SIZE]
    if not kernels:
        raise ConfigError(
            f"{type(module).__name__}: expected plain depthwise kernels of side {MIN_KERNEL_SIZE} or more to scale the"
            " steps of, found none; masked kernels (LRBM) have their field already."
        )
    return {kernel: distance_prior(kernel.shape[-1]).pow(power).to(kernel)[None, None] for kernel in kernels}


def scale_steps(optimizer: _Optimizer, fields: Fields, scale: str = "gradient") -> _Optimizer:
    """Make an optimizer train some of its parameters with a learning rate for each element.

    It stays the optimizer it is: parameter groups, state dict, schedulers and gradient scalers work as before. The
    fields are not in its state dict, and a copied or unpickled optimizer has lost them: call this again on that one.
    Two calls on one optimizer scale twice. If a step raises, the gradients stay scaled: clear them before the next one.

    With ``gradient``, each step sees the gradient times the field; the parameter's ``grad`` itself is put back after
    the step. A closure's gradients are scaled each time the optimizer calls it. (Not for LBFGS, which measures the
    descent along the gradient.) With ``update``, whatever a step does to the parameter, decay included, is scaled:
    ``p = p_old + field * (p_new - p_old)``.

    Args:
        optimizer: Any PyTorch optimizer; changed.
        fields: For parameters of the optimizer, a field that broadcasts to their shape.
        scale: ``gradient`` (for SGD) or ``update`` (for Adam and AdamW); see the head of this module.

    Returns:
        The optimizer.

    Raises:
        ConfigError: If ``scale`` is unknown, or a field does not fit its parameter, is not finite, or belongs to a
            parameter that the optimizer does not train.
    """
    if scale not in SCALES:
        raise ConfigError(f"scale: expected one of {list(SCALES)}, got {scale!r}.")
    _check_fields(optimizer, fields)
    scaling = _GradientScaling(fields) if scale == "gradient" else _UpdateScaling(fields)
    optimizer.register_step_pre_hook(scaling.before_step)
    optimizer.register_step_post_hook(scaling.after_step)
    return optimizer


class _GradientScaling:
    """Lends the optimizer scaled gradients for the time of a step."""

    def __init__(self, fields: Fields) -> None:
        self._fields = dict(fields)
        self._own: dict[torch.Tensor, torch.Tensor] = {}

    def before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._lend()
            return None

        def scaled_closure() -> Any:
            loss = closure()
            self._lend()
            return loss

        return args[:1], {**kwargs, "closure": scaled_closure}

    def after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for parameter, gradient in self._own.items():
            parameter.grad = gradient
        self._own.clear()

    def _lend(self) -> None:
        for parameter, field in self._fields.items():
            if parameter.grad is not None:
                self._own[parameter] = parameter.grad
                parameter.grad = parameter.grad * field.to(parameter.grad)


class _UpdateScaling:
    """Takes back a share of what a step did."""

    def __init__(self, fields: Fields) -> None:
        self._fields = dict(fields)
        self._old: dict[torch.Tensor, torch.Tensor] = {}

    def before_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._old = {parameter: parameter.detach().clone() for parameter in self._fields}

    def after_step(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with torch.no_grad():
            for parameter, old in self._old.items():
                parameter.copy_(old + self._fields[parameter].to(old) * (parameter - old))
        self._old.clear()


def _check_fields(optimizer: torch.optim.Optimizer, fields: Fields) -> None:
    if not fields:
        raise ConfigError("fields: expected a field for at least one parameter, got none.")
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    for parameter, field in fields.items():
        shape, wanted = tuple(field.shape), tuple(parameter.shape)
        if parameter not in trained:
            raise ConfigError(
                f"fields: expected parameters that the optimizer trains, got another one of shape {wanted}; build the"
                " optimizer from the same network, after all conversions."
            )
        fits = len(shape) <= len(wanted) and all(a in (1, b) for a, b in zip(shape[::-1], wanted[::-1], strict=False))
        if not fits or not bool(torch.isfinite(field).all()):
            raise ConfigError(f"fields: expected finite values that broadcast to shape {wanted}, got {shape}.")
