"""`.seg.nrrd` files: segments with names, colours and tags, in layers; readable by Slicer's own loader.

Slicer's storage node needs the application and blocks it while it crops and compresses. Written here, a draft is a copy
of memory, and the child process reads it without Slicer. What Slicer's format cannot carry exactly (a tag with "|" in
it) is written a second time under a key of our own, which Slicer ignores.
Format: https://teem.sourceforge.net/nrrd/format.html and Slicer's vtkMRMLSegmentationStorageNode.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy

from ..errors import BadAnswer, LocalProblem
from ..files import atomic_target
from .arrays import bytes_of
from .grids import TOLERANCE, distance
from .nrrd_header import NrrdHeader, escape, parse_header

__all__ = ["SegmentEntry", "SegmentationData", "read", "write", "write_in_steps"]

_STEP_BYTES = 8 << 20  # written in one step: a few milliseconds
_EXACT = "Rep3DLabelExact"
_GEOMETRY = "Reference image geometry"
_EMPTY = "0 -1 0 -1 0 -1"
_TYPES = {
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
}
_MAX_HEADER = 1 << 26


@dataclass(frozen=True)
class SegmentEntry:
    """A segment.

    Attributes:
        id: Its id, unique in the segmentation.
        name: As shown.
        colour: Red, green, blue, 0 to 1.
        layer: Index of the layer that holds it.
        value: Value of its voxels in that layer.
        tags: All tags.
    """

    id: str
    name: str
    colour: tuple[float, float, float]
    layer: int
    value: int
    tags: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, eq=False)
class SegmentationData:
    """A segmentation on the grid of its image.

    Attributes:
        layers: Arrays (K, J, I) of whole numbers, all of one shape; segments that overlap are in different ones. ()
            where nothing is drawn.
        extent: i0, i1, j0, j1, k0, k1 of the arrays in the reference grid, both ends included.
        shape: I, J, K of the reference grid.
        ijk_to_ras: 4 x 4 matrix of the reference grid, whose index 0, 0, 0 is the image's first voxel.
        segments: In the order of the segment list.
    """

    layers: tuple[numpy.ndarray, ...]
    extent: tuple[int, ...]
    shape: tuple[int, int, int]
    ijk_to_ras: numpy.ndarray
    segments: tuple[SegmentEntry, ...]

    def __post_init__(self) -> None:
        if len(self.extent) != 6 or numpy.shape(self.ijk_to_ras) != (4, 4) or len(self.shape) != 3:
            raise ValueError(
                f"Expected an extent of 6 numbers, a shape of 3 and a 4 x 4 matrix, got {self.extent}, {self.shape} "
                f"and {numpy.shape(self.ijk_to_ras)}."
            )
        i0, i1, j0, j1, k0, k1 = self.extent
        expected = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        for layer in self.layers:
            if layer.shape != expected or layer.dtype.kind not in "ui":
                raise ValueError(
                    f"Expected layers of whole numbers of shape {expected} for the extent {self.extent}, got "
                    f"{layer.dtype} of shape {layer.shape}."
                )
        if len({segment.id for segment in self.segments}) != len(self.segments):
            raise ValueError(f"Expected different segment ids, got {[segment.id for segment in self.segments]}.")
        if any(segment.layer < 0 for segment in self.segments):
            raise ValueError("Expected layers numbered from 0, got a negative one.")


def write(path: str | Path, data: SegmentationData) -> None:
    """Write a segmentation without compression, whole or not at all.

    Raises:
        LocalProblem: The file cannot be written.
    """
    for _ in write_in_steps(path, data):
        pass


def write_in_steps(path: str | Path, data: SegmentationData) -> Iterator[float]:
    """As `write`, some megabytes with each step; yields the part that is done. Closed early, it leaves nothing.

    Raises:
        LocalProblem: The file cannot be written.
    """
    layers, extent = _layers_to_write(data)
    dtype = numpy.result_type(*layers)
    if dtype.name not in _TYPES:
        dtype = numpy.dtype(numpy.int32)
    header = _header(data, layers, extent, dtype)
    with atomic_target(Path(path)) as part, part.open("xb") as stream:
        stream.write(header)
        slices, plane = len(layers) * len(layers[0]), max(1, layers[0][0].size * dtype.itemsize)
        count = max(1, _STEP_BYTES // plane)
        for number, layer in enumerate(layers):
            for first in range(0, len(layer), count):
                slab = layer[first : first + count]
                stream.write(bytes_of(slab.astype(dtype.newbyteorder("<"), copy=False)))
                yield min(1.0, (number * len(layer) + first + count) / slices)


def _layers_to_write(data: SegmentationData) -> tuple[list[numpy.ndarray], tuple[int, ...]]:
    """Return layers for all segments: Slicer's loader drops a segment whose layer is not in the file.

    It also takes a file of one voxel for one without voxels, so one voxel gets a neighbour.
    """
    layers, extent = list(data.layers), tuple(data.extent)
    if not layers or not layers[0].size:
        extent = (0, 0, 0, 0, 0, 0)
        layers = [numpy.zeros((1, 1, 1), numpy.uint8)]
    elif layers[0].size == 1:
        extent = (extent[0], extent[1] + 1, *extent[2:])
        layers = [numpy.pad(layer, ((0, 0), (0, 0), (0, 1))) for layer in layers]
    missing = max((segment.layer for segment in data.segments), default=0) + 1 - len(layers)
    layers += [numpy.zeros(layers[0].shape, numpy.uint8)] * missing
    return layers, extent


def _header(data: SegmentationData, layers: list[numpy.ndarray], extent: tuple[int, ...], dtype: numpy.dtype) -> bytes:
    matrix = numpy.array(data.ijk_to_ras, float)
    i0, _, j0, _, k0, _ = extent
    origin = matrix @ (i0, j0, k0, 1.0)
    lps = numpy.array([-1.0, -1.0, 1.0])
    vectors = [_vector(matrix[:3, axis] * lps) for axis in range(3)]
    sizes, kinds = [*reversed(layers[0].shape)], ["domain"] * 3
    if len(layers) > 1:
        sizes, kinds, vectors = [*sizes, len(layers)], [*kinds, "list"], [*vectors, "none"]
    drawn = bool(data.layers) and bool(data.layers[0].size)
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "# http://teem.sourceforge.net/nrrd/format.html",
        f"type: {_TYPES[dtype.name]}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(origin[:3] * lps)}",
    ]
    reach = f"0 {sizes[0] - 1} 0 {sizes[1] - 1} 0 {sizes[2] - 1}" if drawn else _EMPTY
    for number, segment in enumerate(data.segments):
        lines += [f"Segment{number}_{key}:={value}" for key, value in _segment_keys(segment, reach)]
    grid = [*matrix.ravel().tolist(), *(end for length in data.shape for end in (0, length - 1))]
    lines += [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        f"Segmentation_ConversionParameters:={_GEOMETRY}|{''.join(f'{number!r};' for number in grid)}|&",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        f"Segmentation_ReferenceImageExtentOffset:={i0} {j0} {k0}",
    ]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def _vector(values: numpy.ndarray) -> str:
    return f"({','.join(repr(float(value) + 0.0) for value in values)})"


def _segment_keys(segment: SegmentEntry, reach: str) -> Iterator[tuple[str, str]]:
    name, identifier = _one_line(segment.name), _one_line(segment.id)
    tags = "".join(f"{_plain(key)}:{_plain(value)}|" for key, value in segment.tags.items())
    yield "Color", " ".join(repr(float(part)) for part in segment.colour)
    yield "ColorAutoGenerated", "0"
    yield "Extent", reach
    yield "ID", escape(identifier)
    yield "LabelValue", str(int(segment.value))
    yield "Layer", str(int(segment.layer))
    yield "Name", escape(name)
    yield "NameAutoGenerated", "0"
    yield "Tags", escape(tags)
    if (identifier, name, _parse_tags(tags)) != (segment.id, segment.name, dict(segment.tags)):
        exact = {"id": segment.id, "name": segment.name, "tags": dict(segment.tags)}
        yield _EXACT, escape(json.dumps(exact))


def _one_line(text: str) -> str:
    """Return the text, or what is nearest to it among those that a header carries."""
    return text.encode("utf-8", "replace").decode().replace("\r", " ").strip() or "-"


def _plain(text: str) -> str:
    """Return a part of a tag without the sign that separates tags."""
    return text.encode("utf-8", "replace").decode().replace("|", "/").replace("\r", " ")


def _parse_tags(text: str) -> dict[str, str]:
    return {key: value for key, colon, value in (tag.partition(":") for tag in text.split("|")) if colon}


def read(path: str | Path, mapped: bool = False) -> SegmentationData:
    """Read a segmentation that `write` or Slicer has written, compressed or not.

    Args:
        mapped: Leave voxels that are not compressed in the file until they are used; nobody may write to it meanwhile.

    Raises:
        LocalProblem: The file cannot be read.
        BadAnswer: It is not such a file, or not a whole one.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            header = parse_header(stream, path.name, _MAX_HEADER)
            content = (_map(stream) if mapped and header.encoding == "raw" else None) or stream.read()
    except OSError as error:
        raise LocalProblem(f"Cannot read '{path}': {error.strerror or error}. Check the file.") from error
    layers = _decode(content, header, path.name)
    matrix, extent, shape = _grid(header, layers[0].shape, path.name)
    segments = tuple(_segments(header, path.name))
    lost = [segment.name for segment in segments if segment.layer >= len(layers)]
    if lost:
        raise BadAnswer(f"Expected the voxels of {lost} in '{path.name}', got {len(layers)} layers without theirs.")
    blank = layers[0].size == 1 and not any(layer.any() for layer in layers)
    try:
        return SegmentationData(() if blank else layers, extent if not blank else _no_extent(), shape, matrix, segments)
    except ValueError as error:
        raise BadAnswer(f"Expected a segmentation in '{path.name}', got a contradiction: {error}") from error


