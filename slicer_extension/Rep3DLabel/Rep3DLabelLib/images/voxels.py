"""From the server's voxels to the files that the scene reads, and back.

Slicer reverses the slices of a left-handed grid when it loads an image; the same is done here, and the matrix says so.
What goes to the server is on the image's own grid again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy

from ..client.voxels import Voxels
from ..errors import BadAnswer, LocalProblem
from ..files import atomic_target
from .files import LabelFile, VolumeFile
from .grids import check_affine, is_left_handed, reverse_k

__all__ = ["Progress", "image_to_send", "label_file", "label_to_send", "volume_file"]

Progress = Callable[[int, int], None]  # slices done, slices in all; may raise to stop

_SAMPLE = 300_000  # voxels looked at for the display window


def volume_file(
    voxels: Voxels, folder: str | Path, name: str, progress: Progress = lambda done, total: None
) -> VolumeFile:
    """Make an image's voxels a file for the scene.

    Args:
        voxels: As they came; their file is removed.
        folder: Existing folder for the new file.
        name: Of the image, for errors.
        progress: Called after some slices.

    Raises:
        LocalProblem: A file cannot be read or written.
        BadAnswer: Slicer cannot show the grid.
    """
    affine = numpy.array(voxels.affine)
    check_affine(affine, name)
    flip, (columns, rows, slices) = is_left_handed(affine), voxels.shape
    kind = numpy.dtype(voxels.dtype)
    step = max(1, round((columns * rows * slices / _SAMPLE) ** (1 / 3)))
    sample = []
    target = Path(folder) / f"volume-{uuid.uuid4().hex}.npy"
    with atomic_target(target) as part:
        made = numpy.lib.format.open_memmap(part, "w+", kind.newbyteorder("="), (slices, rows, columns))
        with voxels.path.open("rb") as stream:
            for k in range(slices):
                slice_ = numpy.fromfile(stream, kind, rows * columns).reshape(rows, columns)
                made[slices - 1 - k if flip else k] = slice_
                if k % step == 0:
                    sample.append(slice_[::step, ::step].ravel())
                progress(k + 1, slices)
        made.flush()
        del made  # Windows gives no open file another name
    voxels.path.unlink()
    ijk_to_ras = reverse_k(affine, slices) if flip else affine
    return VolumeFile(
        str(target), voxels.shape, _tuples(ijk_to_ras), *_window(numpy.concatenate(sample)), voxels.affine
    )


def label_file(voxels: Voxels, folder: str | Path, labels: Mapping[str, int], strangers: bool = False) -> LabelFile:
    """Make a label map's voxels a file for the scene.

    Args:
        voxels: As they came, on the image's grid; their file is removed.
        folder: Existing folder for the new file.
        labels: Label name -> voxel value.
        strangers: Whether to give a value that is no label's the name "label VALUE", instead of refusing it: an old
            label may have more labels than the server has today.

    Raises:
        LocalProblem: A file cannot be read or written.
        BadAnswer: It has values that are no label's.
    """
    kind, affine = numpy.dtype(voxels.dtype), numpy.array(voxels.affine)
    if kind not in (numpy.uint8, numpy.uint16):
        raise BadAnswer(f"The server's label map has voxels of type {kind}. Check the label on the server.")
    shown = numpy.fromfile(voxels.path, kind).reshape(voxels.shape[::-1])
    voxels.path.unlink()
    if is_left_handed(affine):
        shown, affine = shown[::-1], reverse_k(affine, len(shown))
    extent = _bounding_box(shown)
    target, tally = None, numpy.zeros(1, int)
    if extent is not None:
        i0, i1, j0, j1, k0, k1 = extent
        drawn = shown[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
        tally = numpy.zeros(1 << 8 * kind.itemsize, int)
        for slice_ in drawn:
            tally += numpy.bincount(slice_.ravel(), minlength=len(tally))
        tally[0] = 0
        target = Path(folder) / f"label-{uuid.uuid4().hex}.npy"
        with atomic_target(target) as part, part.open("xb") as out:
            numpy.save(out, numpy.ascontiguousarray(drawn, kind.newbyteorder("=")))
    stray = sorted(set(numpy.flatnonzero(tally).tolist()) - set(labels.values()))
    if strangers:
        labels = {**labels, **{f"label {value}": value for value in stray}}
    elif stray:
        raise BadAnswer(f"The label map has the values {stray[:10]}, which no label has. Check it on the server.")
    counts = {name: int(tally[value]) if value < len(tally) else 0 for name, value in labels.items()}
    path = None if target is None else str(target)
    return LabelFile(path, extent, voxels.shape, _tuples(affine), counts, dict(labels))


def label_to_send(
    label: numpy.ndarray,
    extent: Sequence[int],
    shape: tuple[int, int, int],
    affine: Sequence[Sequence[float]],
    path: Path,
) -> Voxels:
    """Write a label map on its image's own grid.

    Args:
        label: (K, J, I) voxel values 0 to 65535, all inside the grid.
        extent: i0, i1, j0, j1, k0, k1 of the array in the grid, both ends included.
        shape, affine: The image's own grid.
        path: File to write.
    """
    kind = numpy.dtype(numpy.uint8 if label.dtype.itemsize == 1 else "<u2")
    with atomic_target(path) as part:
        full = numpy.memmap(part, kind, "w+", shape=shape[::-1])  # zeros at first
        full[tuple(slice(extent[axis], extent[axis + 1] + 1) for axis in (4, 2, 0))] = label
        full.flush()
        del full
    return Voxels(path, shape, kind.str, _tuples(affine))


def image_to_send(voxels: str | Path, ijk_to_ras: Sequence[Sequence[float]], path: Path) -> Voxels:
    """Write an image as it is sent.

    Args:
        voxels: `.npy` file (K, J, I).
        ijk_to_ras: Of its grid.
        path: File to write.

    Raises:
        LocalProblem: A file cannot be read or written, or it is not a 3D array of numbers.
    """
    try:
        array = numpy.load(voxels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise LocalProblem(f"Cannot read the voxels in '{voxels}': {error}.") from error
    if array.ndim != 3 or array.dtype.kind not in "buif" or not array.size:
        raise LocalProblem(f"This is no 3D image of numbers ({array.dtype}, {array.shape}). Choose another volume.")
    kind = array.dtype.newbyteorder("<")
    if kind.kind == "b":
        kind = numpy.dtype(numpy.uint8)
    elif kind.itemsize == 2 and kind.kind == "f" or kind.itemsize > 4 and kind.kind in "iu":
        kind = numpy.dtype("<f4")
    with atomic_target(path) as part, part.open("xb") as out:
        for slice_ in array:
            out.write(numpy.ascontiguousarray(slice_, kind).tobytes())
    return Voxels(path, array.shape[::-1], kind.str, _tuples(ijk_to_ras))


def _tuples(matrix: Sequence[Sequence[float]] | numpy.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(part) for part in row) for row in matrix)


def _window(sample: numpy.ndarray) -> tuple[float, float]:
    """Return the percentiles 0.5 and 99.5."""
    sample = sample[numpy.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low, high = (float(value) for value in numpy.percentile(sample, (0.5, 99.5)))
    return low, high if high > low else low + 1.0


def _bounding_box(voxels: numpy.ndarray) -> tuple[int, ...] | None:
    """Return i0, i1, j0, j1, k0, k1 of all that is not 0, None if all is."""
    used = numpy.flatnonzero([slice_.any() for slice_ in voxels])
    if not used.size:
        return None
    flat = numpy.zeros(voxels.shape[1:], bool)
    for slice_ in voxels[used[0] : used[-1] + 1]:
        flat |= slice_ != 0
    rows, columns = (numpy.flatnonzero(flat.any(axis=axis)) for axis in (1, 0))
    ends = (columns[0], columns[-1], rows[0], rows[-1], used[0], used[-1])
    return tuple(int(end) for end in ends)
