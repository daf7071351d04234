"""Voxels as they go over the wire, packed and unpacked in the simplest way, to be compared with what is built."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from Rep3DLabelLib.client.voxels import Voxels

__all__ = ["VOXELS", "array_of", "packed", "unpacked", "voxels_of"]

VOXELS = {"Content-Type": "application/x-rep3d-voxels"}


def packed(
    arrays: Mapping[str, np.ndarray], affine: Any = None, params: Mapping[str, Any] | None = None, **changes: Any
) -> bytes:
    """Return a body with arrays (I, J, K); `changes` are made to its line, and to what that says of the first array."""
    parts = [array.astype(array.dtype.newbyteorder("<")).tobytes(order="F") for array in arrays.values()]
    told: list[dict[str, Any]] = [
        {"name": name, "dtype": array.dtype.newbyteorder("<").str, "bytes": len(part), "crc32": zlib.crc32(part)}
        for (name, array), part in zip(arrays.items(), parts, strict=True)
    ]
    told[0].update({key: value for key, value in changes.items() if key in told[0]})
    matrix: Any = np.eye(4) if affine is None else affine
    matrix = matrix.tolist() if isinstance(matrix, np.ndarray) else matrix
    shape = next(iter(arrays.values())).shape
    line = {"shape": shape, "affine": matrix, "arrays": told, "params": params or {}}
    line.update({key: value for key, value in changes.items() if key in line})
    return json.dumps(line).encode() + b"\n" + b"".join(parts)


def unpacked(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what the line of a body says, and its arrays (I, J, K)."""
    line, _, rest = body.partition(b"\n")
    about = json.loads(line)
    arrays = {}
    for told in about["arrays"]:
        part, rest = rest[: told["bytes"]], rest[told["bytes"] :]
        assert zlib.crc32(part) == told["crc32"]
        arrays[told["name"]] = np.frombuffer(part, told["dtype"]).reshape(about["shape"], order="F")
    assert not rest
    return about, arrays


def voxels_of(array: np.ndarray, path: Path, affine: Any = None) -> Voxels:
    """Return an array (I, J, K) as the client takes it, in a file."""
    path.write_bytes(array.tobytes(order="F"))
    matrix = np.eye(4) if affine is None else np.asarray(affine)
    return Voxels(path, array.shape, array.dtype.newbyteorder("<").str, tuple(map(tuple, matrix.tolist())))


def array_of(voxels: Voxels) -> np.ndarray:
    """Return the array (I, J, K) that the client got."""
    return np.fromfile(voxels.path, voxels.dtype).reshape(voxels.shape, order="F")
