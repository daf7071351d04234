"""The spectral product as one GPU kernel, in Triton: each number is read once and written once.

`dft.SpectralProduct` makes nine passes over the spectra. On a GPU, where memory traffic is what costs, that is
nine times the reading. Triton comes with PyTorch's CUDA builds; without it the nine passes serve. This module imports
triton, so import it only where that is known to be there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["spectral_product"]

_BLOCK = 256


def spectral_product(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor, accumulate: bool) -> None:
    """Set ``out`` to, or add to it, the product in C x C x C of two spectra.

    Args:
        left: Spectrum, shape (C, Mz, My, Mx), contiguous, laid out as `rep3d.nn.fastconv.dft` describes.
        right: Spectrum of the same shape.
        out: Buffer of the same shape, not one of the others.
        accumulate: Whether to add.
    """
    channels, z_length, y_length, x_length = left.shape
    count = channels * (z_length // 2) * (y_length // 2) * (x_length // 2)
    with torch.cuda.device_of(left):  # Triton launches on the current device, whatever its arguments live on
        _multiply[(triton.cdiv(count, _BLOCK),)](
            left, right, out, count, z_length // 2, y_length // 2, x_length // 2, ACCUMULATE=accumulate, BLOCK=_BLOCK
        )


@triton.jit
def _complex(a_re, a_im, b_re, b_im):
    """Multiply two complex numbers."""
    return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re


@triton.jit
def _pair(a0_re, a0_im, a1_re, a1_im, b0_re, b0_im, b1_re, b1_im):
    """Multiply two numbers of C x C, each a0 + l a1 with complex a0 and a1: l * l = -1."""
    p_re, p_im = _complex(a0_re, a0_im, b0_re, b0_im)
    q_re, q_im = _complex(a1_re, a1_im, b1_re, b1_im)
    r_re, r_im = _complex(a0_re, a0_im, b1_re, b1_im)
    s_re, s_im = _complex(a1_re, a1_im, b0_re, b0_im)
    return p_re - q_re, p_im - q_im, r_re + s_re, r_im + s_im


@triton.jit
def _load_pair(base, half, y_step, mask):
    """Load the four components of one part along z: real and imaginary along y, times the same along x."""
    at = base + half
    return (
        tl.load(at, mask=mask),
        tl.load(at + 1, mask=mask),
        tl.load(at + y_step, mask=mask),
        tl.load(at + y_step + 1, mask=mask),
    )


@triton.jit
def _store(at, value, mask, ACCUMULATE: tl.constexpr):
    if ACCUMULATE:
        value += tl.load(at, mask=mask)
    tl.store(at, value, mask=mask)


@triton.jit
def _multiply(left, right, out, count, z_half, y_half, x_half, ACCUMULATE: tl.constexpr, BLOCK: tl.constexpr):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    x = index % x_half
    y = index // x_half % y_half
    z = index // (x_half * y_half) % z_half
    channel = index // (x_half * y_half * z_half)
    # Along z and y the first half of a row is real, the second imaginary; along x the two alternate.
    y_step = y_half * 2 * x_half
    z_step = z_half * 2 * y_step
    at = channel * 2 * z_step + z * 2 * y_step + y * 2 * x_half + 2 * x
    a = _load_pair(left + at, 0, y_step, mask)
    b = _load_pair(right + at, 0, y_step, mask)
    a_im = _load_pair(left + at, z_step, y_step, mask)
    b_im = _load_pair(right + at, z_step, y_step, mask)
    real = _pair(a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3])
    wrapped = _pair(a_im[0], a_im[1], a_im[2], a_im[3], b_im[0], b_im[1], b_im[2], b_im[3])
    first = _pair(a[0], a[1], a[2], a[3], b_im[0], b_im[1], b_im[2], b_im[3])
    second = _pair(a_im[0], a_im[1], a_im[2], a_im[3], b[0], b[1], b[2], b[3])
    target = out + at
    _store(target, real[0] - wrapped[0], mask, ACCUMULATE)
    _store(target + 1, real[1] - wrapped[1], mask, ACCUMULATE)
    _store(target + y_step, real[2] - wrapped[2], mask, ACCUMULATE)
    _store(target + y_step + 1, real[3] - wrapped[3], mask, ACCUMULATE)
    _store(target + z_step, first[0] + second[0], mask, ACCUMULATE)
    _store(target + z_step + 1, first[1] + second[1], mask, ACCUMULATE)
    _store(target + z_step + y_step, first[2] + second[2], mask, ACCUMULATE)
    _store(target + z_step + y_step + 1, first[3] + second[3], mask, ACCUMULATE)
