"""The audit log of a server: who did what, one line of JSON for each event, in ``STUDIES/rep3d/audit``.

What changes something and what only looks are in files of their own, so that nobody can push a change out of the log by
looking at images. Each line is one write at the end of the file: the server, its trainings and the command line may
write at a time. A full file gets a name with the time, and of those only the newest are kept.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rep3d.files import sync_folder

__all__ = ["CHANGES", "READS", "AuditLog", "result_of"]

logger = logging.getLogger(__name__)

CHANGES, READS = "changes", "reads"
_LARGEST = 8 << 20  # bytes of a file
_KEPT = 12  # full files of each kind
_LONGEST = 200  # characters of a value
_LOCK_SECONDS = 1.0


def result_of(event: Mapping[str, Any]) -> str:
    """Return ``done``, ``refused`` or ``failed``: how a request ended, or what an event without one says itself."""
    status = event.get("status")
    if not isinstance(status, int):
        return str(event.get("result", "done"))
    return "done" if status < 400 else "refused" if status < 500 else "failed"


class AuditLog:
    """The log of one studies folder.

    Args:
        folder: the server's own folder, ``STUDIES/rep3d``.
        largest: bytes of a file, roughly.
        kept: full files of each kind that are kept.

    Attributes:
        trouble: why events are not written now; None while they are.
    """

    def __init__(self, folder: Path, largest: int = _LARGEST, kept: int = _KEPT) -> None:
        self.folder = folder / "audit"
        self.trouble: str | None = None
        self._largest = largest
        self._kept = kept
        self._lost = 0
        self._guard = threading.Lock()

    def write(self, kind: str, event: Mapping[str, Any]) -> None:
        """Write an event; a change is on the disk when this returns.

        A disk that takes nothing stops nobody's work: what is missing is counted, and noted when there is room again.

        Args:
            kind: :data:`CHANGES` or :data:`READS`.
            event: plain JSON types. Its time is now, unless it has one; values of None are left out.
        """
        with self._guard:
            try:
                if self._lost:
                    self._append(CHANGES, {"what": "events missing", "count": self._lost, "result": "failed"})
                    self._lost = 0
                self._append(kind, event)
            except OSError as error:
                self._lost += 1
                if self.trouble is None:
                    logger.error("the audit log cannot be written, so events are missing in it: %s", error)
                self.trouble = f"Events are missing in the audit log: {error.strerror or type(error).__name__}."
            else:
                self.trouble = None

    def _append(self, kind: str, event: Mapping[str, Any]) -> None:
        said = {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"), **event}
        fields = {key: _plain(value) for key, value in said.items() if value is not None}
        line = json.dumps(fields).encode("ascii") + b"\n"  # control characters and all that could mislead are escaped
        path = self.folder / f"{kind}.jsonl"
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and not _ends_line(handle, size):  # what a full disk or a kill left
                line = b"\n" + line
            if os.write(handle, line) < len(line):
                raise OSError("No room for a whole line")
            if kind == CHANGES:
                os.fsync(handle)
                if not size:
                    sync_folder(self.folder)
        finally:
            os.close(handle)
        if size + len(line) >= self._largest:
            self._put_away(path)

    def _put_away(self, path: Path) -> None:
        """Give a full file another name, and remove the oldest; where another process does so, or none can, go on."""
        with suppress(Timeout, OSError, NotImplementedError), FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS):
            if path.stat().st_size < self._largest:
                return
            time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            os.rename(path, path.with_name(f"{path.stem}-{time}.jsonl"))
            for old in self._files(path.stem)[: -self._kept - 1]:
                old.unlink()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all events by time; a line that is damaged is passed over, and logged."""
        yield from heapq.merge(self._of(CHANGES), self._of(READS), key=lambda event: str(event.get("time")))

    def _files(self, kind: str) -> list[Path]:
        """Return the files of a kind, oldest first; the one that is written comes last."""
        return [*sorted(self.folder.glob(f"{kind}-*.jsonl")), self.folder / f"{kind}.jsonl"]

    def _of(self, kind: str) -> Iterator[dict[str, Any]]:
        for file in self._files(kind):
            with suppress(FileNotFoundError), file.open("rb") as lines:  # it was put away this moment
                for number, line in enumerate(lines, start=1):
                    try:
                        event = json.loads(line)
                    except ValueError:
                        event = None
                    if isinstance(event, dict):
                        yield event
                    elif line.strip():
                        logger.warning("%s: line %d is damaged", file, number)


def _plain(value: Any) -> Any:
    return value[:_LONGEST] if isinstance(value, str) else value


def _ends_line(handle: int, size: int) -> bool:
    os.lseek(handle, size - 1, os.SEEK_SET)  # what is written goes to the end all the same
    return os.read(handle, 1) == b"\n"
