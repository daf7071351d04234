"""Voxels on their way to and from the server: one line of JSON, then the bytes of one array after the other.

The form is described at the server's `lib/storage/voxels.py`. Here are only bytes and files; who has numpy makes arrays
of them. The server alone knows image files: what comes is on the image's own grid, and so is what is sent.
"""

from __future__ import annotations

import json
import math
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadAnswer, LocalProblem
from .answers_values import mapping
from .transfers import Watch

__all__ = ["MEDIA_TYPE", "VoxelBody", "Voxels", "receive"]

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
        for voxels, size, check in zip(arrays.values(), sizes, checks):  # noqa: B905 - Python 3.9
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


class VoxelBody:
    """An upload, read from its file while it is sent.

    Args:
        name: Of the array.
        voxels: The array.
        params: What else is sent with it.
        watch: Who watches the upload. It can be stopped until its last block is on the way: from then on the server
            may have carried it out.
        packed: Whether to compress it.

    Raises:
        LocalProblem: The file cannot be read, or has another size than the array.
    """

    def __init__(
        self, name: str, voxels: Voxels, params: Mapping[str, object], watch: Watch, packed: bool = False
    ) -> None:
        self._path, self._watch = voxels.path, watch
        self.headers = {"Content-Type": MEDIA_TYPE, **({"Content-Encoding": "gzip"} if packed else {})}
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 31) if packed else None
        self._size = check = 0
        for block in self._blocks():
            self._size, check = self._size + len(block), zlib.crc32(block, check)
        about = {"name": name, "dtype": voxels.dtype, "bytes": self._size, "crc32": check}
        line = {"shape": voxels.shape, "affine": voxels.affine, "arrays": [about], "params": dict(params)}
        self._line = json.dumps(line).encode() + b"\n"

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in blocks; requests takes an object with this method for a stream."""
        done = 0
        self._watch.ask()
        yield from self._packed(self._line)
        for block in self._blocks():
            self._watch.ask()
            done += len(block)
            yield from self._packed(block)
            self._watch.tell(done, self._size)
        if done != self._size:
            raise LocalProblem(f"'{self._path}' was changed while it was sent. Try again.")
        if self._packer is not None:
            yield self._packer.flush()

    def _packed(self, block: bytes) -> Iterator[bytes]:
        packed = block if self._packer is None else self._packer.compress(block)
        if packed:  # an empty block would end the body
            yield packed

    def _blocks(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as stream:
                while True:
                    block = stream.read(_BLOCK)
                    if not block:
                        return
                    yield block
        except OSError as error:
            raise LocalProblem(f"Cannot read '{self._path}': {error.strerror or error}. Try again.") from error
