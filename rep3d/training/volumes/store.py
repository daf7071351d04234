"""Prepared cases that outlive a training, so that the next one begins at once and memory holds none of them.

A file is named by all that it depends on: what image and label file contain, what the task says about preparing, and
the release of that code. So a kept one is never stale; it is removed when its image or label has changed or is gone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rep3d.data.cases import Case
from rep3d.errors import DiskFullError, OutputError, said
from rep3d.files import PART_SUFFIX, file_state, make_folder
from rep3d.json_file import JsonFile, json_object
from rep3d.json_text import parse_json
from rep3d.memory import require_memory
from rep3d.tasks.config import TaskConfig
from rep3d.training.volumes.file import open_volume, read_head, write_volume
from rep3d.training.volumes.hashes import FileHashes
from rep3d.training.volumes.prepared import Prepared, make_ready

__all__ = ["PREPARING", "VolumeStore", "check_store_folder", "volume_store"]

logger = logging.getLogger(__name__)

PREPARING = 3
"""The release of the code that prepares: to be raised with each change of what comes out of it."""

_MOST = 20 * 10**9  # bytes that stay between trainings
_SHARE = 10  # of the free disk, at most one part in so many
_LEFT_FREE = 10**9  # bytes of the disk that are never taken
_SUFFIX = ".volume"
_INDEX, _LOCK = "index.json", "in_use.lock"


def check_store_folder(folder: Path) -> None:
    """Refuse a folder that holds other things, which would be taken for damaged volumes and removed.

    Raises:
        OutputError: if it does; one that is not there, or empty, holds none.
    """
    if not folder.is_dir() or not any(folder.iterdir()) or (folder / _LOCK).exists():
        return
    try:
        _parsed(parse_json((folder / _INDEX).read_bytes()))
    except (OSError, ValueError):
        raise OutputError(
            f"--prepared: {folder} holds other files than prepared cases. Give a folder for these alone: a new one."
        ) from None


class VolumeStore:
    """The prepared cases of a training.

    Args:
        folder: where they are kept; nothing else should be in it. None to hold all in memory.
        task: what they are prepared for.
        other_values: voxel values of labels that are not the task's.
        most: bytes to keep between trainings; None for 20 GB, or a tenth of the free disk where that is less.
    """

    def __init__(
        self, folder: Path | None, task: TaskConfig, other_values: Collection[int] = (), most: int | None = None
    ) -> None:
        self._folder = folder
        self._task = task
        self._other_values = sorted(other_values)
        self._most = most
        self._used: set[Path] = set()
        self._full = False
        if folder is None:
            return
        lost = "which prepared volumes are known to be whole: they are looked through again"
        self._index = JsonFile(folder / _INDEX, _parsed, lost, lambda: {"files": {}, "volumes": {}}, begins_anew=True)
        try:
            known = self._index.read()
        except OSError:  # no folder, or no right to look into it
            known = {"files": {}, "volumes": {}}
        self._hashes = FileHashes(folder, known["files"])
        self._whole: dict[str, Any] = dict(known["volumes"])

    def get(self, case: Case) -> Prepared:
        """Return a case on the task's grid: the kept one, else made now and kept.

        Raises:
            LabelError, ImageError: if the case cannot be used.
            OutOfMemoryError: if it does not fit into memory.
        """
        if self._folder is None:
            return make_ready(case, self._task, self._other_values)
        names = [self._hashes.name(file) for file in case.files]
        try:
            hashes = [self._hashes.of(name) for name in names]
        except OSError:
            hashes = [None]
        if None in hashes:  # said in better words where it is read
            return make_ready(case, self._task, self._other_values)
        path = self._folder / f"{self._key(hashes, case)}{_SUFFIX}"
        ready = self._kept(path)
        if ready is None:
            ready = make_ready(case, self._task, self._other_values)
            # A file that has changed meanwhile may be another one than that of the hash.
            if all(self._hashes.same(name, known) for name, known in zip(names, hashes, strict=True)):
                files = dict(zip(names, hashes, strict=True))
                ready = self._keep(path, ready, {"case": case.id, "preparing": PREPARING, "files": files})
        return ready

    def _key(self, hashes: list[str | None], case: Case) -> str:
        task, annotated = self._task, case.known(self._task.labels)
        parts = [
            *(task.label_values, task.spacing, task.orientation, self._other_values, task.ignore),
            [asdict(intensity) for intensity in task.intensities],
            [value for value in task.label_values if value in annotated.values()],
        ]
        return hashlib.sha256(json.dumps([PREPARING, hashes, parts]).encode()).hexdigest()

    def _kept(self, path: Path) -> Prepared | None:
        state = file_state(path)
        if state is None:
            return None
        known = self._whole.get(path.name) == list(state)
        ready = open_volume(path, all_of_it=not known)
        if ready is None:
            self._remove_damaged(path)
            return None
        self._use(path, state)
        return ready

    def _use(self, path: Path, state: tuple[int, int, int]) -> None:
        self._whole[path.name] = list(state)
        self._used.add(path)
        with suppress(OSError):  # the time of the last use decides which goes first
            os.utime(path, ns=(time.time_ns(), state[0]))

    def _keep(self, path: Path, ready: Prepared, facts: dict[str, Any]) -> Prepared:
        """Return a case from the file that it was written to; where the disk has no room, as it is."""
        size = ready.nbytes
        if not self._full:
            try:
                return self._written(path, ready, facts, size)
            except (OSError, DiskFullError) as error:
                self._full = True
                logger.warning("prepared volumes are held in memory from case %s on: %s", facts["case"], said(error))
        require_memory(size, f"to hold case {facts['case']}, for which the disk has no room", "Make room on the disk.")
        return ready

    def _written(self, path: Path, ready: Prepared, facts: dict[str, Any], size: int) -> Prepared:
        make_folder(path.parent)
        self._trim(size)
        if shutil.disk_usage(path.parent).free < size + _LEFT_FREE:
            raise DiskFullError(f"There are not {(size + _LEFT_FREE) / 1e9:.1f} GB free on the disk.")
        write_volume(path, ready, facts)
        state, kept = file_state(path), open_volume(path, all_of_it=False)
        if state is None or kept is None:
            raise OSError(f"{path.name} cannot be read back")
        self._use(path, state)
        return kept

    def _trim(self, more: int = 0, all_of_them: bool = False) -> None:
        """Remove what was used longest ago, until the rest is within bounds; what this run uses, only at its end."""
        assert self._folder is not None
        files = {path: path.stat() for path in self._folder.glob(f"*{_SUFFIX}")}
        total = sum(state.st_size for state in files.values())
        most = self._most
        if most is None:
            most = min(_MOST, (shutil.disk_usage(self._folder).free + total) // _SHARE)
        for path in sorted(files, key=lambda path: files[path].st_atime_ns):
            if total + more <= most:
                return
            if all_of_them or path not in self._used:
                self._remove(path)
                total -= files[path].st_size

    def _remove(self, path: Path) -> None:
        self._whole.pop(path.name, None)
        with suppress(OSError):  # Windows removes no file that is in use
            path.unlink(missing_ok=True)

    def _remove_damaged(self, path: Path) -> None:
        logger.warning("prepared volumes %s were changed or cut short on disk; they are made anew", path.name)
        self._remove(path)

    def look_after(self) -> None:
        """Remove what is damaged, of another release, or of an image or a label that is gone or was changed."""
        assert self._folder is not None
        for path in self._folder.glob(f"*{_SUFFIX}"):
            head = read_head(path)
            if head is None:
                self._remove_damaged(path)
            elif head["preparing"] != PREPARING or not all(
                self._hashes.same(name, known) for name, known in head["files"].items()
            ):
                self._remove(path)

    def end(self) -> None:
        """Take down what is known to be whole, and bring the folder within its bounds."""
        assert self._folder is not None
        if not self._folder.is_dir():
            return
        self._trim(all_of_them=True)
        there = {path.name for path in self._folder.glob(f"*{_SUFFIX}")}
        volumes = {name: state for name, state in self._whole.items() if name in there}
        files = {name: known for name, known in self._hashes.known.items() if (self._folder / name).exists()}
        self._index.write({"files": files, "volumes": volumes})


@contextmanager
def volume_store(
    folder: Path | None, task: TaskConfig, other_values: Collection[int], leads: bool, most: int | None = None
) -> Iterator[VolumeStore]:
    """Yield the store of a training.

    Args:
        folder: see :class:`VolumeStore`; also the other arguments.
        task: the task.
        other_values: voxel values of labels that are not the task's.
        leads: whether this process clears up, among those that train together.
        most: see :class:`VolumeStore`.
    """
    store = VolumeStore(folder, task, other_values, most)
    if folder is None or not leads:
        yield store
        return
    with _alone(folder) as alone:
        if alone:
            for part in folder.glob(f".*{PART_SUFFIX}"):  # of a process that was killed
                part.unlink(missing_ok=True)
        store.look_after()
        try:
            yield store
        finally:
            try:
                store.end()
            except OSError as error:
                logger.warning("%s: %s", folder, said(error))


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Tell whether no other training uses the folder, which would be writing what looks like left behind."""
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (Timeout, OSError, NotImplementedError):  # in use; no right to write; no locks on a network drive
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _parsed(content: Any) -> dict[str, Any]:
    found = json_object(content, files=dict, volumes=dict)
    if not all(isinstance(entry, list) and len(entry) == 4 for entry in found["files"].values()):
        raise ValueError("files: expected a state and a hash of each")
    return found
