"""Reading and writing NIfTI files: an image, its grid, a label map, a map of shares.

An image may have any orientation, spacing and obliqueness; everything that is written keeps the image's own grid.
What a file says of itself is looked at before it is believed: nibabel reads as much as a header asks for, and no
compressed file to its end, where its checksum stands.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np

from rep3d.errors import ImageError, LabelError, OutOfMemoryError, Rep3DError
from rep3d.imaging.grid import Geometry
from rep3d.imaging.header import (
    HEAD,
    NiftiImage,
    checked_grid,
    copy_place,
    is_stored_like,
    kind_of,
    stored_channels,
    stored_header,
    stored_voxels,
)
from rep3d.imaging.limits import check_intensities
from rep3d.imaging.saving import save_nifti
from rep3d.imaging.values import whole_numbers
from rep3d.memory import require_memory

__all__ = [
    "IMAGE_SUFFIXES",
    "geometry",
    "is_written_like",
    "join_channels",
    "read_image",
    "read_label",
    "read_layers",
    "split_channels",
    "stored_grid",
    "stored_layers",
    "write_label",
    "write_share",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
_DEFLATE = 1040  # so many times larger, at most, is what a compressed file unpacks to
_FURTHEST = 16 << 20  # byte at which voxels begin at the latest: what lies between is a header's further text
_PADDING = 1 << 16  # bytes that may follow the voxels in a compressed file; a file that goes on and on is another one
_BLOCK = 1 << 20


def _open(path: Path, error: type[ImageError] | type[LabelError]) -> NiftiImage:
    try:
        image = _loaded(path)
    except Exception as cause:  # for odd files nibabel raises whatever numpy, struct or the file system do
        raise _unreadable(path, cause, error) from cause
    if not isinstance(image, NiftiImage):
        raise error(
            f"{path.name} is no NIfTI file of one part, but a {type(image).__name__}. "
            f"Export it again as NIfTI ({' or '.join(IMAGE_SUFFIXES)})."
        )
    return image


def _loaded(path: Path) -> nib.filebasedimages.FileBasedImage:
    """Return a file as nibabel sees it, by its first bytes alone."""
    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        return nib.load(path)  # to tell what it is
    with _content(path) as content:
        try:
            head = content.read(HEAD)
        except gzip.BadGzipFile as error:  # from its first byte on
            raise ValueError("no NIfTI header") from error
        kind = kind_of(head)
        if kind is None:
            raise ValueError("no NIfTI header")
        size = kind.header_class.sizeof_hdr
        begin = kind.header_class(head[:size], check=False)["vox_offset"]
        if not size <= begin <= _FURTHEST:
            raise ValueError("voxels at no place that could be")
        head += content.read(max(0, int(begin) - len(head)))
    return kind.from_stream(io.BytesIO(head))


def _content(path: Path) -> BinaryIO:
    """Return a file to read, unpacked where its name says that it is compressed."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _read_voxels(path: Path, begin: int, voxels: np.ndarray) -> None:
    """Fill an array from a file, and where that is compressed make sure of its checksum.

    Raises:
        EOFError, gzip.BadGzipFile, zlib.error: if the file is damaged or shorter.
        ValueError: if it goes on.
    """
    into = voxels.view(np.uint8).data
    with _content(path) as content:
        if path.suffix.lower() == ".gz":  # where a jump is a walk
            for start in range(0, begin, _BLOCK):
                content.read(min(_BLOCK, begin - start))
        else:
            content.seek(begin)
        filled = 0
        while filled < len(into):
            came = content.readinto(into[filled : filled + _BLOCK])  # type: ignore[attr-defined]
            if not came:
                raise EOFError("it ends among its voxels")
            filled += came
        # The checksum is looked at when the end is read.
        if path.suffix.lower() == ".gz" and len(content.read(_PADDING + 1)) > _PADDING:
            raise ValueError("more than its header announces")


def _unreadable(path: Path, cause: Exception, error: type[ImageError] | type[LabelError]) -> Rep3DError:
    """Return, in our words, why a file cannot be read."""
    if isinstance(cause, MemoryError):
        return OutOfMemoryError(f"Not enough memory to read the voxels in {path.name}. Try again when less is running.")
    if os.path.isdir(path):
        return error(f"{path.name} is a folder, not a file. Choose the file itself.")
    if isinstance(cause, FileNotFoundError):
        return error(f"{path.name} does not exist. Is the name right?")
    if isinstance(cause, PermissionError) or not os.access(path, os.R_OK):
        return error(f"{path.name} may not be read by the account that this program runs in. Give it the right to.")
    if isinstance(cause, ValueError) and "header announces" in str(cause):
        return error(
            f"{path.name} goes on behind the voxels that its header announces: one of both is wrong. Export it again."
        )
    if isinstance(cause, (EOFError, zlib.error, gzip.BadGzipFile)):
        return error(f"{path.name} is cut short or damaged: it cannot be unpacked. Copy it again, or export it again.")
    if isinstance(cause, OSError) and cause.errno:
        return error(f"{path.name} cannot be read from its disk. Is the drive connected and sound? Copy it again.")
    return error(
        f"{path.name} is damaged, or is no NIfTI image. Export it again as NIfTI ({' or '.join(IMAGE_SUFFIXES)})."
    )


