"""What a NIfTI header says of itself, believed or refused.

A header may say where its voxels lie in several ways at once (qform, sform, voxel sizes, a unit), and programs do not
choose alike: nibabel and MONAI take the sform and no unit, ITK (so 3D Slicer and ITK-SNAP) takes now the one, now the
other, and the voxel sizes from a third place. Where all that is said is the same, all agree. Where it is not, a label
would be shown at another place than where it was made; that is refused, with what to do. docs/files.md has the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from rep3d.errors import ImageError, LabelError
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.limits import SIDES_MM, check_voxels

__all__ = [
    "HEAD",
    "NiftiImage",
    "checked_grid",
    "copy_place",
    "is_stored_like",
    "kind_of",
    "stored_channels",
    "stored_header",
    "stored_voxels",
]

NiftiImage = nib.Nifti1Image
HEAD = 540
"""Bytes of the longest header."""
_KINDS = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # by the bytes of their header, which begins with that number
_Error = type[ImageError] | type[LabelError]

_UNIT_MM = {1: 1000.0, 3: 0.001}  # metres, micrometres; all else is millimetres, to all readers
_PLACE = (
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
_SAVE_ANEW = "Open it in 3D Slicer or ITK-SNAP, see that left, right and sizes are as they should be, and save it anew."


def kind_of(head: bytes) -> type[NiftiImage] | None:
    """Return the kind of NIfTI image that begins so (:data:`HEAD` bytes tell); None where no whole header does."""
    told = [int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")]
    size = next((size for size in _KINDS if size in told), None)
    return None if size is None or len(head) < size else _KINDS[size]


def stored_channels(image: NiftiImage) -> int:
    """Return how many channels an image has: its fourth axis, or the fifth after one of 1, as ITK writes vectors."""
    shape = _shape(image)
    return shape[3] if len(shape) == 4 else 1


def _shape(image: NiftiImage) -> tuple[int, ...]:
    """Return the shape of an image without axes of 1 that mean nothing, which are common and harmless."""
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return (*shape[:3], shape[4]) if len(shape) == 5 and shape[3] == 1 else shape


def checked_grid(image: NiftiImage, path: Path, error: _Error, several: bool = False) -> Geometry:
    """Return where the voxels of an image lie, after looking at all that its header says of geometry and intensity.

    Args:
        image: the image, whose voxels are not read.
        path: its file.
        error: what to raise.
        several: whether it may have several channels, see :func:`stored_channels`.

    Raises:
        ImageError: or LabelError, with the reason and what to do.
    """
    header = stored_header(image)
    shape = _shape(image)
    if len(shape) not in ((3, 4) if several else (3,)) or min(shape) < 1:
        raise error(
            f"{path.name} is not three-dimensional: its shape is {tuple(image.shape)}. Export one volume of it."
        )
    if image.get_data_dtype().kind not in "iuf":
        raise error(
            f"{path.name} has voxels of type {image.get_data_dtype()}, not one number each. "
            f"Export it as a grey image or a label map."
        )
    check_voxels(shape, path.name, error)
    shape = shape[:3]
    _check_scale(header, path, error)
    affine = _affine(header, shape, path, error)
    affine[:3] *= _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    grid = Geometry(shape, affine)
    low, high = SIDES_MM
    if min(grid.spacing) < low or max(grid.spacing) > high:
        sides = " x ".join(f"{side:g}" for side in grid.spacing)
        raise error(
            f"{path.name} has voxels of {sides} mm by its header, which no scanner makes (expected {low:g} to "
            f"{high:g} mm). At a model's voxel size such an image takes far too much memory, or none of it is left. "
            f"Correct its voxel sizes or their unit, and save it anew."
        )
    if abs(np.linalg.det(affine[:3, :3])) < 1e-3 * np.prod(grid.spacing):
        raise error(
            f"{path.name} does not say where its voxels lie in space: two of its axes run the same way. {_SAVE_ANEW}"
        )
    return grid


def stored_header(image: NiftiImage) -> nib.Nifti1Header:
    """Return the header as the file has it: nibabel leaves out of its own what it does not use."""
    with image.file_map["image"].get_prepare_fileobj("rb") as content:
        header = type(image.header).from_fileobj(content, check=False)
    if header["pixdim"][0] == 0:  # which means 1 to NIfTI, and an error to nibabel
        header["pixdim"][0] = 1
    return header


def stored_voxels(image: NiftiImage) -> ArrayProxy:
    """Return the voxels as they are in the file."""
    assert isinstance(image.dataobj, ArrayProxy)
    return image.dataobj


def is_stored_like(label: NiftiImage, image: NiftiImage) -> bool:
    """Return whether a label's header is what we would write: the place of its image's, bit for bit, and no scale."""
    own, other = stored_header(label), stored_header(image)
    kind = label.get_data_dtype()
    return (
        all(np.array_equal(own[name], other[name]) for name in _PLACE)
        and np.array_equal(own["pixdim"][:4], other["pixdim"][:4])
        and _UNIT_MM.get(int(own["xyzt_units"]) & 7) == _UNIT_MM.get(int(other["xyzt_units"]) & 7)
        and (kind.kind in "iu" and kind.itemsize <= 4)
        and (stored_voxels(label).slope, stored_voxels(label).inter) == (1, 0)
    )


def copy_place(header: nib.Nifti1Header, other: nib.Nifti1Header) -> None:
    """Take over from another header, bit for bit, all that it says of where voxels lie."""
    for name in (*_PLACE, "xyzt_units"):
        header[name] = other[name]
    header["pixdim"][:4] = other["pixdim"][:4]


def _check_scale(header: nib.Nifti1Header, path: Path, error: _Error) -> None:
    slope, shift = float(header["scl_slope"]), float(header["scl_inter"])
    if (slope == 0 or not np.isfinite(slope)) and np.isfinite(shift) and shift != 0:
        raise error(
            f"{path.name} has a header that shifts its values by {shift:g} and scales them by {slope:g}, which is read "
            f"in different ways. Set its scl_slope to 1 or its scl_inter to 0."
        )


def _affine(header: nib.Nifti1Header, shape: tuple[int, ...], path: Path, error: _Error) -> np.ndarray:
    """Return the matrix from voxel indices to the header's unit, which all that it says must agree on."""
    codes = [int(header[name]) for name in ("qform_code", "sform_code")]
    if not all(0 <= code <= 5 for code in codes):
        raise error(f"{path.name} has qform and sform codes of {codes}, which NIfTI does not know. {_SAVE_ANEW}")
    if codes == [0, 0]:
        raise error(
            f"{path.name} does not say where its voxels lie in space: neither qform nor sform is set, so left and "
            f"right could be taken for each other. {_SAVE_ANEW}"
        )
    sides = np.array(header["pixdim"][1:4], np.float64)
    if not (np.isfinite(sides).all() and (sides > 0).all()):
        raise error(f"{path.name} has voxel sizes of {sides.tolist()} in its header (pixdim). {_SAVE_ANEW}")
    found = list(_readings(header, sides, codes, path, error))
    if not all(np.isfinite(affine).all() for _, affine in found):
        raise error(f"{path.name} does not say where its voxels lie in space: not all is a number. {_SAVE_ANEW}")
    if any(np.linalg.norm(affine[:3, :3], axis=0).min() == 0 for _, affine in found):
        raise error(
            f"{path.name} does not say where its voxels lie in space: one of its axes has no length. {_SAVE_ANEW}"
        )
    name, chosen = found[0]
    for other, affine in found[1:]:
        if not same_grid(Geometry(shape, chosen), Geometry(shape, affine)):
            told = f"{path.name} says two things of where its voxels lie: its {name} and its {other} differ"
            if other == "pixdim":  # here no viewer can be trusted to show the right sizes
                lengths, sizes = (
                    " x ".join(f"{side:g}" for side in np.linalg.norm(matrix[:3, :3], axis=0))
                    for matrix in (chosen, affine)
                )
                raise error(
                    f"{told} (voxels of {lengths} and of {sizes}), and programs choose between them in different ways. "
                    f"Export it again from its source, or correct the wrong one."
                )
            raise error(f"{told}, and programs choose between them in different ways. {_SAVE_ANEW}")
    return chosen


def _readings(
    header: nib.Nifti1Header, sides: np.ndarray, codes: list[int], path: Path, error: _Error
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what readers may take from a header, by name; the first is nibabel's."""
    if codes[1]:
        sform = np.array(header.get_sform(), np.float64)
        yield "sform", sform
        lengths = np.linalg.norm(sform[:3, :3], axis=0)
        if np.isfinite(sform).all() and lengths.min() > 0:  # ITK takes directions from here, and sizes from there
            sized = sform.copy()
            sized[:3, :3] *= sides / lengths
            yield "pixdim", sized
    if codes[0]:
        if header["pixdim"][0] not in (-1, 1):
            raise error(f"{path.name} has {header['pixdim'][0]} as its qfac, which must be 1 or -1. {_SAVE_ANEW}")
        try:
            yield "qform", np.array(header.get_qform(), np.float64)
        except ValueError:
            raise error(
                f"{path.name} has a qform that is no rotation: its quaternion is longer than 1. {_SAVE_ANEW}"
            ) from None
