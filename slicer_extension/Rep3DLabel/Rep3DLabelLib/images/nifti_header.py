"""The header of a NIfTI file: read, turned into a voxel grid, and written again with the same grid for a label map.

nibabel is not part of Slicer. The server reads with nibabel, so a grid is found here by the very rules that nibabel
goes by, down to the last bit. NIfTI-1 and NIfTI-2, both byte orders, one file (no .hdr/.img pairs).
Format: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h and nifti2.h.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy

from ..errors import BadAnswer

__all__ = ["DTYPES", "HEADER_BYTES", "NiftiHeader", "label_header", "new_header", "parse_header"]

_NIFTI1 = numpy.dtype(
    [
        ("sizeof_hdr", "i4"), ("unused", "V35"), ("dim_info", "u1"), ("dim", "i2", 8), ("intent_p", "f4", 3),
        ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"), ("slice_start", "i2"), ("pixdim", "f4", 8),
        ("vox_offset", "f4"), ("scl_slope", "f4"), ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"),
        ("xyzt_units", "u1"), ("cal_max", "f4"), ("cal_min", "f4"), ("slice_duration", "f4"), ("toffset", "f4"),
        ("glmax", "i4"), ("glmin", "i4"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"),
        ("sform_code", "i2"), ("quatern", "f4", 3), ("qoffset", "f4", 3), ("srow", "f4", (3, 4)),
        ("intent_name", "S16"), ("magic", "S4"),
    ]
)  # fmt: skip
_NIFTI2 = numpy.dtype(
    [
        ("sizeof_hdr", "i4"), ("magic", "S4"), ("eol", "V4"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8),
        ("intent_p", "f8", 3), ("pixdim", "f8", 8), ("vox_offset", "i8"), ("scl_slope", "f8"), ("scl_inter", "f8"),
        ("cal_max", "f8"), ("cal_min", "f8"), ("slice_duration", "f8"), ("toffset", "f8"), ("slice_start", "i8"),
        ("slice_end", "i8"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i4"), ("sform_code", "i4"),
        ("quatern", "f8", 3), ("qoffset", "f8", 3), ("srow", "f8", (3, 4)), ("slice_code", "i4"),
        ("xyzt_units", "i4"), ("intent_code", "i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "V15"),
    ]
)  # fmt: skip
HEADER_BYTES = _NIFTI2.itemsize
DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_CODES = (1, 2, 3, 4, 5)  # of a sform or qform that says something
_QUATERNION_SLACK = {4: 3 * 2.0**-23, 8: 3 * 2.0**-52}  # by size of the header's floating-point numbers


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """A header.

    Attributes:
        fields: The header as stored.
        shape: I, J, K in voxels.
        affine: 4 x 4 matrix from voxel indices to RAS in mm.
        dtype: Type of the stored voxels, with byte order.
        slope, inter: Voxel value = slope * stored + inter; 1 and 0 where the header asks for nothing.
        offset: Where the voxels begin, in bytes.
    """

    fields: numpy.ndarray
    shape: tuple[int, int, int]
    affine: numpy.ndarray
    dtype: numpy.dtype
    slope: float
    inter: float
    offset: int

    @property
    def byteorder(self) -> str:
        """Byte order of the file, as numpy writes it."""
        return self.fields.dtype["dim"].base.byteorder


def parse_header(content: bytes, name: str) -> NiftiHeader:
    """Read a header.

    Args:
        content: The beginning of the file, decompressed; `HEADER_BYTES` are enough.
        name: Of the file, for errors.

    Raises:
        BadAnswer: It is not that of a single 3D image of real numbers.
    """
    fields = _fields(content, name)
    code = int(fields["datatype"])
    if code not in DTYPES:
        raise BadAnswer(
            f"Expected voxels that are plain numbers in '{name}', got NIfTI data type {code} (colour, complex or "
            "unknown). Convert the image."
        )
    shape = _shape(fields["dim"], name)
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        slope, inter = 1.0, 0.0
    if not math.isfinite(inter):
        raise BadAnswer(f"Expected a finite intercept in the header of '{name}', got {inter}. The file is damaged.")
    offset = float(fields["vox_offset"])
    least = _least_offset(fields)
    offset = offset if math.isfinite(offset) and least <= offset < 1 << 31 else float(least)
    dtype = numpy.dtype(fields.dtype["dim"].base.byteorder + DTYPES[code])
    return NiftiHeader(fields, shape, _affine(fields, shape, name), dtype, slope, inter, int(offset))


def _fields(content: bytes, name: str) -> numpy.ndarray:
    for layout, magic in ((_NIFTI1, b"n+1"), (_NIFTI2, b"n+2")):
        if len(content) < layout.itemsize:
            continue
        orders: tuple[Literal["<", ">"], ...] = ("<", ">")
        for order in orders:
            fields = numpy.frombuffer(content, layout.newbyteorder(order), 1)[0].copy()
            if int(fields["sizeof_hdr"]) != layout.itemsize:
                continue
            if bytes(fields["magic"]) != magic:
                break
            return numpy.array(fields, layout.newbyteorder(order))
    if content[344:347] == b"ni1" or content[4:7] == b"ni2":
        raise BadAnswer(f"Expected header and voxels in one file, but '{name}' is half of a pair. Save it as .nii.gz.")
    raise BadAnswer(f"Expected a NIfTI image in '{name}', got another kind of file. Export the image again as .nii.gz.")


def _least_offset(fields: numpy.ndarray) -> int:
    return fields.dtype.itemsize + 4  # four bytes say whether extensions follow


def _shape(dim: numpy.ndarray, name: str) -> tuple[int, int, int]:
    axes = int(dim[0])
    sizes = [int(size) for size in dim[1 : axes + 1]] if 1 <= axes <= 7 else []
    if not sizes or min(sizes) < 1:
        raise BadAnswer(f"Expected the size of a 3D image in '{name}', got {dim.tolist()}. The file is damaged.")
    if any(size != 1 for size in sizes[3:]):
        raise BadAnswer(
            f"Expected one 3D image in '{name}', got one of size {' x '.join(map(str, sizes))}. Export a single time "
            "point or channel."
        )
    sizes = (sizes + [1, 1])[:3]
    return sizes[0], sizes[1], sizes[2]


def _affine(fields: numpy.ndarray, shape: Sequence[int], name: str) -> numpy.ndarray:
    affine = numpy.eye(4)
    if int(fields["sform_code"]) in _CODES:
        affine[:3] = fields["srow"]
    elif int(fields["qform_code"]) in _CODES:
        affine[:3, :3] = _rotation(fields, name) @ numpy.diag(_sizes(fields) * (1, 1, _handedness(fields)))
        affine[:3, 3] = fields["qoffset"]
    else:  # as SPM and nibabel understand the oldest files: x runs to the left, the origin is in the middle
        sizes = _sizes(fields).astype(float) * (-1, 1, 1)
        affine[:3, :3] = numpy.diag(sizes)
        affine[:3, 3] = -(numpy.array(shape) - 1) / 2.0 * sizes
    return affine


def _sizes(fields: numpy.ndarray) -> numpy.ndarray:
    sizes = numpy.abs(fields["pixdim"][1:4])
    return numpy.where(sizes == 0, sizes.dtype.type(1), sizes)


def _handedness(fields: numpy.ndarray) -> int:
    return -1 if fields["pixdim"][0] == -1 else 1


def _rotation(fields: numpy.ndarray, name: str) -> numpy.ndarray:
    """Return the rotation matrix of the header's quaternion, of which it stores three parts of four."""
    vector = fields["quatern"].astype(numpy.longdouble)
    rest = 1.0 - vector @ vector
    slack = _QUATERNION_SLACK[fields["quatern"].dtype.itemsize]
    if not numpy.isfinite(rest) or rest <= -slack:
        raise BadAnswer(f"Expected a rotation in the header of '{name}', got {vector.tolist()}. The file is damaged.")
    w = numpy.longdouble(0) if abs(rest) < slack else numpy.sqrt(rest)
    x, y, z = vector
    scale = 2.0 / (w * w + x * x + y * y + z * z)
    xs, ys, zs = x * scale, y * scale, z * scale
    return numpy.array(
        [
            [1.0 - (y * ys + z * zs), x * ys - w * zs, x * zs + w * ys],
            [x * ys + w * zs, 1.0 - (x * xs + z * zs), y * zs - w * xs],
            [x * zs - w * ys, y * zs + w * xs, 1.0 - (x * xs + y * ys)],
        ]
    )


