"""NIfTI images and label maps, in and out, voxel by voxel where they were.

In: decoded slab by slab into a `.npy` file, from which Slicer copies without ever waiting for a decompression. Slicer
reverses the slices of a left-handed grid when it loads it; the same is done here, and the matrix says so. Out: a label
map goes back to the very grid, axis order and byte order of the image's own file.
"""

from __future__ import annotations

import gzip
import io
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy

from ..errors import BadAnswer, LocalProblem
from ..files import atomic_target
from .arrays import bytes_of
from .grids import TOLERANCE, check_affine, distance, index_map, is_left_handed, reorder, reverse_k
from .nifti_header import DTYPES, HEADER_BYTES, NiftiHeader, label_header, new_header, parse_header

__all__ = ["Progress", "read_grid", "read_label", "read_volume", "write_label", "write_volume"]

Progress = Callable[[int, int], None]  # voxels done, voxels in all; may raise to stop

_SLAB_BYTES = 1 << 24
_SAMPLE = 300_000  # voxels looked at for the display window
_MOST_COMPRESSED = 1100  # a byte of a gzip file stands for 1032 bytes at most
_LARGEST = 65535  # voxel value of a label
_LEVEL = 2  # of compression: a label map gets hardly smaller above


def read_grid(path: str | Path) -> NiftiHeader:
    """Return a file's header, without reading its voxels.

    Raises:
        LocalProblem: The file cannot be read.
        BadAnswer: It is not a NIfTI file of one 3D image.
    """
    with _opened(Path(path)) as (_, header):
        return header


def read_volume(path: str | Path, folder: str | Path, progress: Progress | None = None) -> dict[str, object]:
    """Decode an image.

    Args:
        path: NIfTI file.
        folder: Existing folder for the decoded voxels.
        progress: Called after each slab.

    Returns:
        "voxels": path of a `.npy` file (K, J, I); "shape": [I, J, K]; "ijk_to_ras": 4 x 4 list; "low", "high":
        percentiles 0.5 and 99.5, for the display; "source": `path`.

    Raises:
        LocalProblem: A file cannot be read or written.
        BadAnswer: It is not a whole NIfTI file of one 3D image that Slicer can show.
    """
    source = Path(path)
    target = Path(folder) / f"volume-{uuid.uuid4().hex}.npy"
    with _opened(source) as (stream, header):
        check_affine(header.affine, source.name)
        flip = is_left_handed(header.affine)
        slices, total = header.shape[2], _voxels(header)
        step = max(1, round((total / _SAMPLE) ** (1 / 3)))
        sample: list[numpy.ndarray] = []
        with atomic_target(target) as part, part.open("xb") as out:
            start = _npy_header(out, header)
            for first, slab in _slabs(stream, header, source):
                sample.append(slab[-first % step :: step, ::step, ::step].ravel())
                place = slices - first - len(slab) if flip else first
                out.seek(start + place * slab[0].nbytes)
                out.write(bytes_of(slab[::-1] if flip else slab))
                if progress is not None:
                    progress((first + len(slab)) * slab[0].size, total)
    affine = reverse_k(header.affine, slices) if flip else header.affine
    low, high = _window(numpy.concatenate(sample))
    return {
        "voxels": str(target),
        "shape": list(header.shape),
        "ijk_to_ras": affine.tolist(),
        "low": low,
        "high": high,
        "source": str(source),
    }