def _map(stream: BinaryIO) -> memoryview | None:
    """Return the rest of a file as a memory map, None where its file system has none."""
    try:
        return memoryview(mmap(stream.fileno(), 0, access=ACCESS_READ))[stream.tell() :]
    except OSError:
        return None


def _no_extent() -> tuple[int, ...]:
    return (0, -1, 0, -1, 0, -1)


def _decode(content: bytes | memoryview, header: NrrdHeader, name: str) -> tuple[numpy.ndarray, ...]:
    """Return the layers (K, J, I)."""
    if header.encoding in ("gzip", "gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise BadAnswer(f"Expected a whole segmentation in '{name}', but it is damaged ({error}).") from error
    elif header.encoding != "raw":
        raise BadAnswer(f"Expected raw or gzip encoding in '{name}', got '{header.encoding}'. Save it again in Slicer.")
    expected = int(numpy.prod(header.sizes, dtype=object)) * header.dtype.itemsize
    if len(content) < expected:
        raise BadAnswer(f"Expected {expected} bytes of voxels in '{name}', got {len(content)}: the file was cut.")
    values = numpy.frombuffer(content, header.dtype, expected // header.dtype.itemsize)
    voxels = values.reshape(header.sizes[::-1])
    voxels = voxels.astype(_smallest(voxels), copy=False)
    if len(header.sizes) == 3:
        return (voxels,)
    layer_axis = 3 - header.list_axis
    return tuple(numpy.ascontiguousarray(layer) for layer in numpy.moveaxis(voxels, layer_axis, 0))


def _smallest(voxels: numpy.ndarray) -> numpy.dtype:
    """Return the type to keep the voxels in: 8 or 16 bits where they fit, in the byte order of this computer."""
    native = voxels.dtype.newbyteorder("=")
    if native.itemsize <= 2 and native != numpy.int8:
        return native
    low, high = int(voxels.min()), int(voxels.max())
    for small in (numpy.uint8, numpy.uint16, numpy.int16, numpy.int32):
        if numpy.iinfo(small).min <= low and high <= numpy.iinfo(small).max:
            return numpy.dtype(small)
    return native


def _grid(
    header: NrrdHeader, array: tuple[int, ...], name: str
) -> tuple[numpy.ndarray, tuple[int, ...], tuple[int, int, int]]:
    """Return the reference grid's matrix, the extent of the arrays in it, and its shape."""
    offset = [0, 0, 0]
    if "Segmentation_ReferenceImageExtentOffset" in header.keys:
        offset = _whole_numbers(header.keys["Segmentation_ReferenceImageExtentOffset"], 3, name)
    own = header.ijk_to_ras.copy()
    own[:3, 3] -= own[:3, :3] @ offset
    sizes = array[::-1]
    ends = [offset[axis] + sizes[axis] for axis in range(3)]
    reference = _reference(header)
    if reference is not None and distance(reference[0], own, ends) <= TOLERANCE:
        matrix, first, last = reference
    else:  # the segments are on a grid of their own
        matrix, first, last = own, [0, 0, 0], [max(end, 1) - 1 for end in ends]
    extent = [number for axis in range(3) for number in (offset[axis] - first[axis], ends[axis] - 1 - first[axis])]
    if any(first):
        matrix = matrix.copy()
        matrix[:3, 3] += matrix[:3, :3] @ first
    shape = (last[0] - first[0] + 1, last[1] - first[1] + 1, last[2] - first[2] + 1)
    return matrix, tuple(extent), shape


def _reference(header: NrrdHeader) -> tuple[numpy.ndarray, list[int], list[int]] | None:
    """Return the matrix and the first and last indices of the image that was segmented, None if it is not named."""
    for parameter in header.keys.get("Segmentation_ConversionParameters", "").split("&"):
        name, _, rest = parameter.partition("|")
        numbers = rest.partition("|")[0].strip(";").split(";")
        if name == _GEOMETRY and len(numbers) == 22:
            try:
                values = [float(number) for number in numbers]
            except ValueError:
                return None
            ends = [int(value) for value in values[16:]]
            if any(ends[axis] > ends[axis + 1] for axis in (0, 2, 4)):
                return None
            return numpy.array(values[:16]).reshape(4, 4), ends[0::2], ends[1::2]
    return None


def _segments(header: NrrdHeader, name: str) -> Iterator[SegmentEntry]:
    found = (re.fullmatch(r"Segment(\d+)_(?:ID|Name)", key) for key in header.keys)
    for number in sorted({int(match[1]) for match in found if match}):
        keys = {key: header.keys.get(f"Segment{number}_{key}") for key in ("ID", "Name", "Color", "Tags", _EXACT)}
        # Files of Slicer before version 4.11 have a layer for each segment, and no values.
        alone = len(header.sizes) == 3 and f"Segment{number}_LabelValue" in header.keys
        layer = _whole_numbers(header.keys.get(f"Segment{number}_Layer", "0" if alone else str(number)), 1, name)[0]
        value = _whole_numbers(header.keys.get(f"Segment{number}_LabelValue", "1"), 1, name)[0]
        identifier = keys["ID"] or f"Segment_{number}"
        label = identifier if keys["Name"] is None else keys["Name"]
        tags = _parse_tags(keys["Tags"] or "")
        written = keys[_EXACT]
        if written:
            try:
                exact = json.loads(written)
                identifier, label, tags = exact["id"], exact["name"], exact["tags"]
            except (ValueError, KeyError, TypeError) as error:
                raise BadAnswer(f"Expected a segment in '{name}', got {written!r}.") from error
        yield SegmentEntry(identifier, label, _colour(keys["Color"], name), layer, value, tags)


def _colour(text: str | None, name: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in (text or "0.5 0.5 0.5").split())
    except ValueError as error:
        raise BadAnswer(f"Expected a colour of three numbers in '{name}', got '{text}'.") from error
    return red, green, blue


def _whole_numbers(text: str, count: int, name: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise BadAnswer(f"Expected {count} whole numbers in the header of '{name}', got '{text}'.")
    return numbers
