"""DICOM series below the studies folder become images of it.

A folder that a scanner's export was copied to is found at the server's start, and each series in it becomes a NIfTI
file beside the other images, once: which series were taken in is remembered by their UID. Nothing that is there is
written over, and a series that cannot be used keeps nobody from working: it is listed with the reason.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from pathlib import Path
from typing import Any

from lib.registry import images_folder
from lib.workspace import read_json, utc_now, write_text
from rep3d.dicom import DicomSeries, convert_series, find_series
from rep3d.volumes import IMAGE_SUFFIXES

__all__ = ["DicomImport"]

logger = logging.getLogger(__name__)

_NOT_SERIES = frozenset({"rep3d", "labels"})  # folders of the studies folder that hold other things
_LONGEST_NAME = 80
_PART = ".part.nii.gz"


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
        self._guard = threading.Lock()

    def run(self) -> dict[str, Any]:
        """Converts every series that was not converted yet.

        Returns:
            ``imported``: what is new, by image id; ``failed``: what cannot be used, with the reason; ``known``: how
            many had been taken in before.
        """
        with self._guard:
            known = dict(read_json(self._record).get("imported", {}))
            imported: dict[str, Any] = {}
            failed: dict[str, Any] = {}
            before = len(known)
            self._record.parent.mkdir(parents=True, exist_ok=True)
            for leftover in self._record.parent.glob(f".*{_PART}"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            for series in self._series(failed):
                if series.uid in known:
                    continue
                source = str(series.folder.relative_to(self._studies))
                try:
                    image = self._convert(series)
                except Exception as error:  # whatever it is, the server must start
                    logger.warning("DICOM series in %s left out: %s", source, error)
                    failed[series.uid] = {"source": source, "error": str(error)}
                    continue
                logger.info("DICOM series in %s is image %s now", source, image)
                known[series.uid] = {"image": image, "source": source, "time": utc_now(), "series": str(series)}
                imported[image] = known[series.uid]
                self._remember(known, failed)
            if known or failed or self._record.exists():
                self._remember(known, failed)
            return {"imported": imported, "failed": failed, "known": before}

    def _series(self, failed: dict[str, Any]) -> list[DicomSeries]:
        found: list[DicomSeries] = []
        for folder in sorted(self._studies.iterdir()):
            if not folder.is_dir() or folder.name.startswith(".") or folder.name in _NOT_SERIES:
                continue
            try:
                found += find_series(folder)
            except Exception as error:  # as above
                failed[folder.name] = {"source": folder.name, "error": str(error)}
        return found

    def _convert(self, series: DicomSeries) -> str:
        """Writes the image, whole or not at all, under a name that is free."""
        images = self._studies / images_folder(self._studies)
        image = self._free_name(series, images)
        part = self._record.parent / f".{image}{_PART}"  # where no watcher takes half a file for an image
        target = images / f"{image}.nii.gz"
        try:
            convert_series(series, part)
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
        return image

    def _free_name(self, series: DicomSeries, images: Path) -> str:
        relative = series.folder.relative_to(self._studies)
        words = re.sub(r"[^\w-]+", "_", "_".join((*relative.parts, series.description))).strip("_-")
        name = words[:_LONGEST_NAME].rstrip("_-") or "series"
        taken = {file.name for file in images.iterdir()}
        number = 1
        candidate = name
        while any(f"{candidate}{suffix}" in taken for suffix in IMAGE_SUFFIXES):
            number += 1
            candidate = f"{name}_{number}"
        return candidate

    def _remember(self, known: dict[str, Any], failed: dict[str, Any]) -> None:
        write_text(self._record, json.dumps({"imported": known, "failed": failed}, indent=2))
