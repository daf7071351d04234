"""NIfTI files without what their headers may say of a patient; voxels, grid and scaling stay, bit for bit.

Converters write names, ids and dates into free text (``descrip``, ``db_name``, ``aux_file``, ``intent_name``), into
extensions (a whole DICOM header, in the one of code 2), and into the header that gzip puts before a file. All of that
is blanked where it stands, so that nothing else moves; what follows the voxels is left out.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import nibabel as nib

from rep3d.files import copy_whole, unpacked_sizes, whole_file
from rep3d.imaging.header import HEAD, kind_of

__all__ = ["copy_nameless", "make_nameless"]

_TEXTS = {348: ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16)), 540: ((240, 80), (320, 24), (508, 16), (525, 15))}
"""Where text stands in the headers of NIfTI-1 and NIfTI-2, by their length: offset and length, in bytes."""
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
    with gzip.open(source) if packed else source.open("rb") as content:
        head = content.read(HEAD)
        kind = kind_of(head)
        if kind is None:
            copy_whole(source, target)
            return
        header = kind.header_class(head[: kind.header_class.sizeof_hdr], check=False)
        content.seek(0)
        before = content.read(_begin_of_voxels(header))
        blank, left = _blanked(before, header.sizeof_hdr), _bytes_of_voxels(header)
        if blank == before and _is_plain(source, packed, len(before) + left):
            copy_whole(source, target)
            return
        with whole_file(target) as out:
            if packed:
                with gzip.GzipFile("", "wb", _LEVEL, out, 0) as packing:
                    packing.write(blank)
                    _copy(content, packing, left)
            else:
                out.write(blank)
                _copy(content, out, left)


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


def _begin_of_voxels(header: nib.Nifti1Header) -> int:
    start = header["vox_offset"]
    return int(start) if header.sizeof_hdr < start < _LONGEST else int(header.sizeof_hdr)


def _bytes_of_voxels(header: nib.Nifti1Header) -> int:
    axes, *sides = map(int, header["dim"])
    return max(0, math.prod(sides[: max(0, axes)]) * int(header["bitpix"]) // 8)


def _is_plain(source: Path, packed: bool, length: int) -> bool:
    """Return whether a file has so many bytes and no more; packed, in one member without texts of its own."""
    if not packed:
        return source.stat().st_size <= length
    unpacker, came = zlib.decompressobj(16 + zlib.MAX_WBITS), 0
    with source.open("rb") as file:
        if file.read(4)[3] & _GZIP_TEXTS:
            return False
        file.seek(0)
        for part in unpacked_sizes(file, unpacker):
            came += part
            if came > length:
                return False
        return not unpacker.unused_data and not file.read(1)


def _blanked(before: bytes, size: int) -> bytes:
    """Return what stands before the voxels, of which ``size`` bytes are the header, without its texts."""
    blank = bytearray(before)
    for place, length in _TEXTS[size]:
        blank[place : place + length] = bytes(length)
    blank[size:] = bytes(len(blank) - size)
    return bytes(blank)
