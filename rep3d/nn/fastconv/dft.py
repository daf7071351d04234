"""Short discrete Fourier transforms of 3D maps as real matrix products, for convolutions with large kernels.

A library FFT wins for long signals. The maps of a segmentation encoder are short (6 to 96 voxels a side), and there a
transform written as a matrix product is faster: it runs at the speed of the machine's matrix multiplication, needs no
complex numbers while it transforms, and allows any even length.

One axis
--------
For an even length M, take the M/2 half-odd frequencies t_k = 2 pi (k + 1/2) / M, k = 0 .. M/2 - 1. A real signal x with
samples at the integer positions n has the spectrum ::

    X[k] = sum_n x[n] exp(-i t_k n) = sum_n x[n] cos(t_k n)  +  i sum_n x[n] (-sin(t_k n))

which is one real (M x len(n)) matrix, with rows cos(t_k n) and -sin(t_k n), times x: M real numbers out. There is
neither a zero nor a Nyquist frequency, so every X[k] is a full complex number and no case is special. The inverse is
the same matrix transposed, times 2 / M. The product X[k] H[k] belongs to the convolution modulo z^M = -1: what is
longer than M wraps around with its sign flipped. In full, the convolution of N samples with K taps has N + K - 1
samples, of which "same" keeps the middle N. With M >= N + K // 2 only samples that are thrown away get wrapped ones
added, and the same length serves both gradients.

Three axes
----------
Each axis has its own imaginary unit: transforming z, then y, then x gives numbers of the algebra C x C x C (tensor
product over the reals, 8 real components per frequency triple). Products are taken in that algebra; since it is
commutative, the convolution theorem holds axis by axis. This costs more in the product (`SpectralProduct`) than a
complex transform would, and halves the work in the matrix products, which dominate.

Layout of a spectrum: (channels, Mz, My, Mx), real. Along z and y the first half holds the real, the second half the
imaginary parts; along x the two alternate, so that PyTorch sees its own complex numbers there.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

__all__ = ["ConvolutionPlan", "SpectralProduct", "analyse", "plan_convolution", "synthesise"]

_logger = logging.getLogger(__name__)

T = TypeVar("T")
Shape3 = tuple[int, int, int]
Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True, eq=False)
class ConvolutionPlan:
    """The constant matrices of a "same" depthwise convolution of one map shape with one kernel shape.

    Each entry of a triple belongs to one axis (z, y, x). An analysis matrix has shape (M, samples): samples to
    spectrum. A synthesis matrix has the same shape and is used transposed: spectrum to samples. Conjugate spectra are
    those of the mirrored signal; multiplying by one correlates instead of convolving.

    Attributes:
        length: Transform length M along each axis.
        map_analysis: Map (N samples) to spectrum.
        map_conjugate: Map to conjugate spectrum.
        map_synthesis: Spectrum to map.
        kernel_analysis: Kernel (Kz, Ky or Kx taps) to spectrum.
        kernel_conjugate: Kernel to conjugate spectrum.
        kernel_synthesis: Spectrum to kernel.
    """

    length: Shape3
    map_analysis: Matrices
    map_conjugate: Matrices
    map_synthesis: Matrices
    kernel_analysis: Matrices
    kernel_conjugate: Matrices
    kernel_synthesis: Matrices

    @property
    def spectrum_size(self) -> int:
        """Real numbers in the spectrum of one channel."""
        return math.prod(self.length)


@functools.lru_cache(maxsize=256)
def plan_convolution(
    map_shape: tuple[int, ...], kernel_shape: Shape3, dtype: torch.dtype, device: torch.device
) -> ConvolutionPlan:
    """Return the plan for maps (D, H, W) and odd kernels (Kz, Ky, Kx); plans are kept, they are small."""
    length = [_round_up_to_even(n + k // 2) for n, k in zip(map_shape, kernel_shape, strict=True)]
    map_positions = [range(n) for n in map_shape]
    # PyTorch's "convolution" correlates: tap i of k reads the voxel at offset i - k // 2, so as a factor of a true
    # convolution it sits at position k // 2 - i.
    kernel_positions = [range(k // 2, -(k // 2) - 1, -1) for k in kernel_shape]

    def matrices(positions: Sequence[range], *, mirrored: bool = False, inverse: bool = False) -> Matrices:
        return _three(
            _half_odd_dft(
                tuple(-n if mirrored else n for n in axis_positions),
                axis_length,
                interleaved=axis == 2,
                scale=2.0 / axis_length if inverse else 1.0,
                dtype=dtype,
                device=device,
            )
            for axis, (axis_positions, axis_length) in enumerate(zip(positions, length, strict=True))
        )

    return ConvolutionPlan(
        length=_three(length),
        map_analysis=matrices(map_positions),
        map_conjugate=matrices(map_positions, mirrored=True),
        map_synthesis=matrices(map_positions, inverse=True),
        kernel_analysis=matrices(kernel_positions),
        kernel_conjugate=matrices(kernel_positions, mirrored=True),
        kernel_synthesis=matrices(kernel_positions, inverse=True),
    )


def analyse(samples: torch.Tensor, matrices: Matrices, scratch: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    """Transform samples (C, Z, Y, X) into the spectrum ``out`` (C, Mz, My, Mx).

    Each step transforms the last axis and, by writing the product transposed, moves it to the front. After three steps
    every axis has been last once and the order is the original one again, without a single permuting copy.

    Args:
        samples: Maps or kernels, any strides.
        matrices: Analysis matrices (Mz, Z), (My, Y), (Mx, X).
        scratch: Two contiguous buffers, each at least as large as ``out``.
        out: Contiguous, overwritten.
    """
    channels = samples.shape[0]
    current = samples
    for matrix, target in zip(reversed(matrices), (*scratch, out), strict=True):
        frequencies, positions = matrix.shape
        rows = current.reshape(channels, -1, positions)
        current = torch.bmm(
            matrix.expand(channels, -1, -1), rows.mT, out=_front(target, (channels, frequencies, rows.shape[1]))
        )


def synthesise(spectrum: torch.Tensor, matrices: Matrices, scratch: Sequence[torch.Tensor], out: torch.Tensor) -> None:
    """Transform a spectrum (C, Mz, My, Mx) back into samples, written to ``out`` (C, Z, Y, X).

    Args:
        spectrum: Contiguous.
        matrices: Synthesis matrices (Mz, Z), (My, Y), (Mx, X).
        scratch: Two contiguous buffers, each at least as large as ``spectrum``.
        out: Any strides; written without a copy if contiguous.
    """
    channels = spectrum.shape[0]
    (z_length, z), (y_length, y), (x_length, x) = (matrix.shape for matrix in matrices)
    z_matrix, y_matrix, x_matrix = matrices
    after_z = torch.bmm(
        z_matrix.mT.expand(channels, -1, -1),
        spectrum.view(channels, z_length, y_length * x_length),
        out=_front(scratch[0], (channels, z, y_length * x_length)),
    )
    after_y = torch.bmm(
        y_matrix.mT.expand(channels * z, -1, -1),
        after_z.view(channels * z, y_length, x_length),
        out=_front(scratch[1], (channels * z, y, x_length)),
    )
    target = out if out.is_contiguous() else scratch[0]
    samples = torch.mm(after_y.view(-1, x_length), x_matrix, out=_front(target, (channels * z * y, x)))
    if target is not out:
        out.copy_(samples.view(out.shape))


class SpectralProduct:
    """The product of spectra in C x C x C: ``out = left * right`` or ``out += left * right``, by buffers given once.

    Write j for the imaginary unit of z and l for that of y (that of x is inside PyTorch's complex numbers). A spectrum
    is a00 + j a10 + l a01 + j l a11, and its product with b is a b00 + (j a) b10 + (l a) b01 + (j l a) b11. Multiplying
    a by a unit only moves its four parts to other places, half of them with a changed sign. So b00 needs one pass over
    a, b10 and b01 two (one for each sign) and b11 four: nine calls, each on views that are prepared here. On a GPU with
    Triton one kernel does it all (`rep3d.nn.fastconv.triton`).

    Args:
        left: Spectrum, shape (C, Mz, My, Mx), contiguous.
        right: Spectrum of the same shape.
        out: Buffer of the same shape, not one of the others.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
        self._spectra = left, right, out
        self._fused = _fused_product() if left.is_cuda else None
        self._terms: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]] = []
        if self._fused is not None:
            return
        left_parts, right_parts, out_parts = (_complex_parts(spectrum) for spectrum in (left, right, out))
        for unit in itertools.product((0, 1), repeat=2):  # which part of `right`: 1 where its unit is imaginary
            factor = _select(right_parts, unit)
            # Along an axis where the unit is real both parts of `left` stay where they are: one slice takes both.
            for source in itertools.product(*(((0, 1) if imaginary else (None,)) for imaginary in unit)):
                target = tuple(None if part is None else 1 - part for part in source)
                sign = -1 if sum(part == 1 for part in source) % 2 else 1  # i * i = -1
                self._terms.append((_select(left_parts, source), factor, _select(out_parts, target), sign))

    def compute(self) -> None:
        """Set ``out`` to the product of what the two buffers hold now."""
        if self._fused is not None:
            self._fused(*self._spectra, False)
            return
        left, right, out, _ = self._terms[0]
        torch.mul(left, right, out=out)
        self._add(self._terms[1:])

    def accumulate(self) -> None:
        """Add the product of what the two buffers hold now to ``out``."""
        if self._fused is not None:
            self._fused(*self._spectra, True)
            return
        self._add(self._terms)

    @staticmethod
    def _add(terms: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]]) -> None:
        for left, right, out, sign in terms:
            out.addcmul_(left, right, value=sign)


