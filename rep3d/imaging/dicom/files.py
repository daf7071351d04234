"""One DICOM file: whether it is one, what its header says, and why it cannot be a slice of a volume."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rep3d.errors import ImageError, MissingComponentError
from rep3d.files import unpacked_sizes

__all__ = [
    "HEAD",
    "NUMBERS",
    "DicomFile",
    "OversizeError",
    "check_size",
    "check_slice",
    "looks_like_dicom",
    "named_dicom",
    "pydicom",
    "raw_text",
    "read_file",
]

HEAD = 132  # bytes of a file up to and with its mark
_MARK = b"DICM"
_SUFFIXES = (".dcm", ".dicom", ".ima")
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")  # what a file without the mark begins with, as old scanners wrote them
_LARGEST = 256 << 20  # bytes of a file, unpacked: several times the largest slice; pydicom holds all of it in memory
_BLOCK = 1 << 20
NUMBERS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
_TEXTS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "PatientName", "PatientBirthDate", "Modality", "SeriesDescription", "SeriesNumber"),
    *("InstanceNumber", "ImageType", "EchoTime", "EchoNumbers", "TriggerTime", "TemporalPositionIdentifier"),
    *("DiffusionBValue", "AcquisitionNumber", "AcquisitionTime", "NumberOfFrames", "PhotometricInterpretation"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "BurnedInAnnotation", "ConversionType", "DeidentificationMethod"),
)
_PRESENT = ("ModalityLUTSequence", "PerFrameFunctionalGroupsSequence")
_DIRECTORY = "1.2.840.10008.1.3.10"  # a DICOMDIR: a list of other files, which are looked at themselves
_MONOCHROME = ("MONOCHROME1", "MONOCHROME2", "")
_PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
_UNIT_TOLERANCE = 0.03  # of squared lengths and of the right angle of direction cosines: two digits suffice


@dataclass(frozen=True)
class DicomFile:
    """What the header of a file says.

    Attributes:
        path: the file.
        tags: text of each tag that it has, by keyword; empty for a sequence.
        syntax: UID of its transfer syntax; empty where it has none.
        shown: what it is called in messages; empty for its own name.
    """

    path: Path
    tags: Mapping[str, str] = field(repr=False)
    syntax: str
    shown: str = ""

    def text(self, keyword: str) -> str:
        """Return the text of a tag, empty where it is not there."""
        return self.tags.get(keyword, "")

    def numbers(self, keyword: str, count: int) -> np.ndarray | None:
        """Return the numbers of a tag, or None where it has not so many."""
        try:
            values = np.array([float(part) for part in self.text(keyword).split("\\")])
        except ValueError:
            return None
        return values if values.shape == (count,) and np.isfinite(values).all() else None

    def number(self, keyword: str, default: float) -> float:
        """Return the number of a tag, or the default where it has none."""
        values = self.numbers(keyword, 1)
        return default if values is None else float(values[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.text("Rows")), int(self.text("Columns"))

    @property
    def patient(self) -> tuple[str, ...]:
        """Whom it is of."""
        return tuple(self.text(f"Patient{part}").rstrip("^ ").lower() for part in ("ID", "Name", "BirthDate"))

    def __str__(self) -> str:
        number = self.text("InstanceNumber")
        name = self.shown or self.path.name
        return f"{name} (instance {number})" if number else name


def pydicom() -> Any:
    """Return the package that reads DICOM.

    Raises:
        MissingComponentError: if it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingComponentError(
            "Reading DICOM needs the package pydicom, which is not installed. Run: pip install pydicom"
        ) from error
    return pydicom


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, by its first :data:`HEAD` bytes: the mark, or what an old scanner wrote first."""
    if head[128:HEAD] == _MARK:
        return True
    # Group 2 or 8, a low element number, and a length in either of the two ways to write one.
    element, kind, length = head[2:4], head[4:6], head[6:8]
    plausible = kind.isalpha() and kind.isupper() or length == b"\0\0"
    return len(head) == HEAD and head[:2] in _FIRST_GROUPS and element[1:] == b"\0" and plausible


def named_dicom(name: str) -> bool:
    """Return whether a file's name claims that it is DICOM."""
    return name.lower().endswith(_SUFFIXES)


def read_file(path: Path) -> DicomFile | None:
    """Return the header of a slice of a volume; None for a file that is no DICOM, or a list of DICOM files.

    Raises:
        ImageError: if it is DICOM and can be no slice: why, and what to do.
        MissingComponentError: if pydicom is not installed.
    """
    with path.open("rb") as content:
        head = content.read(HEAD)
    if not looks_like_dicom(head):
        if named_dicom(path.name):
            raise ImageError(f"is {'no DICOM file' if head else 'empty'}, though named so. Copy it again.")
        return None
    file = _header(path, marked=head[128:] == _MARK)
    if file is None or file.text("SOPClassUID") == _DIRECTORY:
        return None
    problem = _problem(file)
    if problem:
        raise ImageError(problem)
    return file


class OversizeError(Exception):
    """A file is larger than a slice can be."""


