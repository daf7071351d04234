"""DICOM series to NIfTI files.

A scanner writes a volume as one file per slice. What may go wrong when they are put together (slices missing, several
series in one folder, one position twice) shows in no picture until a volume in ml is wrong; so all of it is checked
first, and refused in words. Pixels are read by SimpleITK, which knows the usual compressions and applies the rescaling
of each slice; the geometry is computed here, from the positions that every slice states.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np

from rep3d.errors import ImageError, MissingComponentError

__all__ = ["DicomSeries", "as_nifti", "convert_series", "find_series", "only_series"]

_SPACING_TOLERANCE = 0.02  # of neighbouring slices' distances, as a share of their median
_ANGLE_TOLERANCE = 1e-3  # of direction cosines
_TAGS = {
    "uid": "0020|000e",
    "modality": "0008|0060",
    "description": "0008|103e",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "thickness": "0018|0050",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "frames": "0028|0008",
    "samples": "0028|0002",
    "slope": "0028|1053",
    "intercept": "0028|1052",
}


@dataclass(frozen=True)
class _Slice:
    file: Path
    tags: dict[str, str]

    def numbers(self, name: str, count: int) -> np.ndarray | None:
        """Return the numbers of a tag, or None where it has not so many."""
        try:
            values = np.array([float(part) for part in self.tags.get(name, "").split("\\")])
        except ValueError:
            return None
        return values if values.shape == (count,) and np.isfinite(values).all() else None


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series.

    Attributes:
        uid: its SeriesInstanceUID.
        modality: such as ``"CT"`` or ``"MR"``; empty where not given.
        description: the scanner's name for it; empty where not given.
        folder: where its first file lies.
        slices: its files with their tags, in no order.
    """

    uid: str
    modality: str
    description: str
    folder: Path
    slices: tuple[_Slice, ...]

    def __str__(self) -> str:
        words = " ".join(part for part in (self.modality, self.description) if part) or "series"
        return f"{words} ({len(self.slices)} files, {self.uid})"


