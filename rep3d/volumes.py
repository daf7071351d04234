"""Reading the geometry of image files, and checking that a label map fits its image and its task.

A label map is hours of a clinician's work, and an image may have any orientation, spacing and obliqueness. So
everything that is accepted is checked here first, and everything that is written keeps the image's own grid.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from rep3d.errors import ImageError, LabelError

__all__ = ["Geometry", "check_label", "geometry", "read_label", "same_grid", "write_label"]

IMAGE_SUFFIXES = (".nii.gz", ".nii")
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
        raise error(f"{path.name}: expected an image file, found no such file") from cause
    except _UNREADABLE as cause:
        raise error(
            f"{path.name}: expected a readable NIfTI image ({', '.join(IMAGE_SUFFIXES)}), "
            f"got a file that is none or is damaged ({cause}). Export it again as NIfTI."
        ) from cause
    if not isinstance(image, nib.spatialimages.SpatialImage):
        raise error(f"{path.name}: expected a NIfTI image, got {type(image).__name__}")
    return image


def _grid(image: nib.spatialimages.SpatialImage, path: Path, error: type[ImageError] | type[LabelError]) -> Geometry:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:  # a trailing axis of one "time point" is common and harmless
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        raise error(f"{path.name}: expected a three-dimensional image, got shape {tuple(image.shape)}")
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise error(f"{path.name}: expected an invertible affine in its header, got {affine.tolist()}")
    return Geometry(shape, affine)


def geometry(path: Path | str) -> Geometry:
    """The voxel grid of an image file, after making sure that its voxels can be read.

    Args:
        path: a NIfTI file.

    Raises:
        ImageError: if the file is no readable three-dimensional image with finite real values.
    """
    path = Path(path)
    image = _open(path, ImageError)
    grid = _grid(image, path, ImageError)
    try:
        voxels = np.asanyarray(image.dataobj)
    except _UNREADABLE as cause:
        raise ImageError(
            f"{path.name}: its header is fine but its voxels cannot be read ({cause}). Copy it again."
        ) from cause
    if voxels.dtype.kind not in "iufb":
        raise ImageError(f"{path.name}: expected one number per voxel, got voxels of type {voxels.dtype}")
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).any():
        raise ImageError(f"{path.name}: expected finite voxel values, got none")
    return grid


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
        The (X, Y, Z) array of voxel values, and its grid.

    Raises:
        LabelError: if the file is no readable three-dimensional image or has values that are not whole numbers.
    """
    path = Path(path)
    image = _open(path, LabelError)
    grid = _grid(image, path, LabelError)
    try:
        values = np.asanyarray(image.dataobj).reshape(grid.shape)
    except _UNREADABLE as cause:
        raise LabelError(f"{path.name}: its voxels cannot be read ({cause}). Save and submit it again.") from cause
    if values.dtype.kind == "f":
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            odd = values[whole != values].ravel()[:3].tolist()
            raise LabelError(f"{path.name}: expected whole numbers, one per label, got values such as {odd}")
        values = whole
    elif values.dtype.kind not in "iub":
        raise LabelError(f"{path.name}: expected whole numbers, got voxels of type {values.dtype}")
    return values.astype(np.int64), grid


def check_label(label: Path | str, image: Path | str, labels: Mapping[str, int]) -> None:
    """Makes sure that a label map lies on its image's grid and uses only the task's values.

    Args:
        label: the label map's file.
        image: the image's file.
        labels: label name to voxel value.

    Raises:
        LabelError: saying which of the two does not hold, with expected, got and remedy.
        ImageError: if the image itself cannot be read.
    """
    label, image = Path(label), Path(image)
    values, grid = read_label(label)
    expected = _grid(_open(image, ImageError), image, ImageError)
    if not same_grid(grid, expected):
        raise LabelError(
            f"{label.name}: expected the grid of image {image.name} (shape {expected.shape}, "
            f"affine {np.round(expected.affine, 3).tolist()}), got shape {grid.shape}, "
            f"affine {np.round(grid.affine, 3).tolist()}. "
            f"Draw the label on this image, or export it with the image as reference."
        )
    unknown = sorted(set(np.unique(values).tolist()) - {0, *labels.values()})
    if unknown:
        raise LabelError(
            f"{label.name}: expected only the values 0 (background) and {dict(labels)}, got also {unknown[:10]}. "
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
    kind = np.uint8 if values.max(initial=0) <= 255 else np.uint16
    image = nib.Nifti1Image(values.astype(kind), reference.affine)
    if isinstance(reference.header, nib.Nifti1Header):  # keep which of qform and sform the scanner's software trusted
        image.header["xyzt_units"] = reference.header["xyzt_units"]
        for form in ("qform", "sform"):
            matrix, code = getattr(reference, f"get_{form}")(coded=True)
            if code:
                getattr(image, f"set_{form}")(matrix, int(code))
            else:
                getattr(image, f"set_{form}")(None, 0)
    nib.save(image, output)