def label_header(image: NiftiHeader, dtype: numpy.dtype) -> bytes:
    """Return the header of a label map on an image's grid: all that says where the voxels are is the image's.

    What describes the image's values or names its source (a patient, perhaps) is left out, and so are extensions.

    Args:
        image: The image's header.
        dtype: Type of the label map's voxels.
    """
    fields = image.fields.copy()
    axes = int(fields["dim"][0])
    fields["dim"][4 : max(axes, 3) + 1] = 1
    fields["dim"][0] = min(max(axes, 3), 3)
    for index, length in enumerate(image.shape, 1):
        fields["dim"][index] = length
    for field in ("cal_max", "cal_min", "intent_p", "intent_code", "intent_name", "descrip", "aux_file"):
        fields[field] = numpy.zeros((), fields.dtype[field])
    return _finish(fields, dtype)


def new_header(shape: Sequence[int], affine: numpy.ndarray, dtype: numpy.dtype) -> bytes:
    """Return a NIfTI-1 header for a grid.

    Args:
        shape: I, J, K in voxels.
        affine: 4 x 4 matrix from voxel indices to RAS in mm.
        dtype: Type of the voxels.
    """
    fields = numpy.zeros((), _NIFTI1.newbyteorder("<"))
    fields["sizeof_hdr"], fields["magic"] = _NIFTI1.itemsize, b"n+1"
    fields["dim"] = [3, *shape, 1, 1, 1, 1]
    fields["pixdim"] = [1.0, *numpy.linalg.norm(affine[:3, :3], axis=0), 1.0, 1.0, 1.0, 1.0]
    fields["xyzt_units"] = 2  # mm
    fields["sform_code"], fields["srow"] = 1, affine[:3]
    return _finish(fields, dtype)


def _finish(fields: numpy.ndarray, dtype: numpy.dtype) -> bytes:
    fields["datatype"] = next(code for code, kind in DTYPES.items() if numpy.dtype(kind) == dtype.newbyteorder("="))
    fields["bitpix"] = 8 * dtype.itemsize
    fields["scl_slope"], fields["scl_inter"] = 1, 0
    fields["vox_offset"] = _least_offset(fields)
    return fields.tobytes() + bytes(4)