def read_label(
    path: str | Path, image: str | Path, folder: str | Path, labels: Mapping[str, int], strangers: bool = False
) -> dict[str, object]:
    """Decode a label map that belongs to an image.

    Args:
        path: NIfTI file of the label map.
        image: NIfTI file of the image.
        folder: Existing folder for the decoded voxels.
        labels: Label name -> voxel value.
        strangers: Whether to give a value that is no label's the name "label VALUE", instead of refusing it: an old
            label may have more labels than the server has today.

    Returns:
        "voxels": path of a `.npy` file (K, J, I) of all that is labelled, and "extent": its [i0, i1, j0, j1, k0, k1],
        both ends included, in the grid that `read_volume` gives the image; both None for a label map without labels.
        "shape", "ijk_to_ras": that grid. "counts": voxels, and "values": voxel value, of each label.

    Raises:
        LocalProblem: A file cannot be read or written.
        BadAnswer: The label map is on another grid than the image, or has values that are no label's.
    """
    source = Path(path)
    own = read_grid(image)
    with _opened(source) as (stream, header):
        _check_same_grid(header, own, source.name)
        voxels = numpy.empty(header.shape[::-1], numpy.uint16)
        for first, slab in _slabs(stream, header, source):
            voxels[first : first + len(slab)] = _whole(slab, source.name)
    affine = own.affine
    if is_left_handed(affine):
        voxels, affine = voxels[::-1], reverse_k(affine, own.shape[2])
    extent = _bounding_box(voxels)
    found: dict[str, object] = {"voxels": None, "extent": None}
    tally = numpy.zeros(1, int)
    if extent is not None:
        i0, i1, j0, j1, k0, k1 = extent
        voxels = voxels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
        tally = numpy.bincount(voxels[voxels > 0])
        target = Path(folder) / f"label-{uuid.uuid4().hex}.npy"
        kind = numpy.uint8 if len(tally) <= 256 else numpy.uint16
        with atomic_target(target) as part, part.open("xb") as out:
            numpy.save(out, numpy.ascontiguousarray(voxels, kind))
        found = {"voxels": str(target), "extent": list(extent)}
    stray = sorted(set(numpy.flatnonzero(tally).tolist()) - set(labels.values()))
    if strangers:
        labels = {**labels, **{f"label {value}": value for value in stray}}
    elif stray:
        raise BadAnswer(
            f"Expected the values {sorted(labels.values())} in the label map '{source.name}', got {stray[:10]} too, "
            "which no label of the server has. Check the label map on the server."
        )
    counts = {name: int(tally[value]) if value < len(tally) else 0 for name, value in labels.items()}
    return {
        **found,
        "shape": list(own.shape),
        "ijk_to_ras": affine.tolist(),
        "counts": counts,
        "values": dict(labels),
    }


def write_label(
    image: str | Path, label: numpy.ndarray, extent: Sequence[int], ijk_to_ras: numpy.ndarray, target: str | Path
) -> int:
    """Write a label map on an image's own grid.

    Args:
        image: NIfTI file of the image.
        label: (K, J, I) voxel values 0 to 65535.
        extent: i0, i1, j0, j1, k0, k1 of the array in its grid, both ends included.
        ijk_to_ras: 4 x 4 matrix of that grid, which has the image's voxels, in any axis order.
        target: File to write; compressed if its name ends in .gz.

    Returns:
        How many labelled voxels lay outside the image and are not in the file.

    Raises:
        LocalProblem: A file cannot be read or written.
        BadAnswer: The array's grid has other voxels than the image.
    """
    own = read_grid(image)
    sizes = (1, 1, 1) if min(label.shape) < 1 else label.shape[::-1]
    moved = numpy.array(ijk_to_ras, float)
    moved[:3, 3] += moved[:3, :3] @ [extent[0], extent[2], extent[4]]  # compare where the array is, not far from it
    way = index_map(moved, own.affine, sizes, Path(image).name)
    voxels, ends = reorder(label, [0, sizes[0] - 1, 0, sizes[1] - 1, 0, sizes[2] - 1], way)
    full = numpy.zeros(own.shape[::-1], numpy.uint8 if not label.size or label.max() < 256 else numpy.uint16)
    inside = 0
    if label.size:
        here, there = _overlap(ends, own.shape)
        full[there] = voxels[here]
        inside = int(numpy.count_nonzero(voxels[here]))
    _write(Path(target), label_header(own, full.dtype), full.astype(own.byteorder + full.dtype.str[1:], copy=False))
    return int(numpy.count_nonzero(label)) - inside


