"""Voxels on their way to and from the server: one line of JSON, then the bytes of one array after the other.

The form is described at the server's `lib/storage/voxels.py`. Here are only bytes and files; who has numpy makes arrays
of them. The server alone knows image files: what comes is on the image's own grid, and so is what is sent.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadAnswer, LocalProblem
from .answers_values import mapping
from .transfers import FileBody, Watch

__all__ = ["MEDIA_TYPE", "Voxels", "body_to_send", "receive"]

MEDIA_TYPE = "application/x-rep3d-voxels"
_BLOCK = 1 << 18
_LONGEST_LINE = 1 << 20
_DTYPE = re.compile(r"[|<](?:[iu]([1248])|f([48]))")


@dataclass(frozen=True)
class Voxels:
    """An array in a file.

    Attributes:
        path: Its bytes, the first index running fastest.
        shape: I, J, K in voxels.
        dtype: numpy's word for its type, little-endian, such as "<i2".
        affine: 4 x 4 matrix from voxel indices to RAS in mm.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: str
    affine: tuple[tuple[float, ...], ...]


def receive(blocks: Iterator[bytes], folder: Path, watch: Watch) -> tuple[dict[str, Voxels], dict[str, object]]:
    """Write the arrays of an answer to files.

    Args:
        blocks: The answer's body.
        folder: Existing folder for the files, which get names of their own; none is left if something goes wrong.
        watch: Who watches the transfer.

    Returns:
        The arrays by name, and what else the server says of them.

    Raises:
        BadAnswer: It is cut, damaged or no such answer.
        Cancelled: It is no longer wanted.
        LocalProblem: A file cannot be written.
    """
    line, rest = _first_line(blocks)
    arrays, sizes, checks, params = _parse(line, folder)
    done, total = 0, sum(sizes)
    try:
        for voxels, size, check in zip(arrays.values(), sizes, checks):
            left, found = size, 0
            with voxels.path.open("xb") as out:
                while left:
                    block = rest or next(blocks, b"")
                    if not block:
                        raise BadAnswer(f"The voxels are cut: {done} of {total} bytes came. Try again.")
                    block, rest = block[:left], block[left:]
                    left, done, found = left - len(block), done + len(block), zlib.crc32(block, found)
                    out.write(block)
                    watch.tell(done, total)
            if found != check:
                raise BadAnswer("The voxels were damaged on their way: their checksum is wrong. Try again.")
        if rest or next(blocks, b""):
            raise BadAnswer(f"More than the announced {total} bytes of voxels came. Look at the server's log.")
    except BaseException as error:
        for voxels in arrays.values():
            voxels.path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LocalProblem(f"Cannot write to '{folder}': {error.strerror or error}. Check free space.") from error
        raise
    return arrays, params


def _first_line(blocks: Iterator[bytes]) -> tuple[bytes, bytes]:
    head = b""
    for block in blocks:
        head += block
        line, line_break, rest = head.partition(b"\n")
        if line_break:
            return line, rest
        if len(head) > _LONGEST_LINE:
            break
    raise _no_voxels(head)


def _no_voxels(head: bytes) -> BadAnswer:
    return BadAnswer(
        f"The answer holds no voxels: {head[:100]!r}. Check that the address leads to the server and not to a web page "
        "or proxy, and that both are of the same release."
    )


def _parse(line: bytes, folder: Path) -> tuple[dict[str, Voxels], list[int], list[object], dict[str, object]]:
    """Return the arrays that follow, their sizes in bytes and checksums, and what else the line says."""
    try:
        told = json.loads(line)
        shape = tuple(int(length) for length in told["shape"])
        affine = tuple(tuple(float(part) for part in row) for row in told["affine"])
        sizes, checks, arrays = [], [], {}
        for about in told["arrays"]:
            item = _DTYPE.fullmatch(about["dtype"])
            size = math.prod(shape) * int(item.group(1) or item.group(2)) if item else -1
            if size != about["bytes"] or len(shape) != 3 or min(shape) < 1 or [len(row) for row in affine] != [4] * 4:
                raise ValueError(about)
            path = folder / f"voxels-{uuid.uuid4().hex}.raw"
            arrays[str(about["name"])] = Voxels(path, shape, about["dtype"], affine)
            sizes.append(size)
            checks.append(about["crc32"])
    except (ValueError, TypeError, KeyError) as error:
        raise _no_voxels(line) from error
    return arrays, sizes, checks, mapping(told.get("params"))


@contextmanager
def body_to_send(
    name: str, voxels: Voxels, params: Mapping[str, object], watch: Watch, packed: bool
) -> Iterator[FileBody]:
    """Give the body of an upload, which is in a file beside that of the voxels for so long.

    Args:
        name: Of the array.
        voxels: The array.
        params: What else is sent with it.
        watch: Who watches the upload.
        packed: Whether to compress it.

    Raises:
        LocalProblem: A file cannot be read or written.
    """
    path = voxels.path.with_name(f"{voxels.path.name}-{uuid.uuid4().hex}.body")
    try:
        _write_body(path, name, voxels, params, watch, packed)
        headers = {"Content-Type": MEDIA_TYPE, **({"Content-Encoding": "gzip"} if packed else {})}
        with FileBody(path, headers, watch) as body:
            yield body
    finally:
        path.unlink(missing_ok=True)


def _write_body(
    path: Path, name: str, voxels: Voxels, params: Mapping[str, object], watch: Watch, packed: bool
) -> None:
    try:
        check = size = 0
        for block in _blocks_of(voxels.path):
            size, check = size + len(block), zlib.crc32(block, check)
        about = {"name": name, "dtype": voxels.dtype, "bytes": size, "crc32": check}
        line = {"shape": voxels.shape, "affine": voxels.affine, "arrays": [about], "params": dict(params)}
        with gzip.open(path, "xb", 1) if packed else path.open("xb") as out:
            out.write(json.dumps(line).encode() + b"\n")
            for block in _blocks_of(voxels.path):
                watch.ask()
                out.write(block)
    except OSError as error:
        raise LocalProblem(f"Cannot write '{path}': {error.strerror or error}. Check free space.") from error


def _blocks_of(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while True:
            block = stream.read(_BLOCK)
            if not block:
                return
            yield block
