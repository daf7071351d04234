"""Small helpers for arrays."""

from __future__ import annotations

import numpy

__all__ = ["bytes_of"]


def bytes_of(array: numpy.ndarray) -> memoryview:
    """Return an array's bytes in C order, for writing; copied only where they do not lie in that order already."""
    return numpy.ascontiguousarray(array).reshape(-1).view(numpy.uint8).data
