"""Which DICOM files make a volume together, and which are left out, and why.

A series has a UID, and some files have none, or one that belongs to others: two patients whose names an anonymiser took
away, several echoes, time points or directions that a scanner sent as one series. So files are told apart by all that
they say of themselves, patients first; what a series cannot be told apart by stays together and is refused where its
slices lie on each other (:mod:`rep3d.imaging.dicom.stack`).
"""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rep3d.errors import ImageError, MissingComponentError
from rep3d.files import leads_out
from rep3d.imaging.dicom.files import DicomFile, named_dicom, read_file
from rep3d.imaging.dicom.stack import Stack, stack, tolerance

__all__ = ["DicomSeries", "Found", "LeftOut", "find_series", "only_series"]

logger = logging.getLogger(__name__)

_SAME_DIRECTION = 0.02  # of direction cosines; how parallel slices must be is the stack's to say
_OUTSIDE = "is a link that leads out of the folder. Copy the file itself there."
_MOST_PARTS = 20  # volumes of one series: more are no images to label one by one, but a film

# What may tell slices at one place apart, the most certain first.
_KINDS: tuple[Callable[[DicomFile], Hashable], ...] = (
    lambda file: file.path.parent,
    lambda file: file.text("ImageType").upper(),
    lambda file: file.text("EchoNumbers"),
    lambda file: file.text("TemporalPositionIdentifier"),
    lambda file: file.text("DiffusionBValue"),
    lambda file: file.text("AcquisitionNumber"),
    lambda file: file.text("TriggerTime"),
    lambda file: file.text("AcquisitionTime"),
    lambda file: tuple(file.text(tag) for tag in ("ImageType", "EchoNumbers", "TemporalPositionIdentifier")),
    lambda file: (file.text("ImageType"), file.text("AcquisitionNumber")),
)


@dataclass(frozen=True)
class LeftOut:
    """Files that are part of no volume.

    Attributes:
        files: the files, in one folder.
        error: why, and what to do.
    """

    files: tuple[Path, ...]
    error: str

    def __str__(self) -> str:
        if len(self.files) == 1:
            return f"{self.files[0].name} {self.error}"
        return f"{len(self.files)} files such as {self.files[0].name}: each {self.error}"


