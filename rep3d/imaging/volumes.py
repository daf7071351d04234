"""Reading the geometry of image files, and checking that a label map fits its image and its task.

A label map is hours of a clinician's work, and an image may have any orientation, spacing and obliqueness. So
everything that is accepted is checked here first, and everything that is written keeps the image's own grid.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import scipy.ndimage
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from rep3d.errors import ImageError, LabelError

__all__ = [
    "IMAGE_SUFFIXES",
    "Geometry",
    "check_grid",
    "check_label",
    "check_values",
    "geometry",
    "label_counts",
    "read_image",
    "read_label",
    "resample_label",
    "same_grid",
    "stored_grid",
    "write_label",
    "write_share",
]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
_LARGEST = 65535  # voxel value of a label
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    gzip.BadGzipFile,
    ImageFileError,
    HeaderDataError,
    MemoryError,
)


@dataclass(frozen=True)
class Geometry:
    """The voxel grid of an image.

    Attributes:
        shape: voxels along the three stored axes.
        affine: (4, 4) matrix from voxel indices to RAS coordinates in mm.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along the stored axes."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def axis_codes(self) -> tuple[str, str, str]:
        """The closest anatomical direction of each stored axis, such as ``("L", "A", "S")``."""
        return nib.aff2axcodes(self.affine)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0


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


def stored_grid(path: Path | str) -> Geometry:
    """The voxel grid of an image file by its header alone: quick, but no proof that its voxels can be read.

    Raises:
        ImageError: if the file has no readable header of a three-dimensional image.
    """
    path = Path(path)
    return _grid(_open(path, ImageError), path, ImageError)


def geometry(path: Path | str) -> Geometry:
    """The voxel grid of an image file, after making sure that its voxels can be read; see :func:`read_image`."""
    return read_image(path)[1]


def read_image(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """The voxels of an image file and their grid.

    Args:
        path: a NIfTI file.

    Returns:
        The (X, Y, Z) array in the type it is stored in, or in floating point where the header scales it; and its grid.

    Raises:
        ImageError: if the file is no readable three-dimensional image with finite real values.
    """
    path = Path(path)
    image = _open(path, ImageError)
    grid = _grid(image, path, ImageError)
    try:
        voxels = _voxels(image.dataobj)
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
    """The scaled voxels; whole numbers become float32, where nibabel would make them twice as large."""
    if not isinstance(stored, ArrayProxy) or stored.dtype.kind not in "iu":
        return np.asanyarray(stored)
    voxels = stored.get_unscaled()
    if (stored.slope, stored.inter) == (1.0, 0.0):
        return voxels
    return voxels.astype(np.float32) * np.float32(stored.slope) + np.float32(stored.inter)


def same_grid(a: Geometry, b: Geometry, tolerance_voxels: float = 0.05) -> bool:
    """Whether two grids put every voxel at the same place.

    Compared are the world positions of the grid's corners, which is what an annotator sees, not matrix entries: allowed
    is ``tolerance_voxels`` of the smallest voxel side, room for headers in single precision and no more.
    """
    if a.shape != b.shape:
        return False
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in a.shape], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(8)])
    distance = np.linalg.norm((a.affine @ corners - b.affine @ corners)[:3], axis=0).max()
    return bool(distance <= tolerance_voxels * min(a.spacing))


def read_label(path: Path | str) -> tuple[np.ndarray, Geometry]:
    """A label map as integers.

    Returns:
        The (X, Y, Z) array of voxel values, of the file's own integer type (32 bits for whole numbers that are stored
        as floats), and its grid.

    Raises:
        LabelError: if the file is no readable three-dimensional image or has values that are not whole numbers.
    """
    path = Path(path)
    image = _open(path, LabelError)
    grid = _grid(image, path, LabelError)
    try:
        values = np.asanyarray(image.dataobj).reshape(grid.shape)
    except _UNREADABLE as cause:
        raise LabelError(f"The voxels of {path.name} cannot be read ({cause}). Save and submit it again.") from cause
    if values.dtype.kind == "f":
        odd = values[(np.rint(values) != values) | (np.abs(values) > _LARGEST)]  # NaN is unequal to itself
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


