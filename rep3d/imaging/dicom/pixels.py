"""The values of DICOM slices, rescaled as each slice says (HU for CT).

Uncompressed pixels are read by pydicom, the usual compressions by SimpleITK, which gets the pixels alone: of whole
files it applies the rescaling, but turns MONOCHROME1 round, and fills what is missing with zeros.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from rep3d.errors import ImageError
from rep3d.imaging.dicom.decompress import Decompressor
from rep3d.imaging.dicom.files import DicomFile, pydicom
from rep3d.imaging.limits import check_voxels
from rep3d.memory import require_memory

__all__ = ["read_pixels"]

_RLE = "1.2.840.10008.1.2.5"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MOST_RLE = 16 << 20  # bytes of run lengths of a slice: pydicom unpacks them to 64 times as many, whatever is asked for
_PLAIN = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")  # pixels take their full size


def read_pixels(slices: Sequence[DicomFile]) -> np.ndarray:
    """Return the values of slices.

    Args:
        slices: the files in order, all of one size.

    Returns:
        (columns, rows, slices) array, of the smallest type that holds all values which the headers allow.

    Raises:
        ImageError: if a file is cut, damaged, or compressed in a way that is not known here; it is named. If there are
            more voxels than may be.
        TooLargeError, OutOfMemoryError: if there is not enough memory, ever or now, before anything is read.
    """
    rows, columns = slices[0].shape
    check_voxels((columns, rows, len(slices)), "it", ImageError)
    kind = _value_type(slices)
    for part in slices:
        _check_size(part)
    require_memory(
        len(slices) * rows * columns * kind.itemsize,
        f"for its {columns} x {rows} x {len(slices)} voxels",
        "Use a machine with more memory.",
    )
    values = np.empty((columns, rows, len(slices)), kind, order="F")  # as they are written
    with ExitStack() as ending:
        packed = any(_compressed(part) for part in slices)
        decompressor = ending.enter_context(Decompressor()) if packed else None
        for n, part in enumerate(slices):
            stored = _stored(part, decompressor)
            slope, intercept = part.number("RescaleSlope", 1), part.number("RescaleIntercept", 0)
            scaled = stored if (slope, intercept) == (1, 0) else stored * np.float64(slope) + intercept
            values[:, :, n] = scaled.T
    return values


def _value_type(slices: Sequence[DicomFile]) -> np.dtype[Any]:
    """Return the smallest type for all that the slices may hold."""
    if any("RescaleSlope" in part.tags or "RescaleIntercept" in part.tags for part in slices):
        without = [part for part in slices if not part.text("RescaleSlope") and not part.text("RescaleIntercept")]
        if without and len(without) < len(slices):
            raise ImageError(
                f"{len(without)} of its slices, such as {without[0]}, do not say how their values are scaled, though "
                f"others do. Export it again."
            )
    low, high = 0.0, 0.0
    for part in slices:
        bits = int(part.number("BitsStored", part.number("BitsAllocated", 0)))
        if not 0 < bits <= part.number("BitsAllocated", 0) <= 32 or part.number("BitsAllocated", 0) % 8:
            raise ImageError(
                f"{part} stores {part.text('BitsStored') or 'no'} of {part.text('BitsAllocated') or 'no'} bits for a "
                f"pixel, which cannot be read here: whole numbers of 8, 16 or 32 bits can. Convert it to NIfTI first."
            )
        signed = part.text("PixelRepresentation") == "1"
        slope, intercept = part.number("RescaleSlope", 1), part.number("RescaleIntercept", 0)
        if slope % 1 or intercept % 1:
            return np.dtype(np.float32)
        ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        low = min(low, *(end * slope + intercept for end in ends))
        high = max(high, *(end * slope + intercept for end in ends))
    for kind in (np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64)


def _check_size(part: DicomFile) -> None:
    """Refuse an uncompressed file that is too small for the pixels that its header announces."""
    if part.syntax in _PLAIN:
        size, bytes_needed = part.path.stat().st_size, math.prod(part.shape) * int(part.text("BitsAllocated")) // 8
        if size < bytes_needed:
            raise ImageError(
                f"{part} is cut short, or its header is wrong: it announces {bytes_needed / 1e6:.3g} MB of pixels, and "
                f"the file has {size / 1e6:.3g} MB. Export it again."
            )


def _compressed(part: DicomFile) -> bool:
    """Return whether pydicom needs help with it; nobody knows all syntaxes, such as private ones."""
    return part.syntax not in (*_PLAIN, _RLE, _DEFLATED)


def _stored(part: DicomFile, decompressor: Decompressor | None) -> np.ndarray:
    """Return the (rows, columns) numbers of a file as they are stored, before any rescaling."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they are about is checked here
            data = pydicom().dcmread(part.path, force=True)
            if "FloatPixelData" in data or "DoubleFloatPixelData" in data:
                raise ImageError(f"{part} stores floating point numbers. Convert it to NIfTI first, with dcm2niix.")
            if not data.get("PixelData"):
                raise ImageError(f"{part} has no pixels: it is cut short. Export it again.")
            if part.syntax == _RLE and len(data.PixelData) > _MOST_RLE:
                raise ImageError(f"{part} has too many run lengths. Convert it to NIfTI first, with dcm2niix.")
            if decompressor and _compressed(part):
                stored = decompressor.pixels(data)
            else:
                _make_plain(data)
                stored = data.pixel_array
    except ImageError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file makes it meet
        raise ImageError(f"{part} cannot be read: it is cut short or damaged ({error}). Export it again.") from error
    if stored is None:
        raise ImageError(
            f"{part} cannot be read: it is damaged, or compressed in a way that is not known here "
            f"({pydicom().uid.UID(part.syntax).name}). Export it again, without compression."
        )
    if stored.shape != part.shape:
        raise ImageError(f"{part} has pixels of shape {stored.shape}, not {part.shape}. Export it again.")
    return _used_bits(stored, part)


def _make_plain(data: Any) -> None:
    """Add what pydicom asks for, and old files leave out."""
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword, usual in (("PixelRepresentation", 0), ("BitsStored", data.BitsAllocated)):
        if data.get(keyword) is None:
            setattr(data, keyword, usual)
    if "TransferSyntaxUID" not in data.file_meta:
        explicit = not data.is_implicit_VR
        uid = pydicom().uid
        data.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian if explicit else uid.ImplicitVRLittleEndian


def _used_bits(stored: np.ndarray, part: DicomFile) -> np.ndarray:
    """Return the numbers without what other bits of a pixel hold (overlays, rubbish), with their sign."""
    allocated = stored.dtype.itemsize * 8
    bits = int(part.number("BitsStored", allocated))
    if bits >= allocated:
        return stored
    above = allocated - 1 - int(part.number("HighBit", bits - 1))
    kind = np.dtype(f"{'i' if part.text('PixelRepresentation') == '1' else 'u'}{stored.dtype.itemsize}")
    return (stored.astype(kind) << above) >> (allocated - bits)
