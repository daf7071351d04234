"""Keeps the list of what lies in the studies folder and is not used, and says in the log what is new on it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from watchdog.events import EVENT_TYPE_CLOSED_NO_WRITE, EVENT_TYPE_OPENED, FileSystemEvent, FileSystemEventHandler

from lib.storage.datastore import Rep3DDatastore
from lib.storage.passed_over import PassedOver, grouped
from lib.storage.registry import DATASTORE_FILE

__all__ = ["FolderWatch"]

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0  # after a change: others follow, as where many files are copied
_LOGGED_FILES = 20
_NOT_LOOKED_AT = frozenset({"rep3d", ".lock", DATASTORE_FILE})  # what the server itself writes all the time
_DICOM_RECORD = ("rep3d", "dicom.json")  # where a source of the list keeps what it left out


class FolderWatch(FileSystemEventHandler):
    """Looks through the studies folder at the start, and after each change that the registry notices.

    Args:
        datastore: the studies folder.
        folder: where it is.
        sources: others who leave files out, each asked for its list.
    """

    def __init__(
        self, datastore: Rep3DDatastore, folder: Path, sources: Sequence[Callable[[], Iterable[PassedOver]]]
    ) -> None:
        self._datastore = datastore
        self._folder = folder
        self._sources = sources
        self._changed = threading.Event()
        self._left_out: frozenset[PassedOver] = frozenset()
        self._told: frozenset[PassedOver] = frozenset()
        self._unusable: dict[str, str] = {}

    def start(self) -> None:
        """Look once, and from now on after each change, until the server ends."""
        self._datastore.tell_changes(self)
        self.look()
        threading.Thread(target=self._run, name="folder-watch", daemon=True).start()

    def summary(self) -> dict[str, Any]:
        """Return what is not used, as :func:`lib.storage.passed_over.grouped` shows it."""
        return grouped(self.passed_over())

    def passed_over(self) -> list[PassedOver]:
        """Return what was found last, by path; labels that are of no use are told as soon as that is known."""
        return sorted({*self._left_out, *self._datastore.unusable.labels()}, key=lambda one: (one.file, one.reason))

    def look(self) -> None:
        """Look through the folder now, and log what is new on the list, and which images are found to be unusable."""
        found = set(self._datastore.passed_over())
        for source in self._sources:
            found.update(source())
        self._left_out = frozenset(found)
        before, self._told = self._told, self._left_out.union(self._datastore.unusable.labels())
        new = sorted(self._told - before, key=lambda one: one.file)
        if new:
            logger.warning("studies folder: %d files are not used%s", len(new), _in_words(new))
        if before and not self._told:
            logger.info("studies folder: nothing is left out any more")
        known, self._unusable = self._unusable, self._datastore.unusable.reasons()
        named = [f"\n  {id_}: {reason}" for id_, reason in self._unusable.items() if known.get(id_) != reason]
        if named:
            more = f"\n  and {len(named) - _LOGGED_FILES} more" if len(named) > _LOGGED_FILES else ""
            shown = "".join(named[:_LOGGED_FILES])
            logger.warning("studies folder: %d images are unusable%s%s", len(named), shown, more)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Take note of a change; the server's own files are none."""
        if event.event_type in (EVENT_TYPE_OPENED, EVENT_TYPE_CLOSED_NO_WRITE):
            return
        for path in (event.src_path, event.dest_path):
            parts = Path(str(path)).parts[len(self._folder.parts) :] if path else ()
            if parts and (parts[0] not in _NOT_LOOKED_AT or parts == _DICOM_RECORD):
                self._changed.set()

    def _run(self) -> None:
        while True:
            begun = time.monotonic()
            try:
                self._datastore.unusable.look_at_all()
                self.look()
            except Exception:  # a folder that goes away meanwhile; the next change is looked at again
                logger.exception("studies folder: looking through it failed")
            pause = max(_PAUSE_SECONDS, 10 * (time.monotonic() - begun))  # large folders are not looked at all the time
            self._changed.wait()
            time.sleep(pause)
            self._changed.clear()


def _in_words(found: Iterable[PassedOver]) -> str:
    """Return a line for each reason, with the names of some files."""
    lines = []
    for group in grouped(found)["groups"]:
        files, count = group["files"][:_LOGGED_FILES], group["count"]
        more = f" and {count - len(files)} more" if count > len(files) else ""
        lines.append(f"\n  {', '.join(files)}{more}: {group['reason']} {group['remedy']}")
    return "".join(lines)
