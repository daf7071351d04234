"""The versions of a model: kept, published, rolled back, deleted; safe against a crash between any two steps.

Each version has a folder with its weights and its record, which appears complete or not at all. The published version
is a file of its own, a hard link to a version's weights that is replaced at once; which one it is, is read from that
file and from nowhere else, so that no list can contradict what answers requests. Several processes (the server, its
training, the command line) may work on the folder at a time: what changes it holds a lock that dies with its process.

    published.pt            the weights that answer requests
    publications.json       who published what, when and why
    versions/v3/model.pt    weights, read-only
    versions/v3/version.json
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rep3d.checkpoint import TUNED, Checkpoint, load_checkpoint, read_checkpoint_task, save_checkpoint
from rep3d.errors import CheckpointError, UnknownVersionError, VersionError
from rep3d.files import copy_whole, file_state, link_whole, make_folder, sync_folder, utc_now
from rep3d.json_file import JsonFile, json_object
from rep3d.versions.record import VersionRecord, origin_of, version_number

__all__ = ["VersionStore"]

logger = logging.getLogger(__name__)

_LOCK_SECONDS = 60.0
_NEW_SUFFIX = ".new"
_WHY = {"adopted": "found as the published model and adopted", "starter": "the starter model: none was trained yet"}


class VersionStore:
    """The versions of one model.

    Args:
        root: the model's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._folder = self.root / "versions"
        self._published = self.root / "published.pt"
        lost = "who published which version, when and why, and so what a roll-back goes back to"
        log = self.root / "publications.json"
        self._log: JsonFile[list[dict[str, Any]]] = JsonFile(log, _entries, lost, list, begins_anew=True)
        self._known: tuple[tuple[int, ...], dict[str, Any]] | None = None

    # What is there ------------------------------------------------------------------------------------------

    def list(self) -> Sequence[VersionRecord]:
        """Return all versions whose weights are kept, oldest first; damaged records are left out, and logged."""
        return [record for record in self.records() if record.deleted is None]

    def records(self) -> Sequence[VersionRecord]:
        """As :meth:`list`, with those whose weights were deleted."""
        found = []
        for name in self._names():
            try:
                found.append(VersionRecord.read(self._record_file(name)))
            except VersionError as error:
                logger.warning("%s", error)
        return found

    def get(self, name: str) -> VersionRecord:
        """Return the record of a version, also of a deleted one.

        Raises:
            UnknownVersionError: if there is none of that name.
            VersionError: if its record is damaged.
        """
        if version_number(name) is None or not self._record_file(name).is_file():
            known = ", ".join(record.version for record in self.list()) or "none"
            raise UnknownVersionError(f"There is no version {name[:100]!r}. There are: {known}.")
        return VersionRecord.read(self._record_file(name))

    def published(self) -> str | None:
        """Name of the published version; None where none is.

        Raises:
            CheckpointError: if the published file is damaged.
        """
        facts = self._published_facts()
        return None if facts is None else str(facts["version"])

    def checkpoint(self, name: str) -> Path:
        """Return the weights of a version, to be read only.

        Raises:
            UnknownVersionError: if there is none of that name, or its weights were deleted.
        """
        if (deleted := self.get(name).deleted) is not None:
            raise UnknownVersionError(
                f"The weights of version {name} were deleted on {deleted['time']} by {deleted['by']}; "
                f"its record remains."
            )
        return self._folder / name / "model.pt"

    def size(self, name: str) -> int:
        """Return bytes that a version's weights take; where links are known, the published file takes none besides."""
        file = self._folder / name / "model.pt"
        return file.stat().st_size if file.exists() else 0

    def publications(self) -> Sequence[dict[str, Any]]:
        """Return what was published, oldest first: ``version``, ``by``, ``time``, ``reason``, ``rollback``."""
        entries = self._log.read()
        # An entry is written before the file is replaced: after a crash between the two it says what never came about.
        facts = self._published_facts()
        before = entries[-2]["version"] if len(entries) > 1 else None
        if entries and (facts is None or self._is_version(facts["version"], facts)):
            now = None if facts is None else facts["version"]
            if now == before != entries[-1]["version"]:
                entries.pop()
        return entries

    # What changes it ----------------------------------------------------------------------------------------

    def add(self, checkpoint: Checkpoint, record: VersionRecord) -> VersionRecord:
        """Keep a trained model as the next version; nothing is published.

        Args:
            checkpoint: the model; the facts in its file will name the version that it becomes.
            record: what is known about it; name, time and what the checkpoint itself says are filled in.
        """
        with self._locked():
            return self._add(checkpoint, record, f"v{self._next_number()}")

    def amend(self, name: str, **facts: dict[str, Any]) -> VersionRecord:
        """Change what was decided about a version (``decision``), or is known about its ``speed``; raise as get."""
        with self._locked():
            return self._amend(name, facts)

    def keep_tuned(self, name: str, tuned: dict[str, Any]) -> VersionRecord:
        """Keep a faster way of computing a version, in the file of its weights; raise as :meth:`checkpoint`."""
        with self._locked():
            file = self.checkpoint(name)
            known = load_checkpoint(file)
            save_checkpoint(file, known.model, known.task, {**known.info, TUNED: tuned}, known.fine)
            _protect(file)
            if self._published_version() == name:
                link_whole(file, self._published)
            return self._amend(name, {TUNED: tuned})

    def publish(self, name: str, by: str, reason: str, instead_of: str | None = None) -> VersionRecord:
        """Make a version the one that answers requests; where it is that already, nothing happens.

        Args:
            name: the version.
            by: who wants it.
            reason: why.
            instead_of: publish only if this version is the published one now.

        Raises:
            UnknownVersionError: if there is none of that name.
            VersionError: if another version than ``instead_of`` is published.
            CheckpointError: if its weights are damaged.
        """
        with self._locked():
            now = self._published_version()
            if now == name:
                return self.get(name)
            if instead_of is not None and now != instead_of:
                raise VersionError(
                    f"Version {name} was not published: it was to replace {instead_of}, but {now} is published by now."
                )
            self._publish(name, by, reason, rollback=False)
            return self.get(name)

    def rollback(self, by: str, reason: str = "") -> VersionRecord:
        """Publish the version that was published before the present one; again, the one before that.

        Raises:
            VersionError: if there is none whose weights are kept.
        """
        with self._locked():
            now = self._published_version()
            earlier: list[str] = []
            for entry in self._effective_log():
                if entry.get("rollback"):
                    while earlier and earlier[-1] != entry["version"]:
                        earlier.pop()
                if not earlier or earlier[-1] != entry["version"]:
                    earlier.append(entry["version"])
            kept = {record.version for record in self.list()} - {now}
            target = next((name for name in reversed(earlier) if name in kept), None)
            if target is None:
                raise VersionError(
                    f"Cannot roll back: no version that was published before {now} is kept. Publish one by its name."
                )
            self._publish(target, by, reason or f"rolled back from {now}", rollback=True)
            return self.get(target)

    def delete(self, name: str, by: str = "unknown") -> VersionRecord:
        """Delete the weights of a version; its record stays and its name is never given again.

        Raises:
            UnknownVersionError: if there is none of that name.
            VersionError: if it is the published one.
        """
        with self._locked():
            file = self.checkpoint(name)
            if name == self._published_version():
                raise VersionError(f"Version {name} is published, so it cannot be deleted. Publish another one first.")
            record = self._amend(name, {"deleted": {"time": utc_now(), "by": by}})
            file.unlink()
            return record

    def is_new(self) -> bool:
        """Return whether no version was ever made and nothing is published."""
        return not self._names() and file_state(self._published) is None

    def begin_with(self, file: Path) -> VersionRecord | None:
        """Take in a copy of a starter model (:mod:`rep3d.starter`) as the first version, and publish it.

        Returns:
            The record of the new version; None, and nothing happened, where there is a version already.

        Raises:
            CheckpointError: if the file cannot be used.
        """
        with self._locked():
            if not self.is_new():
                return None
            load_checkpoint(file)
            copy_whole(file, self._published)  # a crash after this leaves what the next start adopts
            return self._adopt()

    def adopt(self) -> VersionRecord | None:
        """Take in a published checkpoint that is no version yet, and clear what a killed process left behind.

        Damaged records are made anew from what the weights themselves say; what was measured of them is lost.

        Such a checkpoint was put there by hand, or by a release without versions. It keeps its name if that is free;
        else it gets the next one, and its file says so.

        Returns:
            The record of the new version; None where there was nothing to take in.

        Raises:
            CheckpointError: if the published file is damaged.
        """
        with self._locked():
            self._mend_records()
            self._clear_leftovers()
            return self._adopt()

    # How ----------------------------------------------------------------------------------------------------

    def _adopt(self) -> VersionRecord | None:
        facts = self._published_facts()
        if facts is None:
            return None
        name = facts["version"]
        if self._is_version(name, facts):
            return None
        checkpoint = load_checkpoint(self._published)
        free = version_number(name) is not None and not (self._folder / name).exists()
        record = VersionRecord(origin=origin_of(facts), adopted_as=None if free else name)
        same = self._published if free and facts.get("created") else None
        added = self._add(checkpoint, record, name if free else f"v{self._next_number()}", same)
        self._publish(added.version, "server", _WHY[record.origin], rollback=False)
        logger.info("adopted %s as version %s", self._published, added.version)
        return added

    def _amend(self, name: str, facts: Mapping[str, Any]) -> VersionRecord:
        record = dataclasses.replace(self.get(name), **facts)
        record.write(self._record_file(name))
        return record

    def _names(self) -> Sequence[str]:
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted((name for name in names if version_number(name)), key=lambda name: version_number(name) or 0)

    def _record_file(self, name: str) -> Path:
        return self._folder / name / "version.json"

    def _next_number(self) -> int:
        known = [version_number(name) or 0 for name in self._names()]
        with suppress(CheckpointError):
            known.append(version_number(self.published() or "") or 0)
        return max(known, default=0) + 1

    def _published_facts(self) -> dict[str, Any] | None:
        stamp = file_state(self._published)
        if stamp is None:
            return None
        if self._known is None or self._known[0] != stamp:
            facts = read_checkpoint_task(self._published)[1]
            self._known = stamp, {**facts, "version": str(facts.get("version", "unversioned"))}
        return self._known[1]

    def _published_version(self) -> str | None:
        """Return the published version, after taking in what was put there by hand; None where that is damaged."""
        try:
            self._adopt()
            return self.published()
        except CheckpointError:
            return None

    def _is_version(self, name: str, facts: dict[str, Any]) -> bool:
        if version_number(name) is None or not self._record_file(name).is_file():
            return False
        record = VersionRecord.read(self._record_file(name))
        return record.deleted is None and record.created == facts.get("created")

    def _add(self, checkpoint: Checkpoint, record: VersionRecord, name: str, same: Path | None = None) -> VersionRecord:
        """Make a version's folder; ``same`` is a file that holds just this checkpoint already."""
        info = {**checkpoint.info, "version": name, "generation": version_number(name)}
        info.setdefault("created", utc_now())
        record = record.completed(name, checkpoint.task.labels, info)
        new = self._folder / f".{name}.{uuid.uuid4().hex}{_NEW_SUFFIX}"
        try:
            make_folder(new)
            if same is None:
                save_checkpoint(new / "model.pt", checkpoint.model, checkpoint.task, info, checkpoint.fine)
            else:
                link_whole(same, new / "model.pt")
            _protect(new / "model.pt")
            record.write(new / "version.json")
            os.rename(new, self._folder / name)
            sync_folder(self._folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        return record

    def _mend_records(self) -> None:
        for name in self._names():
            weights = self._folder / name / "model.pt"
            if VersionRecord.file(self._record_file(name)).set_aside() is None or not weights.is_file():
                continue
            try:
                task, info = read_checkpoint_task(weights)
            except CheckpointError as error:
                logger.error("version %s: neither its record nor its weights can be read: %s", name, error)
                continue
            if info.get("version") == name:
                record = VersionRecord(origin=origin_of(info))  # nobody can tell any more whether it was trained here
                record.completed(name, task.labels, info).write(self._record_file(name))

    def _publish(self, name: str, by: str, reason: str, rollback: bool) -> None:
        file = self.checkpoint(name)
        _, facts = read_checkpoint_task(file)
        if not self._is_version(name, facts) or facts.get("version") != name:
            raise CheckpointError(
                f"{file} was replaced: it holds the weights of {facts.get('version')!r}, not of {name}. "
                f"To go on, put a copy back, or publish another version."
            )
        entries = self._effective_log()
        entry = {"version": name, "by": by, "time": utc_now(), "reason": reason, "rollback": rollback}
        self._log.write({"publications": [*entries, entry]})
        link_whole(file, self._published)

    def _effective_log(self) -> Sequence[dict[str, Any]]:
        """As :meth:`publications`; in full where the published file is damaged and nobody can tell."""
        try:
            return self.publications()
        except CheckpointError:
            return self._log.read()

    def _clear_leftovers(self) -> None:
        """Remove what was begun and never completed: new versions, and weights whose deletion is on record."""
        if self._folder.is_dir():
            for leftover in self._folder.glob(f".*{_NEW_SUFFIX}"):
                shutil.rmtree(leftover, ignore_errors=True)
        for record in self.records():
            if record.deleted is not None:
                (self._folder / record.version / "model.pt").unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".versions.lock", timeout=_LOCK_SECONDS)
        try:
            with lock:
                yield
        except Timeout as error:
            raise VersionError(
                f"Another process has been changing the versions in {self.root} for {_LOCK_SECONDS:g} s. Try again."
            ) from error


def _protect(weights: Path) -> None:
    """Make them read-only: the published file is the same one, over which somebody may copy a checkpoint."""
    if os.name != "nt":  # there, a read-only file could not be replaced or deleted
        weights.chmod(0o444)


def _entries(content: Any) -> list[dict[str, Any]]:
    return [json_object(entry, version=str) for entry in json_object(content, publications=list)["publications"]]