def find_series(folder: Path | str) -> list[DicomSeries]:
    """Return all series in a folder and its subfolders, by description and UID; other files are passed over.

    Raises:
        MissingComponentError: if SimpleITK is not installed.
    """
    folder = Path(folder)
    found: dict[str, list[_Slice]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            part = _read_tags(Path(place) / name) if not name.startswith(".") else None
            if part is not None:
                found.setdefault(part.tags["uid"], []).append(part)
    series = [
        DicomSeries(
            uid,
            slices[0].tags.get("modality", ""),
            slices[0].tags.get("description", ""),
            slices[0].file.parent,
            tuple(slices),
        )
        for uid, slices in found.items()
    ]
    return sorted(series, key=lambda one: (one.description, one.uid))


def only_series(folder: Path | str) -> DicomSeries:
    """Return the one series in a folder.

    Raises:
        ImageError: if there is none, or more than one.
    """
    folder = Path(folder)
    series = find_series(folder)
    if not series:
        raise ImageError(f"{folder.name} holds no DICOM images. Choose the folder of one DICOM series.")
    if len(series) > 1:
        listed = "; ".join(str(one) for one in series[:10])
        raise ImageError(
            f"{folder.name} holds {len(series)} DICOM series: {listed}. Put each into a folder of its own."
        )
    return series[0]


def convert_series(source: DicomSeries | Path | str, output: Path | str) -> DicomSeries:
    """Write a series as a NIfTI file, in the scanner's coordinates, with rescaled values (HU for CT).

    Args:
        source: the series, or a folder that holds only one.
        output: file to write, ``.nii.gz`` or ``.nii``.

    Returns:
        The series.

    Raises:
        ImageError: if it is no complete, evenly spaced stack of parallel slices, or its pixels cannot be read.
    """
    series = source if isinstance(source, DicomSeries) else only_series(source)
    slices, affine = _stack(series)
    image = nib.Nifti1Image(_pixels(series, slices), affine)
    image.header["xyzt_units"] = 2  # mm
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
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


def _simple_itk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise MissingComponentError(
            "Reading DICOM needs the package SimpleITK, which is not installed. Run: pip install SimpleITK"
        ) from error
    return SimpleITK


def _looks_like_dicom(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _read_tags(file: Path) -> _Slice | None:
    """Return the tags of a file; None if it is no DICOM image of a series."""
    if not _looks_like_dicom(file):
        return None
    itk = _simple_itk()
    reader = itk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:  # a report, a directory, half a file: no image
        return None
    present = set(reader.GetMetaDataKeys())
    tags = {name: reader.GetMetaData(tag).strip(" \0") for name, tag in _TAGS.items() if tag in present}
    return _Slice(file, tags) if tags.get("uid") and tags.get("rows") else None


def _stack(series: DicomSeries) -> tuple[list[_Slice], np.ndarray]:
    """Return the slices in order, and the affine (4, 4) from column, row and slice indices to RAS mm."""
    slices = list(series.slices)
    if any(part.tags.get("frames", "1") not in ("1", "0", "") for part in slices):
        raise ImageError(
            f"{series} is a multi-frame (enhanced) series, which cannot be read here. "
            f"Convert it to NIfTI first, with dcm2niix for example."
        )
    if any(part.tags.get("samples", "1") != "1" for part in slices):
        raise ImageError(f"{series} is a colour image, and cannot be segmented. Leave it out.")
    if len({(part.tags.get("rows"), part.tags.get("columns")) for part in slices}) > 1:
        raise ImageError(f"{series} has slices of several sizes. Is it a localizer? Leave it out.")
    orientations = [_needed(series, part, "orientation", 6) for part in slices]
    if max(np.abs(one - orientations[0]).max() for one in orientations) > _ANGLE_TOLERANCE:
        raise ImageError(f"{series} has slices that are not parallel. Is it a localizer? Leave it out.")
    along_row, along_column = orientations[0][:3], orientations[0][3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([_needed(series, part, "position", 3) for part in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions = [slices[n] for n in order], positions[order]
    step = _step(series, slices, positions, normal)
    between_rows, between_columns = _needed(series, slices[0], "spacing", 2)
    affine = np.eye(4)
    affine[:3, :4] = np.stack([along_row * between_columns, along_column * between_rows, step, positions[0]], axis=1)
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return slices, affine


def _needed(series: DicomSeries, part: _Slice, name: str, count: int) -> np.ndarray:
    values = part.numbers(name, count)
    if values is None:
        raise ImageError(
            f"{series} is no stack of slices in space: {part.file.name} has {part.tags.get(name)!r} as its {name}. "
            f"Leave it out."
        )
    return values


def _step(series: DicomSeries, slices: Sequence[_Slice], positions: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """From one slice to the next, in mm."""
    if len(slices) == 1:
        thickness = slices[0].numbers("thickness", 1)
        return normal * float(thickness[0] if thickness is not None and thickness[0] > 0 else 1.0)
    distances = np.diff(positions @ normal)
    median = float(np.median(distances))
    if distances.min() < 1e-3:
        count = int((distances < 1e-3).sum())
        raise ImageError(
            f"{series} has more than one slice at {count} positions. Are there several time "
            f"points or echoes, or copies of files? Put each into a folder of its own."
        )
    uneven = np.abs(distances - median) > _SPACING_TOLERANCE * median
    if uneven.any():
        gaps = np.rint(distances / median) - 1
        if np.allclose(distances, (gaps + 1) * median, rtol=_SPACING_TOLERANCE) and gaps.sum() > 0:
            raise ImageError(
                f"{series}: {int(gaps.sum())} of its slices are missing; there should be one every {median:g} mm. "
                f"Export it again."
            )
        raise ImageError(
            f"{series} has slices at uneven distances, from {distances.min():g} to "
            f"{distances.max():g} mm. Convert it to NIfTI first, with dcm2niix for example."
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    if np.linalg.norm(step / np.linalg.norm(step) - normal) > 1e-2:
        raise ImageError(
            f"{series} is tilted: its slices do not lie straight above each other (gantry tilt). "
            f"Convert it to NIfTI first, with dcm2niix for example."
        )
    return step


def _pixels(series: DicomSeries, slices: Sequence[_Slice]) -> np.ndarray:
    """(columns, rows, slices) values, rescaled as each slice says."""
    itk = _simple_itk()
    reader = itk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(part.file) for part in slices])
    if len({(part.tags.get("slope"), part.tags.get("intercept")) for part in slices}) > 1:
        reader.SetOutputPixelType(itk.sitkFloat32)  # else the first slice's type is everyone's
    try:
        voxels = itk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(
            f"{series} cannot be read: its files are damaged, or compressed in a way that is "
            f"not known here ({reason}). Export it again, without compression."
        ) from error
    if voxels.dtype == np.float64:
        voxels = voxels.astype(np.float32)
    elif voxels.dtype.itemsize > 4:
        voxels = voxels.astype(np.int32)
    return voxels.transpose(2, 1, 0)