def _grid(image: NiftiImage, path: Path, error: type[ImageError] | type[LabelError], several: bool = False) -> Geometry:
    try:
        return checked_grid(image, path, error, several)
    except Rep3DError:
        raise
    except Exception as cause:  # as above: the header is read once more
        raise _unreadable(path, cause, error) from cause


def _stored(image: NiftiImage, path: Path, error: type[ImageError] | type[LabelError], further: int) -> np.ndarray:
    """Return the voxels as they are stored, after looking whether they can be there and fit into memory.

    Args:
        image: the image.
        path: its file.
        error: what to raise.
        further: bytes that the caller needs besides, per voxel.
    """
    stored, voxels, each = stored_voxels(image), math.prod(image.shape), image.get_data_dtype().itemsize
    try:
        on_disk = path.stat().st_size
        room = on_disk * _DEFLATE if path.suffix.lower() == ".gz" else on_disk - stored.offset
        if voxels * each > room or stored.offset < len(image.header.binaryblock):
            raise error(
                f"{path.name} is damaged: its header announces {voxels * each / 1e6:,.1f} MB of voxels, and a file of "
                f"{on_disk / 1e6:,.1f} MB cannot hold them. Copy it again, or export it again."
            )
        sides = "x".join(map(str, image.shape))
        require_memory(
            voxels * (each + further), f"to read {path.name}", f"By its header it has {sides} voxels. Is that right?"
        )
        read = np.empty(voxels, stored.dtype)
        _read_voxels(path, stored.offset, read)
        return read.reshape(stored.shape, order="F")
    except Rep3DError:
        raise
    except Exception as cause:
        raise _unreadable(path, cause, error) from cause


def stored_grid(path: Path | str) -> Geometry:
    """Return the voxel grid of an image file by its header alone: quick, but no proof that its voxels can be read.

    Raises:
        ImageError: if the file has no readable header of a three-dimensional image.
    """
    path = Path(path)
    return _grid(_open(path, ImageError), path, ImageError)


def stored_layers(path: Path | str) -> tuple[int, Geometry]:
    """Return how many channels an image file has, and its grid, by its header alone; see :func:`stored_grid`."""
    path = Path(path)
    image = _open(path, ImageError)
    return stored_channels(image), _grid(image, path, ImageError, several=True)


def geometry(path: Path | str) -> Geometry:
    """Return the voxel grid of an image file, after making sure that its voxels can be read; see :func:`read_image`."""
    return read_image(path)[1]


