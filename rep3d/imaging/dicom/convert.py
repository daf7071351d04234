"""A series as a NIfTI file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib

from rep3d.errors import ImageError, OutOfMemoryError
from rep3d.imaging.dicom.pixels import read_pixels
from rep3d.imaging.dicom.series import DicomSeries, only_series
from rep3d.imaging.dicom.stack import stack

__all__ = ["as_nifti", "convert_series"]

_TOLD = 3  # reasons in one message


def convert_series(source: DicomSeries | Path | str, output: Path | str) -> DicomSeries:
    """Write a series as a NIfTI file, in the scanner's coordinates, with rescaled values (HU for CT).

    Args:
        source: the series, or a folder that holds only one.
        output: file to write, ``.nii.gz`` or ``.nii``.

    Returns:
        The series.

    Raises:
        ImageError: if it is no complete, evenly spaced stack of parallel slices, or its pixels cannot be read.
        TooLargeError, OutOfMemoryError: if there is not enough memory for it, ever or now; no pixels were read.
    """
    series = source if isinstance(source, DicomSeries) else only_series(source)
    try:
        put = stack(series.slices)
        voxels = read_pixels(put.slices)
    except (ImageError, OutOfMemoryError) as error:
        beside = "".join(f" Beside it, {one}" for one in series.beside[:_TOLD])
        raise type(error)(f"{series}: {error}{beside}") from error
    image = nib.Nifti1Image(voxels, put.affine)
    image.header["xyzt_units"] = 2  # mm
    image.set_sform(put.affine, 1)
    image.set_qform(put.affine, 1)
    nib.save(image, output)
    return series


@contextmanager
def as_nifti(image: Path | str) -> Iterator[Path]:
    """Yield a NIfTI file for an image while it is needed: itself, or the converted series where it is a folder.

    Raises:
        ImageError: as :func:`convert_series`.
    """
    path = Path(image)
    if not path.is_dir():
        yield path
        return
    with TemporaryDirectory(prefix="rep3d-dicom-") as folder:
        file = Path(folder) / f"{path.resolve().name}.nii"
        convert_series(path, file)
        yield file