def label_counts(values: np.ndarray) -> dict[int, int]:
    """How many voxels have each value, 0 included.

    Args:
        values: (X, Y, Z) integers. Counted slice by slice: a large map is not copied or sorted as a whole.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _LARGEST:
        found, counts = np.unique(values, return_counts=True)
        return {int(value): int(count) for value, count in zip(found, counts, strict=True)}
    total = np.zeros(high + 1, np.int64)
    for index in range(values.shape[-1]):
        total += np.bincount(values[..., index].ravel(order="K"), minlength=high + 1)
    return {int(value): int(total[value]) for value in np.flatnonzero(total)}


def resample_label(values: np.ndarray, grid: Geometry, target: Geometry) -> np.ndarray:
    """A label map on another grid: each new voxel takes the value of the nearest old one, background outside.

    Args:
        values: (X, Y, Z) voxel values.
        grid: where they lie.
        target: the grid wanted.

    Returns:
        The (X, Y, Z) array on the target grid.
    """
    step = np.linalg.inv(grid.affine) @ target.affine
    # "grid-constant": voxels reach half a step beyond the outermost centres, where "constant" would cut them off.
    return scipy.ndimage.affine_transform(
        values, step[:3, :3], step[:3, 3], output_shape=target.shape, order=0, mode="grid-constant", prefilter=False
    )


def check_label(
    label: Path | str, image: Path | str, labels: Mapping[str, int], other_values: Collection[int] = ()
) -> None:
    """Makes sure that a label map lies on its image's grid and uses only the task's values.

    Args:
        label: the label map's file.
        image: the image's file.
        labels: label name to voxel value.
        other_values: values that may be there as well, such as those of another model's labels.

    Raises:
        LabelError: saying which of the two does not hold, with expected, got and remedy.
        ImageError: if the image itself cannot be read.
    """
    label, image = Path(label), Path(image)
    values, grid = read_label(label)
    check_grid(grid, stored_grid(image), label.name, image.name)
    check_values(set(label_counts(values)) - set(other_values), labels, label.name)


def check_grid(grid: Geometry, expected: Geometry, label: str, image: str) -> None:
    """Refuses a label map that does not lie on its image's grid.

    Args:
        grid: the label's.
        expected: the image's.
        label: the label's name, for the message.
        image: the image's name, for the message.

    Raises:
        LabelError: if the grids differ.
    """
    if not same_grid(grid, expected):
        raise LabelError(
            f"{label} does not lie on the voxels of image {image}: expected shape {expected.shape} and "
            f"affine {np.round(expected.affine, 3).tolist()}, got shape {grid.shape} and "
            f"affine {np.round(grid.affine, 3).tolist()}. "
            f"Draw the label on this image, or export it with the image as reference."
        )


def check_values(found: Collection[int], labels: Mapping[str, int], label: str) -> None:
    """Refuses voxel values that are no label's.

    Args:
        found: the values of a label map; 0 is always fine.
        labels: label name to voxel value.
        label: the label map's name, for the message.

    Raises:
        LabelError: if there are others.
    """
    unknown = sorted(set(found) - {0, *labels.values()})
    if unknown:
        raise LabelError(
            f"{label} has unexpected values: {unknown[:10]}. Known are 0 (background) and {dict(labels)}. "
            f"Rename or remove these segments, or start the server with labels that include them."
        )


def write_label(values: np.ndarray, like: Path | str, output: Path | str) -> None:
    """Writes a label map on the grid of another image, header codes included.

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
    """Writes a map of shares from 0 to 1 on the grid of another image, as bytes with a scale in the header.

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
    nib.save(image, output)