@functools.cache
def _fused_product() -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, bool], None] | None:
    """Return the GPU kernel of the product, or None where Triton is not installed or cannot build it."""
    try:
        from rep3d.nn.fastconv.triton import spectral_product

        left, right, out = torch.zeros(3, 1, 2, 2, 2, device="cuda")
        spectral_product(left, right, out, accumulate=False)  # Triton builds a kernel when it is first called
    except ImportError:
        return None
    except Exception as error:  # without a C compiler, for instance; the nine passes do without
        _logger.warning("Triton cannot build the spectral product, slower steps take its place: %s", error)
        return None
    return spectral_product


@functools.lru_cache(maxsize=1024)
def _half_odd_dft(
    positions: tuple[int, ...], length: int, interleaved: bool, scale: float, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return the (length, len(positions)) matrix with rows scale * cos(t_k n) and scale * -sin(t_k n).

    Args:
        positions: The integer positions n of the samples.
        length: Transform length M, even.
        interleaved: Whether cosine and sine rows alternate, or all cosine rows come first.
        scale: Factor on every entry.
        dtype: Type of the result; computed in float64 before.
        device: Where the result lives.
    """
    with torch.inference_mode(False):  # kept for later calls, which may not be in inference mode
        frequency = (torch.arange(length // 2, dtype=torch.float64, device="cpu") + 0.5) * (2 * math.pi / length)
        angle = frequency[:, None] * torch.tensor(positions, dtype=torch.float64, device="cpu")
        rows = torch.stack((angle.cos(), -angle.sin()), dim=1 if interleaved else 0)
        return (rows.reshape(length, len(positions)) * scale).to(dtype=dtype, device=device)


def _complex_parts(spectrum: torch.Tensor) -> torch.Tensor:
    """View a spectrum as complex numbers along x, shape (C, part of z, part of y, Mz/2, My/2, Mx/2)."""
    channels, z_length, y_length, x_length = spectrum.shape
    parts = spectrum.view(channels, 2, z_length // 2, 2, y_length // 2, x_length // 2, 2)
    return torch.view_as_complex(parts).transpose(2, 3)


def _select(parts: torch.Tensor, which: Sequence[int | None]) -> torch.Tensor:
    """Narrow the z and y part axes to the given part, or leave an axis whole for None."""
    for axis, part in enumerate(which, start=1):
        if part is not None:
            parts = parts.narrow(axis, part, 1)
    return parts


def _front(buffer: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """View the first elements of a contiguous buffer as a tensor of the given shape."""
    return buffer.view(-1)[: math.prod(shape)].view(shape)


def _round_up_to_even(number: int) -> int:
    return number + number % 2


def _three(items: Iterable[T]) -> tuple[T, T, T]:
    first, second, third = items
    return first, second, third
