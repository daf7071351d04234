"""DICOM series in the studies folder become images of it.

A scanner's export that was copied there is found at the server's start, and each series in it becomes a NIfTI file
beside the other images, once: which series were taken in is remembered by their UID and what their files say, since
some share a UID. Nothing that is there is written over, and what cannot be used keeps nobody from working: it is listed
with the reason.
"""

from __future__ import annotations

import gzip
import logging
import os
import re
import shutil
import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from lib.dicom.privacy import Privacy, printable
from lib.paths import utc_now
from lib.storage.entries import images_folder
from lib.storage.passed_over import PassedOver
from rep3d.errors import DamagedFileError, ImageError, machine_error
from rep3d.files import sync_folder
from rep3d.imaging.dicom import DicomSeries, Found, LeftOut, convert_series, find_series
from rep3d.imaging.dicom.deidentify import may_show_text
from rep3d.imaging.dicom.pseudonyms import KEY_FILE
from rep3d.imaging.nifti import IMAGE_SUFFIXES
from rep3d.json_file import JsonFile, json_object

__all__ = ["DicomImport", "Taken"]

logger = logging.getLogger(__name__)

_NOT_SERIES = frozenset({"rep3d", "labels"})  # folders of the studies folder that hold other things
_LONGEST_NAME = 80
_PART = ".part.nii.gz"
_AND = "#"  # between a UID and the fingerprint of one of several series that have it


@dataclass(frozen=True)
class Taken:
    """What became of the series in one folder.

    Attributes:
        images: ids of the new images.
        known: the series that had been taken in before: ``series`` (UID) and ``image`` (its id) of each.
        failed: the series that cannot be used: ``source`` and ``error`` of each.
        left_out: the files that are part of no series, likewise.
        folder: the folder below the studies folder that keeps the DICOM files; None where nothing came in.
        warnings: images that may show a name in their pixels: ``image`` and ``reason`` of each.
    """

    images: list[str]
    known: list[dict[str, str]]
    failed: list[dict[str, str]]
    left_out: list[dict[str, str]]
    folder: str | None
    warnings: list[dict[str, str]]


