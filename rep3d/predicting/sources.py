"""What there is to predict: an image file, the NIfTI files of a folder, and each DICOM series in it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rep3d.errors import ImageError
from rep3d.files import file_hash
from rep3d.imaging.dicom import DicomSeries, convert_series, find_series
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["Source", "Sources", "find_sources"]

_CHANNEL = re.compile(r"(?P<id>.+)_(?P<number>\d{4})")  # of nnU-Net's image names
_LONGEST_ID = 80


@dataclass(frozen=True)
class Source:
    """One image to predict.

    Attributes:
        id: what its outputs are named after.
        path: its NIfTI file, or the folder of its series.
        series: the DICOM series; None for a NIfTI file.
        refused: why it cannot be predicted, where that is known before it is read.
    """

    id: str
    path: Path
    series: DicomSeries | None = None
    refused: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of its file; of a series one that is the same for the same files in any order."""
        if self.series is None:
            return file_hash(self.path)
        hashes = sorted(file_hash(file.path) for file in self.series.slices)
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @contextmanager
    def as_nifti(self) -> Iterator[Path]:
        """Yield it as a NIfTI file for as long as that is needed.

        Raises:
            ImageError: if the series is no stack of slices.
        """
        if self.series is None:
            yield self.path
            return
        with TemporaryDirectory(prefix="rep3d-predict-") as folder:
            file = Path(folder) / f"{self.id}.nii"
            convert_series(self.series, file)
            yield file


@dataclass(frozen=True)
class Sources:
    """What a folder holds.

    Attributes:
        cases: the images, by id.
        left_out: DICOM files that are part of no image, and why.
    """

    cases: tuple[Source, ...]
    left_out: tuple[str, ...] = ()


def find_sources(path: Path, skip: Sequence[str] = ()) -> Sources:
    """Return what there is to predict.

    Args:
        path: an image file, or a folder: its NIfTI files (not those of folders in it), and the DICOM series in it and
            below.
        skip: folders in it that are not looked into.

    Raises:
        ImageError: if there is nothing.
    """
    if not path.exists():
        raise ImageError(f"There is no file or folder {path}. Is the name right?")
    if not path.is_dir():
        return Sources((Source(_without_ending(path.name), path),))
    try:
        files = sorted(file for file in path.iterdir() if _is_image_name(file.name) and file.is_file())
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}).") from error
    found = find_series(path, skip=skip)
    cases = sorted([*_files(files), *_series(path, found.series)], key=lambda case: case.id)
    if not cases:
        why = "".join(f" {one}" for one in found.left_out[:5])
        raise ImageError(
            f"{path} holds no images: neither NIfTI files ({' or '.join(IMAGE_SUFFIXES)}), nor a DICOM series.{why}"
        )
    return Sources(tuple(_under_names_of_their_own(cases)), tuple(map(str, found.left_out)))


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def _without_ending(name: str) -> str:
    for suffix in IMAGE_SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _files(files: Sequence[Path]) -> Iterator[Source]:
    """Yield a source for each file; those that stand for one case are refused."""
    parts = {file: _CHANNEL.fullmatch(_without_ending(file.name)) for file in files}
    channels = Counter(part["id"] for part in parts.values() if part)
    for file, part in parts.items():
        id_ = _without_ending(file.name)
        if part is None:
            yield Source(id_, file)
        elif channels[part["id"]] == 1 and part["number"] == "0000":  # as nnU-Net names what it predicts
            yield Source(part["id"], file)
        else:
            reason = f"it is named as one of several channels of {part['id']}, and images with several cannot be read."
            yield Source(id_, file, refused=reason)


def _series(folder: Path, found: Sequence[DicomSeries]) -> Iterator[Source]:
    """Yield a source for each series, named after its folder, and where that has several after itself, too."""
    there = Counter(series.folder for series in found)
    for series in found:
        place = series.folder.relative_to(folder)
        words = place.parts or (folder.resolve().name,)
        more = (series.description, series.part) if there[series.folder] > 1 else ()
        id_ = re.sub(r"[^\w.-]+", "_", "_".join(filter(None, (*words, *more)))).strip("._-")
        yield Source(id_[:_LONGEST_ID] or "series", series.folder, series)


def _under_names_of_their_own(cases: Sequence[Source]) -> Iterator[Source]:
    """Yield the cases, none under a name that another one has where letters' case does not count."""
    taken: set[str] = set()
    for case in cases:
        name, number = case.id, 1
        while name.lower() in taken:
            number += 1
            name = f"{case.id}_{number}"
        taken.add(name.lower())
        yield Source(name, case.path, case.series, case.refused)
