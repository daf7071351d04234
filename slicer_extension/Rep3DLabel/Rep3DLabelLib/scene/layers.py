"""Layers of different extents brought into one common extent, in as few arrays as memory allows.

One array per layer is a plain copy, and fine for the few layers that a segmentation usually has. Many small layers far
apart (one for each of 300 segments) would need gigabytes; then those that do not overlap share an array.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Layer", "stack"]

_PLAIN_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Layer:
    """Voxels (K, J, I) over an extent i0, i1, j0, j1, k0, k1, and the value of each segment in them."""

    voxels: np.ndarray
    extent: tuple[int, ...]
    values: Mapping[str, int]


def stack(
    layers: Sequence[Layer], identifiers: Sequence[str], plain_bytes: int = _PLAIN_BYTES
) -> tuple[tuple[np.ndarray, ...], tuple[int, ...], dict[str, tuple[int, int]]]:
    """Return arrays of one shape, their extent, and the (layer, value) of each segment.

    Args:
        layers: Non-empty ones.
        identifiers: All segments; those in no layer get a value that no voxel has.
        plain_bytes: Up to this size together, each layer keeps an array of its own.
    """
    if not layers:
        return (), (0, -1, 0, -1, 0, -1), {name: (0, number) for number, name in enumerate(identifiers, 1)}
    bounds = np.array([layer.extent for layer in layers])
    extent = tuple(int(bounds[:, place].min() if place % 2 == 0 else bounds[:, place].max()) for place in range(6))
    shape = tuple(extent[axis + 1] - extent[axis] + 1 for axis in (4, 2, 0))
    size = int(np.prod(shape, dtype=object))
    plain = len(layers) == 1 or len(layers) * size * _dtype(layers).itemsize <= plain_bytes
    if plain and all(_fits(layer) for layer in layers):
        arrays, places = _copy(layers, extent, shape)
    else:
        arrays, places = _pack(layers, extent, shape)
    missing = [name for name in identifiers if name not in places]
    if missing:
        last = max(int(arrays[0].max()), *(value for layer, value in places.values() if layer == 0), 0)
        if last + len(missing) > np.iinfo(arrays[0].dtype).max:
            arrays = [array.astype(np.uint16) for array in arrays]
        places.update({name: (0, last + number) for number, name in enumerate(missing, 1)})
    return tuple(arrays), extent, places


def _fits(layer: Layer) -> bool:
    """Return whether a layer's values can be kept as they are in 8 or 16 bits without a sign."""
    return layer.voxels.dtype.kind in "biu" and all(0 < value <= 65535 for value in layer.values.values())


def _dtype(layers: Sequence[Layer]) -> Any:
    small = all(layer.voxels.dtype.itemsize == 1 and layer.voxels.dtype.kind in "bu" for layer in layers)
    return np.dtype(np.uint8 if small else np.uint16)


def _window(layer: Layer, extent: Sequence[int]) -> tuple[slice, ...]:
    first = layer.extent
    return tuple(slice(first[a] - extent[a], first[a + 1] - extent[a] + 1) for a in (4, 2, 0))


def _copy(layers: Sequence[Layer], extent: tuple[int, ...], shape: tuple[int, ...]) -> tuple[list[np.ndarray], dict]:
    arrays, places = [], {}
    dtype = _dtype(layers)
    for number, layer in enumerate(layers):
        voxels = layer.voxels
        if voxels.dtype.itemsize > 2 or voxels.dtype.kind == "i":  # what is no segment's must not turn into one
            voxels = np.where((voxels >= 0) & (voxels <= 65535), voxels, 0)
        if layer.extent == extent:
            arrays.append(np.array(voxels, dtype=dtype, order="C"))
        else:
            arrays.append(np.zeros(shape, dtype))
            arrays[-1][_window(layer, extent)] = voxels
        places.update({name: (number, value) for name, value in layer.values.items()})
    return arrays, places


def _pack(layers: Sequence[Layer], extent: tuple[int, ...], shape: tuple[int, ...]) -> tuple[list[np.ndarray], dict]:
    """Put each layer into the first array in which its voxels are free, with values not yet used there."""
    arrays: list[np.ndarray] = []
    last: list[int] = []
    places: dict[str, tuple[int, int]] = {}
    for layer in layers:
        window = _window(layer, extent)
        values = sorted(set(layer.values.values()))
        own = np.isin(layer.voxels, values)
        number = next(
            (n for n, array in enumerate(arrays) if not (array[window].astype(bool) & own).any()), len(arrays)
        )
        if number == len(arrays):
            arrays.append(np.zeros(shape, np.uint16))
            last.append(0)
        part = arrays[number][window]
        renumbered = {value: last[number] + place for place, value in enumerate(values, 1)}
        for value, new in renumbered.items():
            part[layer.voxels == value] = new
        last[number] += len(values)
        places.update({name: (number, renumbered[value]) for name, value in layer.values.items()})
    return arrays, places
