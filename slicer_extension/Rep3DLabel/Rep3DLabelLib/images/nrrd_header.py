"""The header of a NRRD file, as far as segmentations need it: type, sizes, grid, and the keys of the file's writer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy

from ..errors import BadAnswer

__all__ = ["NrrdHeader", "escape", "parse_header"]

_DTYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
}
_SIGNS = {  # of x and y, to get from the file's space to RAS
    "left-posterior-superior": (-1.0, -1.0),
    "lps": (-1.0, -1.0),
    "right-anterior-superior": (1.0, 1.0),
    "ras": (1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0),
    "las": (-1.0, 1.0),
}


@dataclass(frozen=True, eq=False)
class NrrdHeader:
    """A header.

    Attributes:
        dtype: Type of the voxels, with byte order.
        sizes: Along each axis, the fastest first.
        list_axis: Which of four axes counts the layers; -1 if there are three axes.
        encoding: In lower case.
        ijk_to_ras: 4 x 4 matrix of the file's own grid, in mm.
        keys: The writer's keys and values.
    """

    dtype: numpy.dtype
    sizes: tuple[int, ...]
    list_axis: int
    encoding: str
    ijk_to_ras: numpy.ndarray
    keys: Mapping[str, str]


def escape(text: str) -> str:
    """Return a value as it stands in a header."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(text: str) -> str:
    return re.sub(r"\\(n|\\)", lambda match: "\n" if match.group(1) == "n" else "\\", text)


def parse_header(stream: BinaryIO, name: str, limit: int) -> NrrdHeader:
    """Read a header up to its end, so that the voxels come next.

    Args:
        stream: The file, at its beginning.
        name: Of the file, for errors.
        limit: Bytes that a header may have.

    Raises:
        BadAnswer: It is not that of a 3D image or of layers of one.
    """
    fields, keys = _lines(stream, name, limit)
    try:
        return _build(fields, keys, name)
    except (ValueError, KeyError, IndexError) as error:
        raise BadAnswer(
            f"Expected the header of a segmentation in '{name}', got one that is not complete or not right "
            f"({type(error).__name__}: {error}). Save the segmentation again in Slicer."
        ) from error


def _lines(stream: BinaryIO, name: str, limit: int) -> tuple[dict[str, str], dict[str, str]]:
    if not re.match(rb"NRRD000[1-9]\s*$", stream.readline(16)):
        raise BadAnswer(f"Expected a segmentation file (.seg.nrrd) in '{name}', got another kind of file.")
    fields: dict[str, str] = {}
    keys: dict[str, str] = {}
    while True:
        raw = stream.readline(limit)
        limit -= len(raw)
        if not raw.endswith(b"\n"):
            raise BadAnswer(f"Expected a whole segmentation in '{name}', but its header has no end: the file was cut.")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            return fields, keys
        if line.startswith("#"):
            continue
        key, separator, value = line.partition(":=")
        if separator and ": " not in key:
            key, value = _unescape(key), _unescape(value)
            if keys.setdefault(key, value) != value:
                raise BadAnswer(f"Expected one value of {key} in '{name}', got {keys[key]!r:.50} and {value!r:.50}.")
        else:
            key, _, value = line.partition(":")
            fields[key.strip().lower()] = value.strip()


def _build(fields: Mapping[str, str], keys: Mapping[str, str], name: str) -> NrrdHeader:
    sizes = tuple(int(size) for size in fields["sizes"].split())
    code = next((code for code, names in _DTYPES.items() if fields["type"].lower() in names), None)
    if code is None:
        raise BadAnswer(f"Expected whole numbers as voxels in '{name}', got the type '{fields['type']}'.")
    if "data file" in fields or "datafile" in fields:
        raise BadAnswer(
            f"Expected header and voxels in one file, but '{name}' names another one. Save it as .seg.nrrd."
        )
    if len(sizes) not in (3, 4) or min(sizes) < 1 or int(fields["dimension"]) != len(sizes):
        raise BadAnswer(f"Expected three axes, or four with layers, in '{name}', got sizes {sizes}.")
    if set(re.findall('"([^"]*)"', fields.get("space units", ""))) - {"mm", "", "???"}:
        raise ValueError(f"space units {fields['space units']}, not mm")
    vectors = re.findall(r"none|\([^)]*\)", fields["space directions"])
    if len(vectors) != len(sizes) or vectors.count("none") != len(sizes) - 3:
        raise ValueError(f"space directions {fields['space directions']}")
    list_axis = vectors.index("none") if len(sizes) == 4 else -1
    if 0 < list_axis < 3:
        raise ValueError("the layers stand between the axes of space")
    matrix = numpy.eye(4)
    for axis, vector in enumerate(vector for vector in vectors if vector != "none"):
        matrix[:3, axis] = _numbers(vector)
    matrix[:3, 3] = _numbers(fields["space origin"])
    matrix[:2] *= numpy.array(_SIGNS[fields["space"].lower()])[:, None]
    if not numpy.isfinite(matrix).all():
        raise ValueError("its grid is not finite")
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    return NrrdHeader(numpy.dtype(order + code), sizes, list_axis, fields["encoding"].lower(), matrix, keys)


def _numbers(vector: str) -> list[float]:
    numbers = [float(part) for part in vector.strip("() ").split(",")]
    if len(numbers) != 3:
        raise ValueError(f"vector {vector}")
    return numbers