@dataclass(frozen=True)
class DicomSeries:
    """The files of one volume.

    Attributes:
        uid: its SeriesInstanceUID; empty where it has none.
        modality: such as ``"CT"`` or ``"MR"``; empty where not given.
        description: the scanner's name for it; empty where not given.
        folder: where its first file lies.
        slices: its files, in no order.
        part: which part of the series it is, such as ``"part 2 of 3"``; empty where it is all of it.
        beside: files in its folders that are part of no volume: what it lacks may be among them.
    """

    uid: str
    modality: str
    description: str
    folder: Path
    slices: tuple[DicomFile, ...] = field(repr=False)
    part: str = ""
    beside: tuple[LeftOut, ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        words = " ".join(part for part in (self.modality, self.description) if part) or "series"
        known = ", ".join(part for part in (f"{len(self.slices)} files", self.uid or "no UID", self.part) if part)
        return f"{words} ({known})"

    @property
    def fingerprint(self) -> str:
        """The same for the same files wherever they lie, and another one for any others."""
        facts = sorted(
            (*_whose(file), *(file.text(tag) for tag in ("SOPInstanceUID", *_TOLD_APART, "ImagePositionPatient")))
            for file in self.slices
        )
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Found:
    """What a folder holds.

    Attributes:
        series: what may be a volume, by description and UID.
        left_out: the DICOM files that are part of none.
    """

    series: list[DicomSeries]
    left_out: list[LeftOut]


_TOLD_APART = ("Modality", "Rows", "Columns", "EchoTime", "ImageType", "TemporalPositionIdentifier", "InstanceNumber")


def find_series(folder: Path | str, skip: Collection[str] = (), within: Path | None = None) -> Found:
    """Return all series in a folder and its subfolders; files that are no DICOM are passed over.

    Args:
        folder: where to look; hidden files and folders are left alone.
        skip: names of subfolders of it that hold other things.
        within: a folder that links must not lead out of; None for links to anywhere.

    Raises:
        MissingComponentError: if pydicom is not installed.
    """
    by_series: dict[Hashable, list[DicomFile]] = {}
    left_out: dict[tuple[Path, str], list[Path]] = {}
    for path in _files(Path(folder), skip, left_out):
        if within and path.is_symlink() and leads_out(path, within):
            if named_dicom(path.name) or not path.suffix:  # else it need not be one, and is not opened to find out
                left_out.setdefault((path.parent, _OUTSIDE), []).append(path)
            continue
        try:
            file = read_file(path)
        except MissingComponentError:
            raise
        except ImageError as error:
            left_out.setdefault((path.parent, str(error)), []).append(path)
        except OSError as error:
            left_out.setdefault((path.parent, f"cannot be opened ({error.strerror}). Copy it again."), []).append(path)
        except Exception as error:  # a header may say anything; it must not cost the other files
            left_out.setdefault((path.parent, f"cannot be read ({error}). Export it again."), []).append(path)
        else:
            if file is not None:
                by_series.setdefault(_series_key(file), []).append(file)
    volumes: list[tuple[list[DicomFile], str]] = []
    for files in by_series.values():
        try:
            parts, alone = _parts(files)
        except Exception as error:  # such as a file that is gone by now; it must not cost the other series
            reason = f"cannot be read ({error}). Import it again, or export it again."
            left_out.setdefault((files[0].path.parent, reason), []).extend(file.path for file in files)
            continue
        volumes += [(part, f"part {n} of {len(parts)}" if len(parts) > 1 else "") for n, part in enumerate(parts, 1)]
        for file in alone:
            reason = (
                "is the only slice in its direction, size or echo of a series of several. Is it a localizer? Leave it "
                "out, or put it into a folder of its own."
            )
            left_out.setdefault((file.path.parent, reason), []).append(file.path)
    others = [LeftOut(tuple(files), error) for (_, error), files in left_out.items()]
    found = [_named(files, part, others) for files, part in volumes]
    return Found(sorted(found, key=lambda one: (one.description, one.uid, one.part, str(one.folder))), others)


def only_series(folder: Path | str) -> DicomSeries:
    """Return the one series in a folder; files that are part of none are named in the log.

    Raises:
        ImageError: if there is none, or more than one.
    """
    folder = Path(folder)
    found = find_series(folder)
    if not found.series:
        why = "".join(f" {one}" for one in found.left_out[:5])
        raise ImageError(f"{folder.name} holds no DICOM images that can be used.{why} Choose the folder of one series.")
    if len(found.series) > 1:
        listed = "; ".join(str(one) for one in found.series[:10])
        raise ImageError(
            f"{folder.name} holds {len(found.series)} DICOM series: {listed}. Put each into a folder of its own."
        )
    for one in found.left_out:
        logger.warning("Left out of %s: %s", found.series[0], one)
    return found.series[0]


def _files(folder: Path, skip: Collection[str], left_out: dict[tuple[Path, str], list[Path]]) -> Iterator[Path]:
    """Yield the files in a folder and below; what cannot be opened is added to ``left_out``."""

    def unreadable(error: OSError) -> None:
        path = Path(error.filename)
        left_out.setdefault((path.parent, f"cannot be opened ({error.strerror}). Is it yours?"), []).append(path)

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not (Path(place) == folder and name in skip)
        )
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _series_key(file: DicomFile) -> Hashable:
    """Return what files of one series have in common."""
    uid = file.text("SeriesInstanceUID")
    return uid or ("none", file.path.parent, file.text("SeriesNumber"), file.text("SeriesDescription"))