def read_image(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Return the voxels of an image file and their grid.

    Args:
        path: a NIfTI file.

    Returns:
        The (X, Y, Z) array in the type it is stored in, or in floating point where the header scales it; and its grid.

    Raises:
        ImageError: if the file is no readable three-dimensional image, has too many voxels, or has values that are no
            intensities; see :mod:`rep3d.imaging.limits`.
        OutOfMemoryError: if there is not enough memory for it.
    """
    voxels, grid = _read(Path(path), several=False)
    return voxels[..., 0], grid


def read_layers(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Return the voxels of an image file of any number of channels, (X, Y, Z, C), and their grid.

    Raises:
        ImageError, OutOfMemoryError: as :func:`read_image`.
    """
    return _read(Path(path), several=True)


def _read(path: Path, several: bool) -> tuple[np.ndarray, Geometry]:
    image = _open(path, ImageError)
    grid = _grid(image, path, ImageError, several)
    slope, inter = stored_voxels(image).slope, stored_voxels(image).inter
    scaled = (slope, inter) != (1.0, 0.0)
    voxels = _stored(image, path, ImageError, further=4 if scaled else 0)
    if scaled:  # in single precision, where nibabel would make them twice as large
        with np.errstate(over="ignore"):
            voxels = voxels.astype(np.float32)
            voxels *= np.float32(slope)
            voxels += np.float32(inter)
    voxels = voxels.reshape((*grid.shape, -1), order="F")
    for channel in range(voxels.shape[-1]):
        check_intensities(voxels[..., channel], path.name)
    return voxels, grid


def read_label(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Return a label map: whole numbers, though they may be stored as floats, with a scale, or in 64 bits.

    Returns:
        The (X, Y, Z) array of voxel values, uint8 where they suffice, else uint16; and its grid.

    Raises:
        LabelError: if the file is no readable three-dimensional image, or has a value that is no whole number from 0 to
            65535; the message says which, and where.
        OutOfMemoryError: if there is not enough memory for it.
    """
    path = Path(path)
    image = _open(path, LabelError)
    grid = _grid(image, path, LabelError)
    stored = _stored(image, path, LabelError, further=3).reshape(grid.shape)
    return whole_numbers(stored, path.name, stored_voxels(image).slope, stored_voxels(image).inter), grid


def is_written_like(label: Path | str, image: Path | str) -> bool:
    """Return whether a label file is as :func:`write_label` would write it: its image's place to the bit, no scale."""
    return is_stored_like(_open(Path(label), LabelError), _open(Path(image), ImageError))


def write_label(values: np.ndarray, like: Path | str, output: Path | str) -> None:
    """Write a label map on the grid of another image, of any number of channels, header codes included.

    Args:
        values: (X, Y, Z) array of voxel values from 0 to 65535, in the stored axis order of ``like``.
        like: the NIfTI file whose grid the values lie on.
        output: file to write, ``.nii.gz`` or ``.nii``.

    Raises:
        LabelError: if the array has not the image's shape, or a value that is no label's.
    """
    like, output = Path(like), Path(output)
    reference = _open(like, ImageError)
    grid = _grid(reference, like, ImageError, several=True)
    if values.shape != grid.shape:
        raise LabelError(f"{output.name}: expected an array of shape {grid.shape} like {like.name}, got {values.shape}")
    _write_like(whole_numbers(values, output.name), reference, output)


def write_share(values: np.ndarray, like: Path | str, output: Path | str) -> None:
    """Write a map of shares from 0 to 1 on the grid of another image, as bytes with a scale in the header.

    Args:
        values: (X, Y, Z) uint8, in steps of 1/255, in the stored axis order of ``like``.
        like: the NIfTI file whose grid the values lie on.
        output: file to write, ``.nii.gz`` or ``.nii``.
    """
    like = Path(like)
    # The header holds single precision; rounded up, it would make 255 a little more than 1.
    slope = float(np.nextafter(np.float32(1 / 255), np.float32(0)))
    _write_like(values, _open(like, ImageError), Path(output), slope)


def split_channels(source: Path | str, outputs: Sequence[Path]) -> None:
    """Write each channel of a 4D file as a file of its own, its stored numbers, scale and place unchanged.

    Args:
        source: a file of several channels.
        outputs: a file to write for each, ``.nii.gz`` or ``.nii``.

    Raises:
        ImageError, OutOfMemoryError: if it cannot be read.
    """
    path = Path(source)
    image = _open(path, ImageError)
    grid = _grid(image, path, ImageError, several=True)
    voxels = _stored(image, path, ImageError, further=0).reshape((*grid.shape, -1), order="F")
    for channel, output in enumerate(outputs):
        _write_like(voxels[..., channel], image, output, *_scale(image))


def join_channels(sources: Sequence[Path | str], output: Path) -> None:
    """Write files of one channel each as one 4D file, at the place of the first one.

    Numbers stay as they are stored where all files have one scale; else the scaled ones are written, in single
    precision, as they are read here.

    Args:
        sources: files on one grid.
        output: file to write, ``.nii.gz`` or ``.nii``.

    Raises:
        ImageError, OutOfMemoryError: if one cannot be read.
    """
    paths = [Path(source) for source in sources]
    images = [_open(path, ImageError) for path in paths]
    scales = {_scale(image) for image in images}
    if len(scales) == 1:
        stored = [
            _stored(image, path, ImageError, further=image.get_data_dtype().itemsize).reshape(
                _grid(image, path, ImageError).shape, order="F"
            )
            for path, image in zip(paths, images, strict=True)
        ]
        _write_like(np.stack(stored, -1), images[0], output, *scales.pop())
    else:
        voxels = np.stack([read_image(path)[0] for path in paths], -1)
        _write_like(voxels.astype(np.float32), images[0], output)


def _scale(image: NiftiImage) -> tuple[float | None, float]:
    """Return slope and intercept of an image; no slope where its numbers are what is stored."""
    slope, inter = float(stored_voxels(image).slope), float(stored_voxels(image).inter)
    return (None, 0.0) if (slope, inter) == (1.0, 0.0) else (slope, inter)


def _write_like(
    values: np.ndarray, reference: NiftiImage, output: Path, slope: float | None = None, inter: float = 0.0
) -> None:
    image = type(reference)(values, reference.affine, dtype=values.dtype)
    copy_place(image.header, stored_header(reference))
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
    save_nifti(image, output)
