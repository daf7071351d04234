"""What a DICOM result says of where it comes from: whose it is, of which images, made by what.

The equipment is described as IHE AI Results asks (Rev. 1.1, 6.5.3.1): each algorithm is an item of the Contributing
Equipment Sequence with manufacturer, model, version and a Device UID that changes with the weights; and the scanner
stays known.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rep3d import __version__
from rep3d.errors import ImageError, Rep3DError, machine_error
from rep3d.files import whole_file
from rep3d.imaging.dicom.files import pydicom
from rep3d.imaging.dicom.pseudonyms import UID_ROOT
from rep3d.imaging.dicom.series import DicomSeries
from rep3d.imaging.dicom.stack import Stack, stack

__all__ = [
    "CHARACTERS",
    "MANUFACTURER",
    "Maker",
    "Sources",
    "code_item",
    "contributing_equipment",
    "in_our_words",
    "read_sources",
    "save_result",
    "shown_lines",
]

MANUFACTURER = "Rep3D Label"
CHARACTERS = "ISO_IR 192"
"""UTF-8, which holds all names, whatever set the images have theirs in."""
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)
_SCANNER = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstitutionName")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\\]")


@dataclass(frozen=True)
class Maker:
    """The model that made a result.

    Attributes:
        task: name of its task.
        version: of the model, such as ``"v3"``.
        digest: SHA-256 of the model files, in hexadecimal.
        parameters: how it was used, such as ``{"views": "4"}``.
    """

    task: str
    version: str
    digest: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """What it is called as equipment."""
        return shown_lines(f"rep3d {self.task}")

    @property
    def software(self) -> list[str]:
        """Versions of the program and of the model."""
        return [f"rep3d {__version__}", shown_lines(f"model {self.version}")]

    @property
    def device_uid(self) -> str:
        """A UID of the weights: the same for the same files, and another one after each training."""
        return f"{UID_ROOT}{int(self.digest[:32], 16)}"

    @property
    def serial_number(self) -> str:
        """What tells the weights apart, for people."""
        return self.digest[:16]


@dataclass(frozen=True)
class Sources:
    """The images that a result is of.

    Attributes:
        images: their headers, along the normal of the slices.
        stack: where they lie.
    """

    images: list[Any]
    stack: Stack

    def check(self, values: np.ndarray) -> None:
        """Make sure that a label map (columns, rows, slices) has their shape."""
        rows, columns = self.stack.slices[0].shape
        expected = (columns, rows, len(self.images))
        if values.shape != expected:
            raise ImageError(f"The label map has the shape {values.shape}, and its DICOM series {expected}.")


def read_sources(series: DicomSeries) -> Sources:
    """Return what a result needs to know of the series that it is of; what a header may leave empty is empty.

    Raises:
        ImageError: if its files do not say which images they are, or are no stack of slices.
    """
    put = stack(series.slices)
    images = []
    for part in put.slices:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                data = pydicom().dcmread(part.path, stop_before_pixels=True, force=True)
                lacking = [word for word in _NEEDED if not data.get(word)]
            except Exception as error:  # pydicom raises whatever a damaged file makes it meet
                raise ImageError(f"{part} cannot be read ({error}). Export it again.") from error
        if lacking:
            raise ImageError(
                f"{part} has no {' and no '.join(lacking)}, so that nothing can refer to it: there is no DICOM result "
                f"for its series. Write NIfTI, or export it again."
            )
        for word in _MAY_BE_EMPTY:
            if word not in data:
                setattr(data, word, None)
        data.file_meta.TransferSyntaxUID = (
            data.file_meta.get("TransferSyntaxUID") or pydicom().uid.ImplicitVRLittleEndian
        )
        images.append(data)
    if len({data.SOPInstanceUID for data in images}) < len(images):
        raise ImageError(f"{series}: several of its files have one SOPInstanceUID. Export it again.")
    return Sources(images, put)


def contributing_equipment(maker: Maker, source: Any) -> list[Any]:
    """Return the items of the Contributing Equipment Sequence: the algorithm, and the scanner of the images."""
    algorithm = pydicom().Dataset()
    # The profile is a trial implementation, and this is the code that it prints.
    algorithm.PurposeOfReferenceCodeSequence = [code_item("Newcode1", "99IHE", "Processing Algorithm")]
    algorithm.Manufacturer, algorithm.ManufacturerModelName = MANUFACTURER, maker.model_name
    algorithm.DeviceSerialNumber, algorithm.SoftwareVersions = maker.serial_number, maker.software
    algorithm.DeviceUID = maker.device_uid
    scanner = pydicom().Dataset()
    scanner.PurposeOfReferenceCodeSequence = [code_item("109101", "DCM", "Acquisition Equipment")]
    scanner.Manufacturer = source.get("Manufacturer") or "unknown"
    for word in _SCANNER[1:]:
        if source.get(word):
            setattr(scanner, word, source[word].value)
    return [algorithm, scanner]


def code_item(value: str, scheme: str, meaning: str) -> Any:
    """Return a coded concept as an item of a sequence."""
    item = pydicom().Dataset()
    setattr(item, "CodeValue" if len(value) <= 16 else "LongCodeValue", value)
    item.CodingSchemeDesignator, item.CodeMeaning = scheme, shown_lines(meaning)
    return item


def shown_lines(text: str, longest: int = 64) -> str:
    """Return a text as DICOM takes one: on one line, without backslashes, no longer than it may be."""
    return _UNPRINTABLE.sub(" ", text).strip()[:longest]


@contextmanager
def in_our_words(what: str) -> Iterator[None]:
    """Turn whatever a library makes of odd headers into an error that says which result there is none of.

    Raises:
        ImageError: naming the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about values of the hospital's
            yield
    except Rep3DError:
        raise
    except Exception as error:
        if (lacking := machine_error(error)) is not None:
            raise lacking from error
        raise ImageError(f"{what} could not be written ({error}). Are the headers of its series right?") from error


def save_result(data: Any, output: Path) -> None:
    """Write a result, whole or not at all."""
    with whole_file(output) as file:
        data.save_as(file, write_like_original=False)
