"""Voxels as they go over the wire: one line of JSON, then the bytes of one array after the other.

Whoever has numpy, or a browser, can read this; nobody but the server needs to know image files and what their headers
mean. The line, which ends with a line break, is an object:

- ``shape``: voxels along the three axes, ``[I, J, K]``;
- ``affine``: 4 x 4 matrix from voxel indices to RAS in mm, as the server understands the image's file;
- ``arrays``: for each array its ``name``, ``dtype`` (numpy's word, little-endian, such as ``"<i2"``), ``bytes`` and
  ``crc32`` of those bytes;
- ``params``: what else goes with them.

The first index runs fastest, as in a NIfTI file: ``numpy.frombuffer(part, dtype).reshape(shape, order="F")``. Values
are what they mean; no scale is to be applied. The whole may be compressed, as HTTP's ``Content-Encoding: gzip`` says.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from lib.channels import Channels
from rep3d.errors import ImageError
from rep3d.imaging.grid import Geometry
from rep3d.imaging.labels import check_grid
from rep3d.imaging.limits import check_voxels
from rep3d.imaging.nifti import read_label, write_label
from rep3d.imaging.values import whole_numbers
from rep3d.json_text import parse_json

__all__ = ["MEDIA_TYPE", "Received", "Receiver", "gzipped", "label_voxels", "pack"]

MEDIA_TYPE = "application/x-rep3d-voxels"
_SLAB_BYTES = 1 << 22
_LONGEST_LINE = 1 << 20
_LONGEST_AXIS = 32767  # of a NIfTI-1 file
_DTYPE = re.compile(r"[|<](?:[iu][1248]|f[48])")


def label_voxels(file: Path, image: Path, channels: Channels) -> tuple[np.ndarray, Geometry]:
    """Return a label map's voxels, as bytes or 16-bit numbers, on the own grid of its image of these channels.

    Raises:
        LabelError: if the label map lies on another grid, or cannot be read as one.
    """
    values, grid = read_label(file)
    own = channels.grid(image)
    check_grid(grid, own, file.name, image.name)
    return values, own


def pack(arrays: Mapping[str, np.ndarray], grid: Geometry, params: Mapping[str, Any] | None = None) -> Iterator[bytes]:
    """Yield the bytes to send.

    Args:
        arrays: name to (I, J, K) voxels; converted slab by slab, so that there is no second copy.
        grid: of all of them.
        params: what else goes with them.
    """
    told = []
    for name, voxels in arrays.items():
        check = 0
        for slab in _slabs(voxels):
            check = zlib.crc32(slab, check)
        told.append({"name": name, "dtype": _wire_type(voxels).str, "bytes": voxels.nbytes, "crc32": check})
    line = {"shape": grid.shape, "affine": grid.affine.tolist(), "arrays": told, "params": dict(params or {})}
    yield json.dumps(line, allow_nan=False).encode() + b"\n"
    for voxels in arrays.values():
        yield from _slabs(voxels)


def _wire_type(voxels: np.ndarray) -> np.dtype:
    return np.dtype(np.uint8) if voxels.dtype.kind == "b" else voxels.dtype.newbyteorder("<")


def _slabs(voxels: np.ndarray) -> Iterator[bytes]:
    kind, each = _wire_type(voxels), max(1, voxels[..., :1].nbytes)
    step = max(1, _SLAB_BYTES // each)
    for first in range(0, voxels.shape[-1], step):
        yield voxels[..., first : first + step].astype(kind, copy=False).tobytes(order="F")


def gzipped(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same, compressed a little: more would take longer than it saves."""
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


@dataclass(frozen=True)
class Received:
    """Voxels that were sent, whole and unharmed.

    Attributes:
        file: their bytes.
        dtype: their type.
        grid: where the sender says that they lie.
        params: what else was sent with them.
    """

    file: Path
    dtype: np.dtype
    grid: Geometry
    params: Mapping[str, Any]

    @property
    def voxels(self) -> np.ndarray:
        """The (I, J, K) array, in the file."""
        return np.memmap(self.file, self.dtype, "r", shape=self.grid.shape, order="F")

    def write_image(self, output: Path) -> None:
        """Write them as a NIfTI image."""
        image = nib.Nifti1Image(self.voxels, self.grid.affine, dtype=self.dtype)
        image.header.set_xyzt_units("mm")
        image.set_sform(self.grid.affine, 1)
        nib.save(image, output)

    def write_label(self, image: Path, channels: Channels, output: Path) -> None:
        """Write them as a label map on the own grid of an image of these channels.

        Raises:
            LabelError: if they were drawn on another grid, or are no whole numbers from 0 to 65535.
        """
        check_grid(self.grid, channels.grid(image), "label", image.name)
        write_label(whole_numbers(self.voxels, "label"), image, output)


