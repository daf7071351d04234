"""DICOM series below the studies folder become images of it.

A folder that a scanner's export was copied to is found at the server's start, and each series in it becomes a NIfTI
file beside the other images, once: which series were taken in is remembered by their UID. Nothing that is there is
written over, and a series that cannot be used keeps nobody from working: it is listed with the reason.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from lib.paths import utc_now
from lib.storage.passed_over import PassedOver
from lib.storage.registry import images_folder
from rep3d.imaging.dicom import DicomSeries, convert_series, find_series
from rep3d.imaging.nifti import IMAGE_SUFFIXES
from rep3d.json_file import JsonFile, json_object

__all__ = ["DicomImport", "Taken"]

logger = logging.getLogger(__name__)

_NOT_SERIES = frozenset({"rep3d", "labels"})  # folders of the studies folder that hold other things
_LONGEST_NAME = 80
_PART = ".part.nii.gz"


@dataclass(frozen=True)
class Taken:
    """What became of the series in one folder.

    Attributes:
        images: ids of the new images.
        known: the series that had been taken in before: ``series`` (UID) and ``image`` (its id) of each.
        failed: the series that cannot be used: ``source`` and ``error`` of each.
        folder: the folder below the studies folder that keeps the DICOM files; None where nothing came in.
    """

    images: list[str]
    known: list[dict[str, str]]
    failed: list[dict[str, str]]
    folder: str | None


class DicomImport:
    """Takes DICOM series in.

    Args:
        studies: the studies folder, in whose subfolders series are looked for.
        record: what was taken in, as JSON: ``imported``, UID to ``image``, ``source``, ``time``; and ``failed``, UID to
            ``source``, ``error``.
    """

    def __init__(self, studies: Path, record: Path) -> None:
        self._studies = studies
        self._record = record
        lost = "which DICOM series were taken in: those whose image is there are found again, the others come in anew"
        self._file: JsonFile[dict[str, Any]] = JsonFile(record, _parsed, lost, dict, begins_anew=True)
        self._guard = threading.Lock()

    def run(self) -> dict[str, Any]:
        """Convert every series that was not converted yet.

        Returns:
            ``imported``: what is new, by image id; ``failed``: what cannot be used, with the reason; ``known``: how
            many had been taken in before.
        """
        with self._guard:
            folders = [folder for folder in sorted(self._studies.iterdir()) if _may_hold_series(folder)]
            before = len(self._recorded("imported"))
            imported, failed, _ = self._convert_new(folders, bring_back=False)
            if before or imported or failed or self._record.exists():
                self._remember(self._recorded("imported"), failed)
            return {"imported": imported, "failed": failed, "known": before}

    def take_in(self, unpacked: Path, name: str) -> Taken:
        """Move a folder of DICOM files into the studies folder, under a name that is free, and convert its series.

        A series that was taken in before comes in again only if its image was removed. Where no series comes in, the
        folder is removed again.

        Args:
            unpacked: the folder.
            name: the name that it is to have.
        """
        with self._guard:
            folder = self._free_folder(name)
            shutil.move(unpacked, folder)
            earlier = self._recorded("failed")
            images, failed, again = self._convert_new([folder], bring_back=True)
            if images:
                self._remember(self._recorded("imported"), {**earlier, **failed})
            else:
                shutil.rmtree(folder, ignore_errors=True)
            return Taken(
                images=list(images),
                known=[{"series": uid, "image": image} for uid, image in again.items()],
                failed=list(failed.values()),
                folder=folder.name if images else None,
            )

    def passed_over(self) -> list[PassedOver]:
        """Return the folders whose series could not be used the last time."""
        remedy = "Export the series again, or convert it to NIfTI."
        failed = self._recorded("failed").values()
        return [PassedOver(str(one.get("source")), str(one.get("error")), remedy) for one in failed]

    def _convert_new(
        self, folders: Iterable[Path], bring_back: bool
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        """Convert the series in some folders that were not converted yet.

        Args:
            folders: where to look.
            bring_back: whether to convert also those whose image is there no more.

        Returns:
            What is new by image id, what cannot be used by UID, and the image of each series that was known, by UID.
        """
        known = self._recorded("imported")
        imported: dict[str, Any] = {}
        failed: dict[str, Any] = {}
        again: dict[str, str] = {}
        self._record.parent.mkdir(parents=True, exist_ok=True)
        for leftover in self._record.parent.glob(f".*{_PART}"):  # of a process that was killed
            leftover.unlink(missing_ok=True)
        for series in self._series(folders, failed):
            earlier = str(known[series.uid].get("image", "")) if series.uid in known else None
            if earlier is not None and not (bring_back and not self._is_there(earlier)):
                again[series.uid] = earlier
                continue
            source = str(series.folder.relative_to(self._studies))
            try:
                image, is_new = self._convert(series)
            except Exception as error:  # whatever it is, the server must start
                logger.warning("DICOM series in %s left out: %s", source, error)
                failed[series.uid] = {"source": source, "error": str(error)}
                continue
            known[series.uid] = {"image": image, "source": source, "time": utc_now(), "series": str(series)}
            if is_new:
                logger.info("DICOM series in %s is image %s now", source, image)
                imported[image] = known[series.uid]
            else:
                again[series.uid] = image
            self._remember(known, {**self._recorded("failed"), **failed})
        return imported, failed, again

    def _series(self, folders: Iterable[Path], failed: dict[str, Any]) -> list[DicomSeries]:
        found: list[DicomSeries] = []
        for folder in folders:
            try:
                found += find_series(folder)
            except Exception as error:  # as above
                failed[folder.name] = {"source": folder.name, "error": str(error)}
        return found

    def _is_there(self, image: str) -> bool:
        images = self._studies / images_folder(self._studies)
        return any((images / f"{image}{suffix}").exists() for suffix in IMAGE_SUFFIXES)

    def _recorded(self, what: str) -> dict[str, Any]:
        return dict(self._file.read().get(what, {}))

    def _free_folder(self, name: str) -> Path:
        number = 1
        folder = self._studies / name
        while os.path.lexists(folder):
            number += 1
            folder = self._studies / f"{name}-{number}"
        return folder

    def _convert(self, series: DicomSeries) -> tuple[str, bool]:
        """Write the image, whole or not at all, under a name that is free.

        Where the record was lost the image may be there already: under a name of the series, voxel for voxel.

        Returns:
            The image's id, and whether it is new.
        """
        images = self._studies / images_folder(self._studies)
        taken = {file.name for file in images.iterdir()}
        earlier = []
        for image in self._names(series):
            if not any(f"{image}{suffix}" in taken for suffix in IMAGE_SUFFIXES):
                break
            earlier.append(image)
        part = self._record.parent / f".{image}{_PART}"  # where no watcher takes half a file for an image
        target = images / f"{image}.nii.gz"
        try:
            convert_series(series, part)
            for other in earlier:
                if _same_content(images / f"{other}.nii.gz", part):
                    return other, False
            try:
                os.link(part, target)  # fails where there is a file, which a renaming would replace
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                if target.exists():
                    raise
                os.rename(part, target)
        finally:
            part.unlink(missing_ok=True)
        return image, True

    def _names(self, series: DicomSeries) -> Iterator[str]:
        """Yield names for the image of a series, the best one first."""
        relative = series.folder.relative_to(self._studies)
        words = re.sub(r"[^\w-]+", "_", "_".join((*relative.parts, series.description))).strip("_-")
        name = words[:_LONGEST_NAME].rstrip("_-") or "series"
        yield name
        for number in count(2):
            yield f"{name}_{number}"

    def _remember(self, known: dict[str, Any], failed: dict[str, Any]) -> None:
        self._file.write({"imported": known, "failed": failed})


def _parsed(content: Any) -> dict[str, dict[str, Any]]:
    for series in json_object(content, imported=dict, failed=dict)["imported"].values():
        json_object(series, image=str)
    return dict(content)


def _same_content(file: Path, other: Path) -> bool:
    """Return whether two compressed files say the same; how they are compressed does not matter."""
    with suppress(OSError, EOFError, zlib.error), gzip.open(file) as one, gzip.open(other) as two:  # none, or damaged
        while (block := one.read(1 << 20)) == two.read(1 << 20):
            if not block:
                return True
    return False


def _may_hold_series(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".") and folder.name not in _NOT_SERIES