def write_volume(voxels: str | Path, ijk_to_ras: numpy.ndarray, target: str | Path) -> None:
    """Write an image.

    Args:
        voxels: `.npy` file (K, J, I).
        ijk_to_ras: 4 x 4 matrix of its grid.
        target: File to write; compressed if its name ends in .gz.

    Raises:
        LocalProblem: A file cannot be read or written, or the voxels are not a 3D array of numbers.
    """
    try:
        array = numpy.load(voxels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise LocalProblem(f"Cannot read the voxels in '{voxels}': {error}.") from error
    affine = numpy.array(ijk_to_ras, float)
    kinds = [numpy.dtype(kind) for kind in DTYPES.values()]
    dtype = array.dtype.newbyteorder("=")
    dtype = dtype if dtype in kinds else numpy.dtype(numpy.uint8 if dtype.kind == "b" else numpy.float32)
    if array.ndim != 3 or array.dtype.kind not in "buif" or not array.size or max(array.shape) > 32767:
        raise LocalProblem(f"Expected a 3D array of numbers to write, got {array.dtype} of shape {array.shape}.")
    header = new_header(array.shape[::-1], affine, dtype)
    _write(Path(target), header, array.astype(dtype.newbyteorder("<"), copy=False))


def _write(target: Path, header: bytes, voxels: numpy.ndarray) -> None:
    """Write a file, whole or not at all; the same voxels give the same bytes."""
    with atomic_target(target) as part, part.open("xb") as raw:
        if target.name.lower().endswith(".gz"):
            with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed:
                _write_slabs(packed, header, voxels)
        else:
            _write_slabs(raw, header, voxels)


def _write_slabs(out: io.BufferedIOBase | BinaryIO | gzip.GzipFile, header: bytes, voxels: numpy.ndarray) -> None:
    out.write(header)
    step = max(1, _SLAB_BYTES // max(1, voxels[0].nbytes))
    for first in range(0, len(voxels), step):
        out.write(bytes_of(voxels[first : first + step]))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO | gzip.GzipFile, NiftiHeader]]:
    """Give an open file, decompressed, at its first voxel."""
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, _decoding(path):
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=raw, mode="rb") if packed else raw
            header = parse_header(stream.read(HEADER_BYTES), path.name)
            most = size * _MOST_COMPRESSED if packed else size
            needed = header.offset + _voxels(header) * header.dtype.itemsize
            if needed > most:
                raise BadAnswer(
                    f"Expected {needed} bytes for an image of {' x '.join(map(str, header.shape))} voxels in "
                    f"'{path.name}', got a file of {size}: it was cut, or its header is damaged."
                )
            stream.seek(header.offset)
            yield stream, header
    except OSError as error:
        raise LocalProblem(f"Cannot read '{path}': {error.strerror or error}. Check the file.") from error


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Name a damaged file as such; some of these errors are OSErrors, as those about writing are."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadAnswer(
            f"Expected a whole NIfTI image in '{path.name}', but it is cut or damaged ({error}). Get the file again."
        ) from error


def _voxels(header: NiftiHeader) -> int:
    return header.shape[0] * header.shape[1] * header.shape[2]


