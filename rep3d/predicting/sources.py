"""What there is to predict: an image file, the NIfTI files of a folder, and each DICOM series in it."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rep3d.data.cases import IMAGES, PLAIN_IMAGES, TESTS, read_images
from rep3d.errors import ImageError, TaskError
from rep3d.files import file_hash
from rep3d.imaging.channels import channels_beside, count_channels, image_name
from rep3d.imaging.dicom import DicomSeries, convert_series, find_series
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["Source", "Sources", "find_sources"]

_LONGEST_ID = 80


@dataclass(frozen=True)
class Source:
    """One image to predict.

    Attributes:
        id: what its outputs are named after.
        path: its NIfTI file, of several channels the first one's; or the folder of its series.
        series: the DICOM series; None for a NIfTI file.
        refused: why it cannot be predicted, where that is known before it is read.
        channels: its NIfTI files in the order of the channels, where each has one of its own.
    """

    id: str
    path: Path
    series: DicomSeries | None = None
    refused: str = ""
    channels: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """Its NIfTI files, or the folder of its series."""
        return self.channels or (self.path,)

    def digest(self) -> str:
        """Return the SHA-256 of its file; of a series one that is the same for the same files in any order."""
        if self.series is None and len(self.files) == 1:
            return file_hash(self.path)
        slices = None if self.series is None else [file.path for file in self.series.slices]
        hashes = [file_hash(file) for file in self.files] if slices is None else sorted(map(file_hash, slices))
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()

    @contextmanager
    def as_nifti(self) -> Iterator[tuple[Path, ...]]:
        """Yield its channels as NIfTI files for as long as that is needed.

        Raises:
            ImageError: if the series is no stack of slices.
        """
        if self.series is None:
            yield self.files
            return
        with TemporaryDirectory(prefix="rep3d-predict-") as folder:
            file = Path(folder) / f"{self.id}.nii"
            convert_series(self.series, file)
            yield (file,)


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
        ImageError: if there is nothing, or a file of another kind.
    """
    if not path.exists():
        raise ImageError(f"There is no file or folder {path}. Is the name right?")
    if not path.is_dir():
        if not path.name.lower().endswith(IMAGE_SUFFIXES):
            raise ImageError(
                f"INPUT: {path} is no NIfTI file ({' or '.join(IMAGE_SUFFIXES)}), nor a folder. If it is a model, "
                f"OUTPUT is missing: give the models, then INPUT, then OUTPUT."
            )
        return Sources((Source(image_name(path), path, channels=channels_beside(path)),))
    try:
        files = list(_files(path))
    except TaskError as error:
        raise ImageError(str(error)) from error
    found = find_series(path, skip=skip)
    cases = sorted([*files, *_series(path, found.series)], key=lambda case: case.id)
    if not cases:
        inner = [str(path / name) for name in (IMAGES, TESTS, PLAIN_IMAGES) if (path / name).is_dir()]
        why = f" Of this data set, give {' or '.join(inner)}." if inner else ""
        why += "".join(f" {one}" for one in found.left_out[:5])
        raise ImageError(
            f"{path} holds no images: neither NIfTI files ({' or '.join(IMAGE_SUFFIXES)}), nor a DICOM series.{why}"
        )
    return Sources(tuple(_under_names_of_their_own(cases)), tuple(map(str, found.left_out)))


def _files(folder: Path) -> Iterator[Source]:
    """Yield a source for each image, of one file or of a file for each channel; what is no image is refused."""
    found, left_out = read_images(folder)
    for id_, files in found.items():
        # 4D files may be numbered as channels are: they are images of their own.
        if len(files) > 1 and any(map(_has_channels_itself, files)):
            yield from (Source(f"{id_}_{number:04d}", file) for number, file in enumerate(files))
        else:
            yield Source(id_, files[0], channels=files)
    refused: set[str] = set()
    for entry in left_out:
        name = Path(entry.file).name
        id_ = name if entry.id in found else entry.id
        if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".") and id_ not in refused:
            refused.add(id_)  # once, where it stands for several files: the reason names them
            yield Source(id_, folder / name, refused=entry.reason)


def _has_channels_itself(file: Path) -> bool:
    try:
        return count_channels(file) > 1
    except ImageError:
        return False


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
        yield replace(case, id=name)
