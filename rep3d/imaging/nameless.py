"""NIfTI files without what their headers may say of a patient; voxels, grid and scaling stay, bit for bit.

Converters write names, ids and dates into free text (``descrip``, ``db_name``, ``aux_file``, ``intent_name``), into
extensions (a whole DICOM header, in the one of code 2), and into the header that gzip puts before a file. All of that
is blanked where it stands, so that nothing else moves; what follows the voxels is left out.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from rep3d.files import copy_whole, whole_file

__all__ = ["copy_nameless", "make_nameless"]

_TEXTS = {348: ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)), 540: ((240, 80), (320, 24), (508, 16), (525, 15))}
"""Where text stands in the headers of NIfTI-1 and NIfTI-2, by their length: offset and length, in bytes."""
_VOXELS = {348: (108, "f"), 540: (168, "q")}  # where it says at which byte the voxels begin, and as what
_SHAPES = {348: (40, "h", 72), 540: (16, "q", 14)}  # where its axes and sides stand, as what, and the bits of a voxel
_LONGEST = 64 << 20  # bytes before the voxels that are looked at
_GZIP_TEXTS = 0b11110  # flags of gzip: checksum of the header, extra, name, comment
_LEVEL = 3
_BLOCK = 1 << 20
_BEHIND = 1 << 16  # bytes behind the voxels of a packed file that are left out; one that goes on and on is refused


def copy_nameless(source: Path, target: Path) -> None:
    """Copy a NIfTI file, whole or not at all, without what its header says of a patient.

    Raises:
        OSError, EOFError, zlib.error: if it cannot be read.
    """
    packed = source.name.lower().endswith(".gz")
    with gzip.open(source) if packed else source.open("rb") as voxels:
        before = _before_voxels(voxels)
        blank, left = _blanked(before), _bytes_of_voxels(before)
        if blank == before and _is_plain(source, packed, len(before) + left):
            copy_whole(source, target)
            return
        with whole_file(target) as out:
            if packed:
                with gzip.GzipFile("", "wb", _LEVEL, out, 0) as packing:
                    packing.write(blank)
                    _copy(voxels, packing, left)
            else:
                out.write(blank)
                _copy(voxels, out, left)


def make_nameless(file: Path) -> None:
    """Do the same to a file of ours; one that is no NIfTI file, or a damaged one, stays as it is, to be refused."""
    if not file.name.lower().endswith((".nii", ".nii.gz")):
        return
    other = file.with_name(f"nameless-{file.name}")
    try:
        copy_nameless(file, other)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return
    os.replace(other, file)


def _copy(source: BinaryIO | gzip.GzipFile, target: BinaryIO | gzip.GzipFile, left: int) -> None:
    while block := source.read(min(left, _BLOCK)):
        target.write(block)
        left -= len(block)
    if len(source.read(_BEHIND + 1)) > _BEHIND and isinstance(source, gzip.GzipFile):  # its checksum is looked at, too
        raise gzip.BadGzipFile("it goes on behind its voxels")


def _bytes_of_voxels(before: bytes) -> int:
    """Return how many bytes the voxels have by the header; 0 where there is none."""
    size = _size(before) if len(before) >= 348 else None
    if size is None or len(before) < size:
        return 0
    order, (shape, kind, bits) = _order(before, size), _SHAPES[size]
    axes, *sides = struct.unpack_from(f"{order}8{kind}", before, shape)
    (each,) = struct.unpack_from(f"{order}h", before, bits)
    return max(0, math.prod(sides[: max(0, min(axes, 7))]) * each // 8)


def _is_plain(source: Path, packed: bool, length: int) -> bool:
    """Return whether a file has so many bytes and no more; packed, in one member without texts of its own."""
    if not packed:
        return source.stat().st_size <= length
    unpacker, came = zlib.decompressobj(16 + zlib.MAX_WBITS), 0
    with source.open("rb") as file:
        block = file.read(_BLOCK)
        if len(block) < 4 or block[3] & _GZIP_TEXTS:
            return False
        while block and came <= length and not unpacker.eof:
            came += len(unpacker.decompress(block, _BLOCK))
            block = unpacker.unconsumed_tail or file.read(_BLOCK)
        return came <= length and not unpacker.unused_data and not file.read(1)


def _before_voxels(file: BinaryIO | gzip.GzipFile) -> bytes:
    """Read up to the voxels; what is no NIfTI file is read a little, and has none."""
    head = file.read(348)
    if len(head) < 348 or (size := _size(head)) is None:
        return head
    head += file.read(size - len(head))
    place, kind = _VOXELS[size]
    if len(head) < size:
        return head
    (start,) = struct.unpack_from(_order(head, size) + kind, head, place)
    return head + file.read(int(start) - size) if size < start < _LONGEST else head


def _blanked(before: bytes) -> bytes:
    size = _size(before) if len(before) >= 348 else None
    if size is None or len(before) < size:
        return before
    blank = bytearray(before)
    for place, length in _TEXTS[size]:
        blank[place : place + length] = bytes(length)
    blank[size:] = bytes(len(blank) - size)
    return bytes(blank)


def _size(head: bytes) -> int | None:
    return next((size for size in _TEXTS for order in "<>" if struct.unpack_from(f"{order}i", head)[0] == size), None)


def _order(head: bytes, size: int) -> str:
    return "<" if struct.unpack_from("<i", head)[0] == size else ">"