def check_size(path: Path) -> None:
    """Refuse a file that is too large for a slice, as it is or deflated, before pydicom takes the memory.

    Raises:
        OversizeError: if it is.
    """
    size = path.stat().st_size
    if size <= _LARGEST:
        reader = pydicom()
        with path.open("rb") as content:
            reader.filereader.read_preamble(content, True)
            syntax = reader.filereader._read_file_meta_info(content).get("TransferSyntaxUID")
            if syntax != reader.uid.DeflatedExplicitVRLittleEndian:
                return
            size = 0
            for part in unpacked_sizes(content, zlib.decompressobj(-zlib.MAX_WBITS)):
                size += part
                if size > _LARGEST:
                    break
    if size > _LARGEST:
        raise OversizeError(
            f"has more than {_LARGEST >> 20} MiB, and no slice of a volume has so many. If it is a multi-frame file, "
            f"convert it to NIfTI first, with dcm2niix."
        )


def _header(path: Path, marked: bool) -> DicomFile | None:
    reader = pydicom()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values that are looked at here one by one
            check_size(path)
            data = reader.dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=[*_TEXTS, *NUMBERS, *_PRESENT]
            )
    except OversizeError as error:
        if not marked and not named_dicom(path.name):
            return None
        raise ImageError(str(error)) from error
    except Exception as error:  # pydicom raises whatever a damaged file makes it meet
        if not marked and not named_dicom(path.name):
            return None  # other files may begin so, too
        raise ImageError(f"is a damaged DICOM file ({error}). Export it again.") from error
    meta = data.file_meta
    tags = {keyword: text for keyword in _TEXTS if (text := raw_text(data, keyword)) is not None}
    for keyword in NUMBERS:
        value = _whole(data, keyword)
        if value is not None:
            tags[keyword] = value
    tags.update({keyword: "" for keyword in _PRESENT if keyword in data})
    if not tags.get("SOPClassUID"):
        tags["SOPClassUID"] = str(meta.get("MediaStorageSOPClassUID", ""))
    if not marked and not named_dicom(path.name) and not (tags["SOPClassUID"] or "Modality" in tags):
        return None
    return DicomFile(path, tags, str(meta.get("TransferSyntaxUID", "")))


def raw_text(data: Any, keyword: str) -> str | None:
    """Return a tag as it is written, without the checks that pydicom makes of a value."""
    if keyword not in data:
        return None
    value = data.get_item(keyword).value
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    return "" if value is None else str(value).strip(" \0\r\n\t")


def _whole(data: Any, keyword: str) -> str | None:
    try:
        return str(int(data[keyword].value))
    except (KeyError, TypeError, ValueError, NotImplementedError):
        return None


def _problem(file: DicomFile) -> str | None:
    """Return why a file can be no slice of a volume; None if it can."""
    kind = _kind(file)
    if not file.text("SOPClassUID") and "Rows" not in file.tags:
        return "is a damaged DICOM file: its header does not even say what it is. Export it again."
    if not (_positive(file, "Rows") and _positive(file, "Columns")):
        return f"is {kind}, and holds no image. Leave it out."
    if "PerFrameFunctionalGroupsSequence" in file.tags or file.text("NumberOfFrames") not in ("", "0", "1"):
        return f"is {kind}, a multi-frame file, which cannot be read here. Convert it to NIfTI first, with dcm2niix."
    samples, colours = file.text("SamplesPerPixel"), file.text("PhotometricInterpretation")
    if samples not in ("", "1") or colours not in _MONOCHROME:
        return f"is a colour image ({colours or samples + ' samples'}), and cannot be segmented. Leave it out."
    if "LOCALIZER" in file.text("ImageType").upper().split("\\"):
        return "is a localizer, which shows where other images were planned. Leave it out."
    for keyword, count in _PLACE.items():
        if file.numbers(keyword, count) is None:
            return (
                f"is {kind}, and does not say where it lies in space: its {keyword} is "
                f"{'no set of numbers' if file.text(keyword) else 'missing'}. Leave it out, or export it again."
            )
    return None


def _positive(file: DicomFile, keyword: str) -> bool:
    return file.number(keyword, 0) > 0


def _kind(file: DicomFile) -> str:
    uid = file.text("SOPClassUID")
    return f"of the kind {pydicom().uid.UID(uid).name}" if uid else "of no known kind"


def check_slice(file: DicomFile) -> None:
    """Refuse a slice that contradicts itself, and with it its series: what it says cannot be believed.

    Raises:
        ImageError: with the file's name, what it says, and what to do.
    """
    if "ModalityLUTSequence" in file.tags:
        raise ImageError(
            f"{file} has a table for the meaning of its values (Modality LUT), which cannot be read here. Convert "
            f"it to NIfTI first."
        )
    directions, spacing = file.numbers("ImageOrientationPatient", 6), file.numbers("PixelSpacing", 2)
    if spacing is None or spacing.min() <= 0:
        raise _untrue(file, "PixelSpacing", "has pixels without a size")
    if directions is not None:
        pair = directions.reshape(2, 3)
        if np.abs(pair @ pair.T - np.eye(2)).max() > _UNIT_TOLERANCE:
            raise _untrue(file, "ImageOrientationPatient", "has no right angle between its rows and columns")
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        value = file.numbers(keyword, 1)
        if file.text(keyword) and (value is None or (keyword == "RescaleSlope" and value[0] == 0)):
            raise _untrue(file, keyword, "does not say what its values mean")


def _untrue(file: DicomFile, keyword: str, words: str) -> ImageError:
    return ImageError(f"{file} {words}: its {keyword} is {file.text(keyword)!r}. Export it again.")