class Receiver:
    """Takes voxels in, block by block, into a file.

    Args:
        file: the file to make.
        encoding: what HTTP says of the blocks: ``"gzip"``, or ``""`` or ``"identity"`` for as they are.

    Raises:
        ImageError: for another encoding.
    """

    def __init__(self, file: Path, encoding: str = "") -> None:
        if encoding not in ("", "identity", "gzip"):
            raise ImageError(f"voxels: expected Content-Encoding gzip or none, got {encoding[:50]!r}")
        self._file = file
        self._unpacker = zlib.decompressobj(31) if encoding == "gzip" else None
        self._line = b""
        self._about: dict[str, Any] | None = None
        self._out: BinaryIO | None = None
        self._came = self._check = 0

    def feed(self, block: bytes) -> None:
        """Take the next bytes.

        Raises:
            ImageError: as soon as they cannot be voxels.
        """
        if self._unpacker is None:
            self._take(block)
            return
        while block:  # a little of it at a time: a small block can stand for a thousand times its size
            try:
                self._take(self._unpacker.decompress(block, _SLAB_BYTES))
            except zlib.error as error:
                raise ImageError(
                    f"voxels: expected a body compressed with gzip, got a damaged one ({error})"
                ) from error
            if self._unpacker.unused_data:
                raise _more()
            block = self._unpacker.unconsumed_tail

    def _take(self, data: bytes) -> None:
        if self._about is None:
            head, line_break, data = (self._line + data).partition(b"\n")
            if not line_break and len(head) <= _LONGEST_LINE:
                self._line = head
                return
            self._about = _about(head if line_break else b"")
            self._out = self._file.open("xb")
        assert self._out is not None
        self._came += len(data)
        if self._came > self._about["bytes"]:
            raise _more()
        self._check = zlib.crc32(data, self._check)
        self._out.write(data)

    def close(self) -> None:
        """Close the file."""
        if self._out is not None:
            self._out.close()

    def finish(self) -> Received:
        """Return what came.

        Raises:
            ImageError: if it is not all, or not what was sent.
        """
        self.close()
        about = self._about
        if about is None:
            raise _no_line()
        if self._came != about["bytes"] or (self._unpacker is not None and not self._unpacker.eof):
            raise ImageError(f"voxels: expected {about['bytes']} bytes, got {self._came}. Send them again.")
        if self._check != about["crc32"]:
            raise ImageError(
                f"voxels: expected bytes with the CRC-32 {about['crc32']}, got {self._check}: they were damaged on "
                f"their way. Send them again."
            )
        return Received(self._file, about["dtype"], about["grid"], about["params"])


def _more() -> ImageError:
    return ImageError("voxels: expected as many bytes as the first line says, got more")


def _no_line() -> ImageError:
    return ImageError("voxels: expected a line of JSON that says what follows, got none")


def _about(line: bytes) -> dict[str, Any]:
    """Return what the first line says, checked."""
    try:
        told = parse_json(line)
        (array,) = told["arrays"]
        shape, affine, params = told["shape"], told["affine"], told.get("params") or {}
        dtype, size, check = array["dtype"], array["bytes"], array["crc32"]
    except (ValueError, TypeError, KeyError) as error:
        raise (
            _no_line()
            if not line
            else ImageError(
                "voxels: expected a first line with shape, affine and one array (dtype, bytes, crc32) as JSON, got "
                f"{line[:200]!r} ({type(error).__name__})"
            )
        ) from error
    whole = isinstance(shape, list) and len(shape) == 3 and all(type(n) is int for n in shape)
    if not whole or not all(1 <= n <= _LONGEST_AXIS for n in shape):
        raise ImageError(
            f"voxels: expected a shape of three whole numbers from 1 to {_LONGEST_AXIS}, got {shape!r:.200}"
        )
    if not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
        raise ImageError(f"voxels: expected little-endian whole numbers or floats such as '<i2', got {dtype!r:.50}")
    kind = np.dtype(dtype)
    check_voxels(shape, "voxels", ImageError)
    expected = math.prod(shape) * kind.itemsize
    if size != expected:
        raise ImageError(f"voxels: expected {expected} bytes for this shape and type, got {size!r:.50}")
    if type(check) is not int:
        raise ImageError(f"voxels: expected a CRC-32 as a whole number, got {check!r:.50}")
    if not isinstance(params, dict):
        raise ImageError(f"params: expected a JSON object, got {type(params).__name__}")
    return {
        "dtype": kind,
        "bytes": size,
        "crc32": check,
        "grid": Geometry(tuple(shape), _checked_affine(affine)),
        "params": params,
    }


def _checked_affine(affine: Any) -> np.ndarray:
    try:
        matrix = np.array(affine, np.float64)
    except (ValueError, TypeError):
        matrix = np.empty(0)
    usable = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.array_equal(matrix[3], (0, 0, 0, 1))
    if not usable or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ImageError(f"voxels: expected an invertible 4 x 4 affine from voxels to RAS in mm, got {affine!r:.200}")
    return matrix
