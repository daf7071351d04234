"""Depthwise 3D convolution with large kernels: the values of `torch.nn.functional.conv3d`, in a fraction of the time.

PyTorch's own kernel visits every tap for every voxel; at 21^3 taps a backward pass takes minutes on a CPU. Here the
convolution theorem does the work, with short transforms written as matrix products (see `dft`). The result is
exact up to rounding, and rounding is smaller than in the direct sum.

Memory: only the input and the kernel are kept for the backward pass; spectra are computed again. Channels are worked
off in chunks whose spectra fit a processor's cache (see `chunks`). What one call needs besides its result
is bounded by an argument.

The convolution is an operator of PyTorch's (``torch.ops.rep3d.depthwise_conv3d``), so that `torch.compile` and
`torch.export` see one step with a known shape and do not look inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from rep3d.errors import ConfigError
from rep3d.nn.fastconv.chunks import lend_buffers, plan_chunks
from rep3d.nn.fastconv.dft import ConvolutionPlan, SpectralProduct, analyse, plan_convolution, synthesise
from rep3d.nn.fastconv.spectra import SpectrumCache

__all__ = ["depthwise_conv3d"]

CACHED_SPECTRUM_BYTES = 16 << 20  # larger kernel spectra are cheaper to compute in cache than to read from memory
CACHE_BYTES = 256 << 20

_AUTOCAST_TYPES = {torch.float32, torch.bfloat16, torch.float16}  # autocast leaves float64 alone
_SUPPORTED_TYPES = _AUTOCAST_TYPES | {torch.float64}


def depthwise_conv3d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, workspace_bytes: int | None = None
) -> torch.Tensor:
    """Convolve each channel with its own kernel, as ``F.conv3d(x, weight, bias, padding=K // 2, groups=C)``.

    Stride and dilation are 1, the output has the shape of the input and is contiguous. Small or unusual problems, where
    PyTorch's kernel is as fast or the only one, are handed to it. float16 and bfloat16 (also under autocast) are
    computed in float32 and rounded once at the end. There is no second derivative.

    Outside autograd, the spectrum of a `torch.nn.Parameter` is kept for the next call with the same map shape, until
    the parameter changes or dies (on a GPU only if it is frozen, ``requires_grad`` off).

    Args:
        x: Maps, shape (B, C, D, H, W).
        weight: Kernels, shape (C, 1, Kz, Ky, Kx), each side odd.
        bias: Optional, shape (C,).
        workspace_bytes: Bound on the memory for spectra that are not kept; by default about 6 MiB per thread on a CPU
            and 1.5 GiB on a GPU. The least, in each thread, is what one channel needs: six times (N + K // 2)^3
            numbers; an explicit bound lets fewer threads work. Maps of half precision are copied to float32 on top.

    Returns:
        Shape (B, C, D, H, W), in the type that `F.conv3d` would return.

    Raises:
        ConfigError: If the shapes do not fit each other, a kernel side is even, or the bound is not positive.
    """
    _check_shapes(x, weight, bias)
    if workspace_bytes is not None and workspace_bytes < 1:
        raise ConfigError(f"workspace_bytes: expected a positive number of bytes, got {workspace_bytes}.")
    if type(x) is not torch.Tensor and not torch.compiler.is_compiling():
        x = x.as_subclass(torch.Tensor)  # MONAI's tensors with metadata would do their bookkeeping in each step below
    needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    result_type = _result_type(x, weight)
    taps = _reachable_taps(x.shape[2:], weight.shape[2:])
    voxels = x.shape[2:].numel() if x.numel() else 0
    if result_type is None or not _transforms_pay(voxels, math.prod(taps), training=needs_gradient):
        padding = [side // 2 for side in taps]
        return F.conv3d(x, _crop(weight, taps), bias, padding=padding, groups=x.shape[1])
    # From here on no operation is one that autocast would touch.
    y = _convolve(x, weight, not needs_gradient, workspace_bytes)
    if bias is not None:
        y = y.add_(bias.to(y.dtype).view(-1, 1, 1, 1))
    return y.to(result_type)


@torch.library.custom_op("rep3d::depthwise_conv3d", mutates_args=())
def _convolve(x: torch.Tensor, weight: torch.Tensor, keep_spectrum: bool, workspace_bytes: int | None) -> torch.Tensor:
    """Compute y = x * weight, spectrum by spectrum: Y = X W; in float64 for such maps, else float32.

    As an operator of PyTorch's it saves its inputs alone.

    Args:
        x: Shape (B, C, D, H, W).
        weight: Shape (C, 1, Kz, Ky, Kx).
        keep_spectrum: Whether the spectrum of ``weight`` is looked for in the cache, and kept there.
        workspace_bytes: Bound on the memory for spectra.
    """
    x, plan, kernels = _prepare(x, weight.detach())
    transform = partial(_kernel_spectrum, max_bytes=workspace_bytes)
    cached = _kernel_spectra.get(weight, kernels, plan, transform) if keep_spectrum else None
    y = torch.empty_like(x, memory_format=torch.contiguous_format)

    def convolve(chunks: Iterable[slice]) -> None:
        for channels in chunks:
            *scratch, w_spectrum, x_spectrum, y_spectrum = _spectra(5, channels, plan, x)
            if cached is None:
                analyse(kernels[channels], plan.kernel_analysis, scratch, w_spectrum)
            else:
                w_spectrum = cached[channels]
            product = SpectralProduct(x_spectrum, w_spectrum, y_spectrum)
            for maps, result in zip(x, y, strict=True):
                analyse(maps[channels], plan.map_analysis, scratch, x_spectrum)
                product.compute()
                synthesise(y_spectrum, plan.map_synthesis, scratch, result[channels])

    _run_in_chunks(convolve, x, x.shape[1], plan, workspace_bytes)
    return y


@torch.library.custom_op("rep3d::depthwise_conv3d_backward", mutates_args=())
def _convolve_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    needs_x: bool,
    needs_weight: bool,
    workspace_bytes: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute both gradients from the spectrum G of dL/dy: G conj(W) for x, the sum over B of G conj(X) for weight.

    The circular transform that serves y is long enough for both: dL/dx is again a "same" correlation, and of dL/dweight
    only the offsets -K // 2 .. K // 2 are wanted, which nothing wraps around to.

    Returns:
        The gradients for ``x`` and ``weight``, in their types; one that is not needed is an empty tensor.
    """
    types = x.dtype, weight.dtype
    x, plan, kernels = _prepare(x, weight)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_x else x.new_empty(0)
    # Zeros, because taps that reach no voxel are not computed.
    grad_weight = x.new_zeros(weight.shape if needs_weight else 0)
    grad_kernels = _crop(grad_weight[:, 0], kernels.shape[1:]) if needs_weight else None

    def differentiate(chunks: Iterable[slice]) -> None:
        for channels in chunks:
            *scratch, w_spectrum, g_spectrum, shared_spectrum, gw_spectrum = _spectra(6, channels, plan, x)
            # The shared buffer holds conj(X) first, the spectrum of dL/dx afterwards.
            weight_product = SpectralProduct(g_spectrum, shared_spectrum, gw_spectrum)
            x_product = SpectralProduct(g_spectrum, w_spectrum, shared_spectrum)
            if needs_x:
                analyse(kernels[channels], plan.kernel_conjugate, scratch, w_spectrum)
            for sample in range(x.shape[0]):
                analyse(grad[sample, channels], plan.map_analysis, scratch, g_spectrum)
                if needs_weight:
                    analyse(x[sample, channels], plan.map_conjugate, scratch, shared_spectrum)
                    if sample == 0:
                        weight_product.compute()
                    else:
                        weight_product.accumulate()
                if needs_x:
                    x_product.compute()
                    synthesise(shared_spectrum, plan.map_synthesis, scratch, grad_x[sample, channels])
            if grad_kernels is not None:
                synthesise(gw_spectrum, plan.kernel_synthesis, scratch, grad_kernels[channels])

    _run_in_chunks(differentiate, x, x.shape[1], plan, workspace_bytes)
    return grad_x.to(types[0]), grad_weight.to(types[1])


@_convolve.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, keep_spectrum: bool, workspace_bytes: int | None) -> torch.Tensor:
    return torch.empty_like(x, dtype=_working_type(x), memory_format=torch.contiguous_format)


@_convolve_backward.register_fake
def _(
    grad: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    needs_x: bool,
    needs_weight: bool,
    workspace_bytes: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_x else x.new_empty(0)
    grad_weight = (
        torch.empty_like(weight, memory_format=torch.contiguous_format) if needs_weight else weight.new_empty(0)
    )
    return grad_x, grad_weight


def _save_inputs(ctx: Any, inputs: tuple[torch.Tensor, torch.Tensor, bool, int | None], output: torch.Tensor) -> None:
    x, weight, _, ctx.workspace_bytes = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight = ctx.needs_input_grad[:2]
    grad_x, grad_weight = _convolve_backward(grad, x, weight, needs_x, needs_weight, ctx.workspace_bytes)
    return grad_x if needs_x else None, grad_weight if needs_weight else None, None, None


_convolve.register_autograd(_differentiate, setup_context=_save_inputs)


def _prepare(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ConvolutionPlan, torch.Tensor]:
    """Return the maps in the working type, the transforms, and the taps that reach a voxel, (C, Kz, Ky, Kx), in it."""
    taps = _reachable_taps(x.shape[2:], weight.shape[2:])
    working = _working_type(x)
    plan = plan_convolution(tuple(x.shape[2:]), taps, working, x.device)
    return x.to(working), plan, _crop(weight.to(working)[:, 0], taps)


def _run_in_chunks(
    work: Callable[[Iterable[slice]], None], like: torch.Tensor, channels: int, plan: ConvolutionPlan, bound: int | None
) -> None:
    """Run work over all channels, so many at a time that spectra of the type of ``like`` stay within the bound."""
    plan_chunks(channels, plan.spectrum_size * like.element_size(), like.device, bound).run(work)


def _spectra(count: int, channels: slice, plan: ConvolutionPlan, like: torch.Tensor) -> list[torch.Tensor]:
    """Lend buffers of shape (channels in the chunk, Mz, My, Mx)."""
    return lend_buffers(count, (channels.stop - channels.start, *plan.length), like)


_kernel_spectra = SpectrumCache(CACHE_BYTES, CACHED_SPECTRUM_BYTES)


def _kernel_spectrum(kernels: torch.Tensor, plan: ConvolutionPlan, max_bytes: int | None) -> torch.Tensor:
    """Return the spectrum (C, Mz, My, Mx) of kernels (C, Kz, Ky, Kx), within a bound on the workspace."""
    spectrum = kernels.new_empty((kernels.shape[0], *plan.length))

    def transform(chunks: Iterable[slice]) -> None:
        for channels in chunks:
            analyse(kernels[channels], plan.kernel_analysis, _spectra(2, channels, plan, kernels), spectrum[channels])

    _run_in_chunks(transform, kernels, kernels.shape[0], plan, max_bytes)
    return spectrum


def _reachable_taps(map_shape: Sequence[int], kernel_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return how many taps along each axis, about the centre, can reach a voxel of the map at all.

    From one voxel to the farthest other of an axis with N voxels it is N - 1; what is farther out only meets padding.
    """
    depth, height, width = (min(k, 2 * n - 1) for n, k in zip(map_shape, kernel_shape, strict=True))
    return depth, height, width


def _crop(kernels: torch.Tensor, taps: Sequence[int]) -> torch.Tensor:
    """View the central taps of kernels (..., Kz, Ky, Kx)."""
    for axis, kept in enumerate(taps, start=kernels.dim() - 3):
        kernels = kernels.narrow(axis, (kernels.shape[axis] - kept) // 2, kept)
    return kernels


def _check_shapes(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    if x.dim() != 5:
        raise ConfigError(f"Depthwise convolution: expected maps of shape (B, C, D, H, W), got {tuple(x.shape)}.")
    channels = x.shape[1]
    if weight.dim() != 5 or weight.shape[0] != channels or weight.shape[1] != 1:
        raise ConfigError(
            f"Depthwise convolution: expected kernels of shape ({channels}, 1, Kz, Ky, Kx) for maps of shape"
            f" {tuple(x.shape)}, got {tuple(weight.shape)}."
        )
    if any(side % 2 == 0 for side in weight.shape[2:]):
        raise ConfigError(
            f"Depthwise convolution: expected odd kernel sides (the output keeps the shape of the input), got"
            f" {tuple(weight.shape[2:])}."
        )
    if bias is not None and bias.shape != (channels,):
        raise ConfigError(f"Depthwise convolution: expected a bias of shape ({channels},), got {tuple(bias.shape)}.")


def _result_type(x: torch.Tensor, weight: torch.Tensor) -> torch.dtype | None:
    """Return the type that `F.conv3d` would return, or None for types and devices this module leaves to it."""
    if x.device.type not in ("cpu", "cuda") or torch.jit.is_tracing():
        return None
    types = {x.dtype, weight.dtype}
    if torch.is_autocast_enabled(x.device.type) and types <= _AUTOCAST_TYPES:
        return torch.get_autocast_dtype(x.device.type)
    return x.dtype if len(types) == 1 and types <= _SUPPORTED_TYPES else None


def _working_type(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _transforms_pay(voxels: int, taps: int, training: bool) -> bool:
    """Return whether transforms beat PyTorch's direct sum, by the multiplications that this needs for each channel.

    Measured on a CPU over maps of 2^3 to 48^3 and kernels of 3^3 to 21^3. Backward, the direct sum is so slow that only
    tiny problems favour it. Forward, it is good at small kernels and small maps; the bounds are those of a processor
    with AVX-512, on which it is two to three times as fast as with AVX2.

    Args:
        voxels: Voxels of a map.
        taps: Taps that can reach a voxel.
        training: Whether a backward pass may follow.
    """
    if training:
        return voxels * taps >= 40_000
    return taps >= 7**3 and voxels * taps >= 10_000_000
