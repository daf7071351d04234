"""Reading and writing NIfTI files: an image, its grid, a label map, a map of shares.

An image may have any orientation, spacing and obliqueness; everything that is written keeps the image's own grid.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from rep3d.errors import ImageError, LabelError, OutOfMemoryError, Rep3DError
from rep3d.imaging.grid import Geometry
from rep3d.imaging.saving import save_nifti

__all__ = [
    "IMAGE_SUFFIXES",
    "LARGEST_VALUE",
    "geometry",
    "read_image",
    "read_label",
    "stored_grid",
    "write_label",
    "write_share",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
LARGEST_VALUE = 65535  # voxel value of a label
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, gzip.BadGzipFile, ImageFileError, HeaderDataError)
_DEFLATE = 1040  # so many times larger, at most, is what a compressed file unpacks to


def _open(path: Path, error: type[ImageError] | type[LabelError]) -> nib.spatialimages.SpatialImage:
    try:
        image = nib.load(path)
    except FileNotFoundError as cause:
        raise error(f"{path.name} does not exist. Is the name right?") from cause
    except _UNREADABLE as cause:
        raise error(
            f"{path.name} is damaged, or is no NIfTI image ({cause}). "
            f"Export it again as NIfTI ({' or '.join(IMAGE_SUFFIXES)})."
        ) from cause
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise error(f"{path.name} is no NIfTI image, but a {type(image).__name__}. Export it again as NIfTI.")
    return image


def _grid(image: nib.spatialimages.SpatialImage, path: Path, error: type[ImageError] | type[LabelError]) -> Geometry:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:  # a trailing axis of one "time point" is common and harmless
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise error(
            f"{path.name} is not three-dimensional: its shape is {tuple(image.shape)}. Export one volume of it."
        )
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise error(
            f"{path.name} does not say where its voxels lie in space: the affine {affine.tolist()} in its header "
            f"cannot be inverted. Export it again."
        )
    return Geometry(shape, affine)


def _too_large(
    image: nib.spatialimages.SpatialImage, path: Path, error: type[ImageError] | type[LabelError]
) -> Rep3DError:
    """Return what is wrong where the voxels did not fit into memory: the header, or the machine."""
    size = math.prod(image.shape) * image.get_data_dtype().itemsize
    if size > _DEFLATE * path.stat().st_size:
        return error(
            f"{path.name} is damaged: its header announces {size / 1e9:.1f} GB of voxels, and so small a file cannot "
            f"hold them. Export it again."
        )
    return OutOfMemoryError(
        f"Not enough memory to read the {size / 1e9:.1f} GB of voxels in {path.name}. Try again when less is running, "
        f"or use a machine with more memory."
    )


def stored_grid(path: Path | str) -> Geometry:
    """Return the voxel grid of an image file by its header alone: quick, but no proof that its voxels can be read.

    Raises:
        ImageError: if the file has no readable header of a three-dimensional image.
    """
    path = Path(path)
    return _grid(_open(path, ImageError), path, ImageError)


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
        ImageError: if the file is no readable three-dimensional image with finite real values.
        OutOfMemoryError: if there is not enough memory for it.
    """
    path = Path(path)
    image = _open(path, ImageError)
    grid = _grid(image, path, ImageError)
    try:
        voxels = _voxels(image.dataobj)
    except MemoryError:
        raise _too_large(image, path, ImageError) from None
    except _UNREADABLE as cause:
        raise ImageError(
            f"The voxels of {path.name} cannot be read, though its header can ({cause}). Copy the file again."
        ) from cause
    if voxels.dtype.kind not in "iufb":
        raise ImageError(
            f"{path.name} has voxels of type {voxels.dtype}, not one number each. Export it as a grey image."
        )
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).any():
        raise ImageError(f"{path.name} holds no finite value at all. Export it again.")
    return voxels.reshape(grid.shape), grid


def _voxels(stored: Any) -> np.ndarray:
    """Return the scaled voxels; whole numbers become float32, where nibabel would make them twice as large."""
    if not isinstance(stored, ArrayProxy) or stored.dtype.kind not in "iu":
        return np.asanyarray(stored)
    voxels = stored.get_unscaled()
    if (stored.slope, stored.inter) == (1.0, 0.0):
        return voxels
    return voxels.astype(np.float32) * np.float32(stored.slope) + np.float32(stored.inter)


def read_label(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """Return a label map as integers.

    Returns:
        The (X, Y, Z) array of voxel values, of the file's own integer type (32 bits for whole numbers that are stored
        as floats), and its grid.

    Raises:
        LabelError: if the file is no readable three-dimensional image or has values that are not whole numbers.
        OutOfMemoryError: if there is not enough memory for it.
    """
    path = Path(path)
    image = _open(path, LabelError)
    grid = _grid(image, path, LabelError)
    try:
        values = np.asanyarray(image.dataobj).reshape(grid.shape)
    except MemoryError:
        raise _too_large(image, path, LabelError) from None
    except _UNREADABLE as cause:
        raise LabelError(f"The voxels of {path.name} cannot be read ({cause}). Save and submit it again.") from cause
    if values.dtype.kind == "f":
        odd = values[(np.rint(values) != values) | (np.abs(values) > LARGEST_VALUE)]  # NaN is unequal to itself
        if odd.size:
            raise LabelError(
                f"{path.name} has values such as {odd.ravel()[:3].tolist()}, but each label is a whole number. "
                f"Export it as a label map, not as a probability map or a grey image."
            )
        values = values.astype(np.int32)
    elif values.dtype.kind not in "iub":
        raise LabelError(
            f"{path.name} has voxels of type {values.dtype}, but each label is a whole number. "
            f"Export it as a label map."
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values, grid


def write_label(values: np.ndarray, like: Path | str, output: Path | str) -> None:
    """Write a label map on the grid of another image, header codes included.

    Args:
        values: (X, Y, Z) array of voxel values from 0 to 65535, in the stored axis order of ``like``.
        like: the NIfTI file whose grid the values lie on.
        output: file to write, ``.nii.gz`` or ``.nii``.

    Raises:
        LabelError: if the array has not the image's shape.
    """
    like, output = Path(like), Path(output)
    reference = _open(like, ImageError)
    grid = _grid(reference, like, ImageError)
    if values.shape != grid.shape:
        raise LabelError(f"{output.name}: expected an array of shape {grid.shape} like {like.name}, got {values.shape}")
    if values.dtype not in (np.uint8, np.uint16):
        values = values.astype(np.uint8 if values.max(initial=0) <= 255 else np.uint16)
    _write_like(values, reference, output)


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


def _write_like(
    values: np.ndarray, reference: nib.spatialimages.SpatialImage, output: Path, slope: float | None = None
) -> None:
    image = nib.Nifti1Image(values, reference.affine)
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    if isinstance(reference.header, nib.Nifti1Header):  # keep which of qform and sform the scanner's software trusted
        image.header["xyzt_units"] = reference.header["xyzt_units"]
        for form in ("qform", "sform"):
            matrix, code = getattr(reference, f"get_{form}")(coded=True)
            if code:
                getattr(image, f"set_{form}")(matrix, int(code))
            else:
                getattr(image, f"set_{form}")(None, 0)
    save_nifti(image, output)
