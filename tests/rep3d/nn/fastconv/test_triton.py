"""The GPU kernel of the spectral product, run by Triton's interpreter on the CPU and built for a real GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed; it comes with PyTorch's CUDA builds")

INTERPRETED = """
import torch
from rep3d.nn.fastconv.dft import SpectralProduct
from rep3d.nn.fastconv.triton import spectral_product

torch.manual_seed(0)
for shape in [(3, 6, 8, 10), (1, 2, 2, 2), (2, 22, 12, 34)]:
    left, right, expected = torch.randn(shape), torch.randn(shape), torch.randn(shape)
    product, actual = SpectralProduct(left, right, expected), expected.clone()
    product.accumulate()
    spectral_product(left, right, actual, accumulate=True)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    product.compute()
    spectral_product(left, right, actual, accumulate=False)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
"""

BUILT = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from rep3d.nn.fastconv.triton import _multiply

types = dict.fromkeys(("left", "right", "out"), "*fp32") | dict.fromkeys(("z_half", "y_half", "x_half"), "i32")
signature = types | {"count": "i64", "ACCUMULATE": "constexpr", "BLOCK": "constexpr"}
source = ASTSource(fn=_multiply, signature=signature, constexprs={"ACCUMULATE": True, "BLOCK": 256})
kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32))
assert kernel.asm["cubin"]
"""


def run(program: str, cache: Path, **environment: str) -> None:
    """In a process of its own: Triton decides at import whether it interprets."""
    variables = {**os.environ, "TRITON_CACHE_DIR": str(cache), **environment}
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_equals_the_product_in_nine_passes(tmp_path: Path) -> None:
    run(INTERPRETED, tmp_path, TRITON_INTERPRET="1")


def test_builds_for_a_gpu(tmp_path: Path) -> None:
    run(BUILT, tmp_path)