def _slabs(stream: BinaryIO | gzip.GzipFile, header: NiftiHeader, path: Path) -> Iterator[tuple[int, numpy.ndarray]]:
    """Yield the index of a first slice and the slices (k, J, I) from there, scaled, in this computer's byte order."""
    width, height, slices = header.shape
    each = width * height * header.dtype.itemsize
    step = max(1, _SLAB_BYTES // each)
    for first in range(0, slices, step):
        count = min(step, slices - first)
        with _decoding(path):
            content = stream.read(count * each)
            if len(content) != count * each:
                raise EOFError(f"{first * each + len(content)} of {slices * each} bytes of voxels")
        slab = numpy.frombuffer(content, header.dtype).reshape(count, height, width)
        yield first, _scaled(slab, header)
    with _decoding(path):
        while stream.read(_SLAB_BYTES):  # the checksum stands at the end
            pass


def _scaled(slab: numpy.ndarray, header: NiftiHeader) -> numpy.ndarray:
    kind = _scaled_type(header)
    if (header.slope, header.inter) == (1, 0):
        return slab.astype(kind, copy=False)
    if kind.kind in "ui":
        return (slab.astype(numpy.int64) * int(header.slope) + int(header.inter)).astype(kind)
    return (slab * numpy.float64(header.slope) + numpy.float64(header.inter)).astype(kind)


def _scaled_type(header: NiftiHeader) -> numpy.dtype:
    """Return the type of the scaled voxels: the smallest that holds whole numbers if they all stay whole."""
    stored = header.dtype.newbyteorder("=")
    if (header.slope, header.inter) == (1, 0):
        return stored
    whole = header.slope.is_integer() and header.inter.is_integer()
    if stored.kind in "ui" and whole and stored.itemsize <= 4:
        limits = numpy.iinfo(stored)
        ends = sorted(int(header.slope) * end + int(header.inter) for end in (int(limits.min), int(limits.max)))
        for small in (numpy.uint8, numpy.int16, numpy.uint16, numpy.int32):
            if numpy.iinfo(small).min <= ends[0] and ends[1] <= numpy.iinfo(small).max:
                return numpy.dtype(small)
    return numpy.dtype(numpy.float32)


def _npy_header(out: BinaryIO, header: NiftiHeader) -> int:
    """Write the head of a `.npy` file and return where the voxels begin, in bytes."""
    kind = numpy.lib.format.dtype_to_descr(_scaled_type(header))
    about = {"descr": kind, "fortran_order": False, "shape": header.shape[::-1]}
    numpy.lib.format.write_array_header_1_0(out, about)
    return out.tell()


def _window(sample: numpy.ndarray) -> tuple[float, float]:
    sample = sample[numpy.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(value) for value in numpy.percentile(sample, (0.5, 99.5)))
    return low, high if high > low else low + 1.0


def _check_same_grid(label: NiftiHeader, image: NiftiHeader, name: str) -> None:
    what = ""
    if label.shape != image.shape:
        what = f"{' x '.join(map(str, label.shape))} voxels instead of {' x '.join(map(str, image.shape))}"
    else:
        off = distance(label.affine, image.affine, image.shape)
        if not off <= TOLERANCE:
            what = f"voxels up to {off:.3g} voxels beside the image's"
    if what:
        raise BadAnswer(
            f"Expected the label map '{name}' on the grid of its image, got {what}. It belongs to another image, or "
            "was resampled: check it on the server."
        )


def _whole(slab: numpy.ndarray, name: str) -> numpy.ndarray:
    """Return voxel values as whole numbers, which they must be."""
    low, high = (slab.min(), slab.max())
    if not (low >= 0 and high <= _LARGEST) or (slab.dtype.kind == "f" and (slab != numpy.rint(slab)).any()):
        raise BadAnswer(
            f"Expected whole numbers from 0 to {_LARGEST} in the label map '{name}', got values from {low} to {high}. "
            "Check the label map on the server."
        )
    return slab.astype(numpy.uint16, copy=False)


def _bounding_box(voxels: numpy.ndarray) -> tuple[int, ...] | None:
    """Return i0, i1, j0, j1, k0, k1 of all that is not 0, None if all is."""
    ends: list[int] = []
    for axis in range(3):
        if axis == 0:
            used = numpy.flatnonzero([slice_.any() for slice_ in voxels])
            if not used.size:
                return None
            voxels = voxels[used[0] : used[-1] + 1]
            flat = voxels.any(axis=0)  # (J, I)
        else:
            used = numpy.flatnonzero(flat.any(axis=2 - axis))
        ends = [int(used[0]), int(used[-1]), *ends]
    return tuple(ends)


def _overlap(ends: Sequence[int], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the part of an array at `ends` that is inside a grid, as slices (k, j, i) of the array and of the grid."""
    here, there = [], []
    for axis in (2, 1, 0):
        first, last = max(ends[2 * axis], 0), min(ends[2 * axis + 1], shape[axis] - 1)
        last = max(last, first - 1)
        there.append(slice(first, last + 1))
        here.append(slice(first - ends[2 * axis], last + 1 - ends[2 * axis]))
    return tuple(here), tuple(there)