class DicomImport:
    """Takes DICOM series in.

    Args:
        studies: the studies folder, in which series are looked for.
        record: what was taken in, as JSON: ``imported``, UID (and more where several share it) to ``image``,
            ``source``, ``time``, ``series``, ``fingerprint``, and ``pixels`` (why they may show a name); and
            ``failed``, UID or file to ``source``, ``error``.
        privacy: what becomes of patients.
    """

    def __init__(self, studies: Path, record: Path, privacy: Privacy) -> None:
        self._studies = studies
        self._privacy = privacy
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
            before = len(self._recorded("imported"))
            found = find_series(self._studies, skip=_NOT_SERIES, within=self._studies)
            try:
                imported, failed, _ = self._convert_new(found, bring_back=False)
                failed.update(self._left_out(found.left_out))
            except (DamagedFileError, OSError) as error:  # without the key of the codes: the server must start
                logger.error("no DICOM series were taken in: %s", _in_words(error))
                imported, failed = {}, {KEY_FILE: {"source": KEY_FILE, "error": _in_words(error)}}
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
            removed, way_back = self._privacy.receive(unpacked, folder.name)
            shutil.move(unpacked, folder)
            earlier = self._recorded("failed")
            found = find_series(folder)
            images, failed, again = self._convert_new(found, bring_back=True)
            left_out = self._left_out(found.left_out)
            if images or again:
                self._privacy.names.note(way_back)
            if images:
                self._remember(self._recorded("imported"), {**earlier, **failed, **left_out})
            else:
                shutil.rmtree(folder, ignore_errors=True)
            return Taken(
                images=list(images),
                known=[{"series": uid, "image": image} for uid, image in again.items()],
                failed=list(failed.values()),
                left_out=[*removed, *left_out.values()],
                folder=folder.name if images else None,
                warnings=[
                    {"image": image, "reason": known["pixels"]} for image, known in images.items() if "pixels" in known
                ],
            )

    def series_of(self, image: str) -> DicomSeries | None:
        """Return the series that an image was made of; None where it came otherwise, or its files are there no more."""
        taken = self._file.latest().get("imported", {})
        keys = {key for key, entry in taken.items() if entry["image"] == image}
        for place in [self._place_of(str(taken[key].get("source", ""))) for key in keys] + [self._studies] * bool(keys):
            if place is None or not place.is_dir():
                continue
            for series in find_series(place, _NOT_SERIES if place == self._studies else (), self._studies).series:
                if any(_key(one, taken) in keys for one in (self._privacy.series(series), series)):
                    return series
        return None

    def _place_of(self, source: str) -> Path | None:
        """Return the folder that a series was taken in from, of which ``source`` is the name or the code."""
        code = source.removeprefix("DICOM-")
        return self._privacy.names.find_place(self._studies, code) if code != source else self._studies / source

    def passed_over(self) -> list[PassedOver]:
        """Return the folders and files that could not be used the last time."""
        failed = self._recorded("failed").values()
        told = (_passed_over(one["source"], one["error"]) for one in failed)
        return [replace(one, remedy=self._privacy.remedy(one.file, one.remedy)) for one in told]

    def warnings(self) -> dict[str, str]:
        """Return why a name may be written into an image's pixels, by the image's id."""
        taken = self._file.latest().get("imported", {}).values()  # this is asked for every few seconds
        return {one["image"]: one["pixels"] for one in taken if "pixels" in one and self._is_there(one["image"])}

    def _convert_new(self, found: Found, bring_back: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        """Convert series that were not converted yet.

        Args:
            found: the series.
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
        told = [(self._privacy.series(series), series) for series in found.series]
        prints = {series.fingerprint for both in told for series in both}
        for series, original in told:
            # What an earlier version took in, or a server that does not de-identify, is remembered by its own UID.
            key = next((key for one in (series, original) if (key := _key(one, known)) in known), _key(series, known))
            earlier = str(known[key].get("image", "")) if key in known else None
            if earlier is not None and not (bring_back and not self._is_there(earlier)):
                again[key] = earlier
                continue
            source = self._privacy.shown(series.folder)
            try:
                self._check_unchanged(series, original, known, prints)
                image, is_new = self._convert(series, original)
            except Exception as error:  # whatever it is, the server must start, and the other series come in
                logger.warning("DICOM series in %s left out: %s", source, _in_words(error))
                failed[key] = {"source": source, "error": _in_words(error)}
                continue
            known[key] = {
                "image": image,
                "source": source,
                "time": utc_now(),
                "series": str(series),
                "fingerprint": series.fingerprint,
            }
            if pixels := may_show_text(series):
                known[key]["pixels"] = pixels
                logger.warning("image %s may show its patient's name: %s", image, pixels)
            if is_new:
                logger.info("DICOM series in %s is image %s now", source, image)
                imported[image] = known[key]
            else:
                again[key] = image
            self._remember(known, {**self._recorded("failed"), **failed})
        return imported, failed, again

    def _check_unchanged(
        self, series: DicomSeries, original: DicomSeries, known: dict[str, Any], prints: Collection[str]
    ) -> None:
        """Refuse a series that has other files than when its image was made: the image stays as it was labelled."""
        sources = self._privacy.shown(series.folder), printable(series.folder.relative_to(self._studies))
        for key, entry in known.items():
            same = key.split(_AND)[0] in (series.uid, original.uid) and entry.get("source") in sources
            if same and entry.get("fingerprint") not in prints and self._is_there(entry["image"]):
                raise ImageError(
                    f"{series}: image {entry['image']} was made of it when it had other files. The image stays as it "
                    f"is. Move the series into a folder of its own to take it in as a new image."
                )

    def _left_out(self, found: list[LeftOut]) -> dict[str, Any]:
        """Return the files that are part of no series, and why, by the first of them."""
        failed = {}
        for one in found:
            source = self._privacy.shown(one.files[0])
            failed[source] = {"source": source, "error": str(self._privacy.left_out(one))}
        return failed

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

    def _convert(self, series: DicomSeries, original: DicomSeries) -> tuple[str, bool]:
        """Write the image, whole or not at all, under a name that is free.

        Where the record was lost the image may be there already: under a name of the series, voxel for voxel; also one
        that it has where patients are no secret.

        Returns:
            The image's id, and whether it is new.
        """
        images = self._studies / images_folder(self._studies)
        taken = {file.name for file in images.iterdir()}
        earlier = []
        for name in (self._told_name(original), self._privacy.image_name(series) or self._told_name(series)):
            for image in _numbered(name):
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
            sync_folder(target.parent)
        finally:
            part.unlink(missing_ok=True)
        return image, True

    def _told_name(self, series: DicomSeries) -> str:
        """Return the name of a series' image where patients are no secret."""
        relative = series.folder.relative_to(self._studies)
        words = re.sub(r"[^\w-]+", "_", "_".join((*relative.parts, series.description))).strip("_-")
        return words[:_LONGEST_NAME].rstrip("_-") or "series"

    def _remember(self, known: dict[str, Any], failed: dict[str, Any]) -> None:
        self._file.write({"imported": known, "failed": failed})


def _numbered(name: str) -> Iterator[str]:
    """Yield a name, and others like it."""
    yield name
    for number in count(2):
        yield f"{name}_{number}"


def _parsed(content: Any) -> dict[str, dict[str, Any]]:
    json_object(content, imported=dict, failed=dict)
    for series in content["imported"].values():
        json_object(series, image=str)
    for series in content["failed"].values():
        json_object(series, source=str, error=str)
    return dict(content)


def _same_content(file: Path, other: Path) -> bool:
    """Return whether two compressed files say the same; how they are compressed does not matter."""
    with suppress(OSError, EOFError, zlib.error), gzip.open(file) as one, gzip.open(other) as two:  # none, or damaged
        while (block := one.read(1 << 20)) == two.read(1 << 20):
            if not block:
                return True
    return False


def _key(series: DicomSeries, known: dict[str, Any]) -> str:
    """Return what a series is remembered by: its UID, unless another series has it."""
    longer = f"{series.uid or 'no UID'}{_AND}{series.fingerprint}"
    if longer in known or not series.uid:
        return longer
    # What was taken in by an earlier version has no fingerprint: there the UID must do.
    first = known.get(series.uid)
    return series.uid if first is None or first.get("fingerprint", series.fingerprint) == series.fingerprint else longer


def _passed_over(source: str, error: str) -> PassedOver:
    *reason, remedy = re.split(r"(?<=[.?]) (?=[A-Z])", error)  # the last sentence says what to do
    return PassedOver(source, " ".join(reason) or remedy, remedy if reason else "Export the series again.")


def _in_words(error: Exception) -> str:
    error = machine_error(error) or error
    words = error.strerror if isinstance(error, OSError) else str(error)  # which names the file
    return words or type(error).__name__
