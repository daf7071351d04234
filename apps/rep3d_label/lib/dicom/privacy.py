"""What becomes of patients in DICOM files: taken out of what is sent, and never told of what lies in the folder.

Files that are sent become the server's, so they are de-identified before anything else reads them. Files in the studies
folder are the hospital's own: they are read and never changed; but the images made of them, the log and every message
name codes in place of patients, folders and files. ``rep3d dicom-map`` leads back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.errors import RequestError
from rep3d.errors import ImageError
from rep3d.files import copy_whole, utc_now
from rep3d.imaging.dicom import DicomSeries, LeftOut
from rep3d.imaging.dicom.deidentify import deidentify_file, deidentify_series, identifying, nameless_files
from rep3d.imaging.dicom.files import HEAD, looks_like_dicom, pydicom, read_file
from rep3d.imaging.dicom.pseudonyms import Pseudonyms
from rep3d.imaging.nameless import copy_nameless, make_nameless

__all__ = ["Privacy", "printable"]

_OURS = re.compile(r"dicom-\d{8}-\d{6}(-\d+)?(/\d+)?(/\d+\.dcm)?")  # folders and files under names that we gave
_Records = dict[tuple[str, str], dict[str, Any]]
"""What leads back, by the codes of patient and series."""
_REMEDY = "An administrator finds it by `rep3d dicom-map`."


@dataclass(frozen=True)
class Privacy:
    """How a server treats patients.

    Attributes:
        mode: ``on`` de-identifies what is sent, ``refuse`` refuses what names a patient, ``off`` does nothing.
        studies: the studies folder.
        names: makes the codes.
    """

    mode: str
    studies: Path
    names: Pseudonyms

    def receive(self, folder: Path, name: str) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
        """Take the patients out of the files that were sent, all before any is used.

        Args:
            folder: the files, under names of ours; what cannot be de-identified is removed.
            name: what the folder will be called.

        Returns:
            What was removed: ``source`` and ``error`` of each; and what leads back, to be noted where files are kept.

        Raises:
            RequestError: where patients are refused and one is named.
        """
        if self.mode == "off":
            return [], []
        if self.mode == "refuse":
            for file in _files(folder):
                try:
                    named = identifying(file) if _is_dicom(file) else []
                except ImageError as error:
                    raise RequestError(f"{file.name} {error} Nothing was changed.") from error
                if named:
                    raise RequestError(
                        f"The DICOM files name a patient (such as {', '.join(named[:5])}), and this server takes only "
                        f"de-identified ones (--conf deidentify refuse). De-identify them first. Nothing was changed."
                    )
            return [], []
        removed: list[dict[str, str]] = []
        records: _Records = {}
        for file in _files(folder):
            source = file.relative_to(folder).as_posix()
            try:
                if not _is_dicom(file):
                    what = "no DICOM file" if file.stat().st_size else "empty"
                    raise ImageError(f"is {what}, though named so. Copy it again.")
                record = deidentify_file(file, self.names)
            except ImageError as error:
                file.unlink()
                removed.append({"source": f"{name}/{source}", "error": f"{file.name} {error}"})
                continue
            _gather(records, record)
        return removed, _way_back(records, name)

    def receive_file(self, file: Path) -> None:
        """Take what a NIfTI file's header says of a patient out of a file that was sent."""
        if self.mode != "off":
            make_nameless(file)

    def copy_image(self, source: Path, target: Path) -> None:
        """Copy an image that was sent into the studies folder, likewise."""
        (copy_whole if self.mode == "off" else copy_nameless)(source, target)

    def series(self, one: DicomSeries) -> DicomSeries:
        """Return a series as it may be told of."""
        return one if self.mode == "off" else deidentify_series(one, self.names)

    def headers(self, one: DicomSeries, folder: Path) -> DicomSeries:
        """Write the headers of a series, without pixels, as they may be given away; how to get back is noted.

        Args:
            one: the series, as it lies in the studies folder.
            folder: where to write them; an empty folder.

        Returns:
            The series, of the files written.

        Raises:
            ImageError: if a file cannot be de-identified.
        """
        records: _Records = {}
        slices = []
        for number, file in enumerate(one.slices):
            target = folder / f"{number:05}.dcm"
            data = pydicom().dcmread(file.path, stop_before_pixels=True, force=True)
            data.save_as(target)
            if self.mode != "off":
                try:
                    _gather(records, deidentify_file(target, self.names))
                except ImageError as error:
                    raise ImageError(f"A file of the DICOM series {error}") from error
            written = read_file(target)
            assert written is not None, "it is a slice of a series"
            slices.append(written)
        self.names.note(_way_back(records, self.shown(one.folder)))
        return replace(self.series(one), slices=tuple(slices))

    def left_out(self, one: LeftOut) -> LeftOut:
        """Return files that are part of no series as they may be told of."""
        return one if self.mode == "off" or self._is_ours(one.files[0]) else nameless_files(one, self.names)

    def shown(self, path: Path) -> str:
        """Return what a file or folder in the studies folder is called, whatever bytes its name has."""
        relative = path.relative_to(self.studies)
        if self.mode == "off" or self._is_ours(path) or path == self.studies:
            return printable(relative)
        return f"DICOM-{self.names.place(relative.as_posix())}"

    def remedy(self, source: str, remedy: str) -> str:
        """Return what to do about something, and how to find it where its name is a code."""
        return f"{remedy} {_REMEDY}" if source.startswith("DICOM-") else remedy

    def image_name(self, one: DicomSeries) -> str | None:
        """Return the name of a series' image, of a series as :meth:`series` returns it; None for one of its folder."""
        if self.mode == "off":
            return None
        return self.names.image_name(one.modality, one.slices[0].text("PatientID")[:12], one.uid)

    def _is_ours(self, path: Path) -> bool:
        return bool(_OURS.fullmatch(path.relative_to(self.studies).as_posix()))


def printable(path: Path) -> str:
    """Return a path as it can be written anywhere, whatever bytes it has."""
    return str(path).encode(errors="backslashreplace").decode()


def _gather(records: _Records, record: dict[str, Any] | None) -> None:
    """Add what leads back from one file to what does from its series."""
    if record:
        known = records.setdefault((record["patient"], record["series"]), {**record, "uids": {}})
        known["uids"].update(record["uids"])


def _way_back(records: _Records, folder: str) -> list[dict[str, Any]]:
    return [{"time": utc_now(), "folder": folder, **record} for record in records.values()]


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            yield Path(place, name)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as content:
        return looks_like_dicom(content.read(HEAD))