def _named(files: Sequence[DicomFile], part: str, left_out: Sequence[LeftOut]) -> DicomSeries:
    first = files[0]
    folders = {file.path.parent for file in files}
    return DicomSeries(
        first.text("SeriesInstanceUID"),
        first.text("Modality"),
        first.text("SeriesDescription"),
        first.path.parent,
        tuple(files),
        part,
        tuple(one for one in left_out if one.files[0].parent in folders),
    )


def _whose(file: DicomFile) -> tuple[str, ...]:
    """Return what is never put into one volume where it differs: the patient, the study, the frame of reference."""
    return (*file.patient, file.text("StudyInstanceUID"), file.text("FrameOfReferenceUID"))


def _parts(files: Sequence[DicomFile]) -> tuple[list[list[DicomFile]], list[DicomFile]]:
    """Return the volumes in the files of one series, and single slices that are left over beside them."""

    def kind(file: DicomFile) -> Hashable:
        echo = round(file.number("EchoTime", -1), 3)
        return (*_whose(file), file.text("Modality"), file.shape, echo)

    parts = [
        part
        for group in _grouped(files, kind)
        for parallel in _by_direction(group)
        for part in _told_apart(_without_copies(parallel))
    ]
    if len(parts) == 1:
        return parts, []
    return [part for part in parts if len(part) > 1], [part[0] for part in parts if len(part) == 1]


def _grouped(files: Sequence[DicomFile], kind: Callable[[DicomFile], Hashable]) -> list[list[DicomFile]]:
    groups: dict[Hashable, list[DicomFile]] = {}
    for file in files:
        groups.setdefault(kind(file), []).append(file)
    return list(groups.values())


def _by_direction(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    groups: list[tuple[np.ndarray, list[DicomFile]]] = []
    for file in files:
        direction = file.numbers("ImageOrientationPatient", 6)
        assert direction is not None  # read_file made sure
        for first, group in groups:
            if np.abs(direction - first).max() <= _SAME_DIRECTION:
                group.append(file)
                break
        else:
            groups.append((direction, [file]))
    return [group for _, group in groups]


def _without_copies(files: Sequence[DicomFile]) -> list[DicomFile]:
    """Return the files without those that are another one byte for byte."""
    kept: list[DicomFile] = []
    places: dict[Hashable, list[DicomFile]] = {}
    for file in files:
        same = places.setdefault((file.text("SOPInstanceUID"), file.text("ImagePositionPatient")), [])
        if not any(filecmp.cmp(file.path, other.path, shallow=False) for other in same):
            same.append(file)
            kept.append(file)
    return kept


def _told_apart(files: Sequence[DicomFile]) -> list[list[DicomFile]]:
    """Return the volumes in parallel slices of one size: as one, unless only as several they are stacks."""
    whole = _stack_of(files)
    if whole is not None and not _interleaved(files, whole):
        return [list(files)]
    for kind in _KINDS:
        groups = _grouped(files, kind)
        if 1 < len(groups) <= _MOST_PARTS and all(len(group) > 1 and _stack_of(group) for group in groups):
            return groups
    return [list(files)]


def _stack_of(files: Sequence[DicomFile]) -> Stack | None:
    try:
        return stack(files)
    except ImageError:
        return None


def _interleaved(files: Sequence[DicomFile], whole: Stack) -> bool:
    """Return whether an even stack is rather several that lie between each other.

    Two patients without names under one UID may make one stack by chance. In their own folders, each is a stack with
    larger steps, or numbers its slices anew.
    """
    folders = _grouped(files, lambda file: file.path.parent)
    if len(folders) == 1:
        return False
    stacks = [_stack_of(group) for group in folders if len(group) > 1]
    if any(one is None or abs(one.step - whole.step) > tolerance(whole.step) for one in stacks):
        return True
    numbers = Counter(number for file in files if (number := file.text("InstanceNumber")))
    return len(numbers) > 1 and max(numbers.values()) > 1
