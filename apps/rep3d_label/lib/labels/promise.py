"""Whether a NRRD or MetaImage file holds what its header promises: ITK takes the memory first and looks afterwards.

What its header means, ITK itself says, without a voxel. Packed voxels are read once as a stream, up to their checksum.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import SimpleITK as sitk

from rep3d.errors import LabelError
from rep3d.files import unpacked_sizes
from rep3d.imaging.limits import check_voxels
from rep3d.memory import require_memory

__all__ = ["check_promise", "no_label_map"]

_BLOCK = 1 << 20
_TYPES = {f"{kind}Int{8 * size}": size for kind in ("", "U") for size in (1, 2, 4, 8)} | {"Float32": 4, "Float64": 8}
_BYTES = {getattr(sitk, f"sitk{kind}{name}"): size for name, size in _TYPES.items() for kind in ("", "Vector")}
_PACKED = {
    "NrrdImageIO": re.compile(rb"^encoding:\s*gz(?:ip)?\s*$", re.MULTILINE | re.IGNORECASE),
    "MetaImageIO": re.compile(rb"^\s*CompressedData\s*[=:]\s*T", re.MULTILINE | re.IGNORECASE),
}
_AS_TEXT = {
    "NrrdImageIO": re.compile(rb"^encoding:\s*(?:txt|text|ascii)\s*$", re.MULTILINE | re.IGNORECASE),
    "MetaImageIO": re.compile(rb"^\s*BinaryData\s*[=:]\s*F", re.MULTILINE | re.IGNORECASE),
}
_PACKED_SIZE = re.compile(rb"^\s*CompressedDataSize\s*[=:]\s*(\d{1,18})\s*$", re.MULTILINE | re.IGNORECASE)
_SKIP = re.compile(rb"^(?:line|byte) skip:\s*(?!0\s*$)", re.MULTILINE | re.IGNORECASE)


def no_label_map(file: Path, error: RuntimeError) -> LabelError:
    """Return what is said of a file that ITK does not read, with the last line of its words."""
    reason = str(error).strip().splitlines()[-1].replace(str(file), file.name)
    return LabelError(f"{file.name} cannot be read as a label map, or is damaged ({reason}). Export it as NIfTI.")


def check_promise(file: Path, reader: str, header: bytes, begin: int) -> None:
    """Refuse a file that has too many voxels, cannot hold them, or has a wrong checksum.

    Args:
        file: a ``.nrrd`` or ``.mha`` file.
        reader: ITK's name for its reader.
        header: its header.
        begin: where its voxels begin.

    Raises:
        LabelError: with the reason.
        OutOfMemoryError: if there is not enough memory for it.
    """
    info = sitk.ImageFileReader()
    info.SetFileName(str(file))
    info.SetImageIO(reader)
    try:
        info.ReadImageInformation()
    except RuntimeError as error:
        raise no_label_map(file, error) from error
    if not header:
        raise LabelError(f"{file.name} has a header without an end. Export it as NIfTI.")
    shape, layers = info.GetSize(), info.GetNumberOfComponents()
    check_voxels((*shape, layers) if layers > 1 else shape, file.name, LabelError)
    if info.GetPixelID() not in _BYTES:
        raise LabelError(f"{file.name} has voxels that are not one number each. Export it as a label map (NIfTI).")
    count, on_disk = math.prod(shape) * layers, file.stat().st_size - begin
    promised = count * _BYTES[info.GetPixelID()]
    if _PACKED[reader].search(header):
        if _SKIP.search(header):
            raise LabelError(f"{file.name} says to skip what stands before its voxels. Save it again without that.")
        told = _PACKED_SIZE.findall(header)
        if reader == "MetaImageIO" and told != [str(on_disk).encode()]:  # else MetaIO makes up what it cannot unpack
            raise LabelError(
                f"{file.name} does not say that {on_disk:,} bytes follow (CompressedDataSize). Save it anew."
            )
        _check_packed(file, begin, promised, zipped=reader == "NrrdImageIO")
    elif on_disk < (2 * count - 1 if _AS_TEXT[reader].search(header) else promised):
        raise _contradiction(file, promised, f"{on_disk:,} follow")
    require_memory(2 * promised, f"to read {file.name}", "By its header it has so many voxels. Is that right?")


def _contradiction(file: Path, promised: int, found: str) -> LabelError:
    return LabelError(
        f"{file.name} is damaged: its header announces {promised:,} bytes of voxels, and {found}. Copy it again, or "
        f"export it again."
    )


def _check_packed(file: Path, begin: int, promised: int, zipped: bool) -> None:
    found = 0
    try:
        with file.open("rb") as content:
            content.seek(begin)
            for size in _gzip_sizes(content) if zipped else _zlib_sizes(content):
                found += size
                if found > promised:
                    raise _contradiction(file, promised, "more follow")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LabelError(
            f"{file.name} is cut short or damaged: its voxels cannot be unpacked. Copy it again, or export it again."
        ) from error
    if found < promised:
        raise _contradiction(file, promised, f"{found:,} follow")


def _gzip_sizes(content: BinaryIO) -> Iterator[int]:
    with gzip.GzipFile(fileobj=content) as unpacked:
        while block := unpacked.read1(_BLOCK):
            yield len(block)


def _zlib_sizes(content: BinaryIO) -> Iterator[int]:
    unpacker = zlib.decompressobj(47)  # zlib's own form or gzip's, as MetaIO takes them
    yield from unpacked_sizes(content, unpacker)
    if not unpacker.eof:
        raise EOFError("it ends before its checksum")
