"""Notes about servers that were started here, so that one that outlives its Slicer is found again.

A process's number alone proves nothing: numbers are used again. A note also holds when the process began and what its
address is; a process that began at another time, or runs another program, is never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from ..processes import end_tree_on_windows, process_command, process_mark

__all__ = ["Leftover", "forget", "leftovers", "remember", "tidy"]

_KEPT_LOGS = 5


@dataclass(frozen=True)
class Leftover:
    """A server that goes on although the program that had started it is gone.

    Attributes:
        url: Its address.
        pid: Number of its process.
        studies: Its folder of images.
        mark: What tells its process from others.
    """

    url: str
    pid: int
    studies: str
    mark: str

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        if not self.mark or process_mark(self.pid) != self.mark:
            return False
        command = process_command(self.pid)
        return not command or "monailabel" in command

    def end(self, by_force: bool = False) -> bool:
        """Ask it to end with all that it started, without waiting for that; return False if it does not run any more.

        Args:
            by_force: Whether to end it at once, where it has not ended in order. On Windows it is always so.
        """
        if not self.is_alive():
            return False
        if sys.platform == "win32":
            end_tree_on_windows(self.pid)
            return True
        try:
            os.killpg(self.pid, signal.SIGKILL if by_force else signal.SIGTERM)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def remember(folder: Path, pid: int, url: str, studies: str) -> None:
    """Leave a note about a server that was just started. Without it the server works as well, so no error is raised."""
    known = {"pid": pid, "url": url, "studies": studies, "mark": process_mark(pid)}
    owner = {"owner": os.getpid(), "owner_mark": process_mark(os.getpid())}
    note = _note(folder, pid)
    part = note.with_suffix(".part")
    with contextlib.suppress(OSError):
        part.write_text(json.dumps({**known, **owner}), encoding="utf-8")
        os.replace(part, note)


def forget(folder: Path, pid: int) -> None:
    """Remove the note about a server that has ended."""
    with contextlib.suppress(OSError):
        _note(folder, pid).unlink()


def leftovers(folder: str | Path) -> tuple[Leftover, ...]:
    """Return the servers noted in a folder that still run although the program that had started them does not."""
    found = []
    for note in sorted(Path(folder).glob("server-*.json")):
        server, owned = _read(note)
        if server is not None and not owned and server.is_alive():
            found.append(server)
    return tuple(found)


def tidy(folder: Path) -> None:
    """Remove notes about servers that have ended, and all but the newest logs."""
    running = set()
    for note in folder.glob("server-*.json"):
        server, _ = _read(note)
        if server is not None and server.is_alive():
            running.add(f"server-{server.url.rpartition(':')[2]}.log")
        else:
            with contextlib.suppress(OSError):
                note.unlink()
    logs = [log for log in folder.glob("server-*.log") if log.name not in running]
    with contextlib.suppress(OSError):
        for log in sorted(logs, key=lambda log: log.stat().st_mtime)[:-_KEPT_LOGS]:
            log.unlink()


def _note(folder: Path, pid: int) -> Path:
    return folder / f"server-{pid}.json"


def _read(note: Path) -> tuple[Leftover | None, bool]:
    """Return the server of a note, and whether who had started it still runs."""
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        server = Leftover(str(known["url"]), int(known["pid"]), str(known["studies"]), str(known["mark"]))
        owner, mark = int(known["owner"]), str(known["owner_mark"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, False
    return server, bool(mark) and process_mark(owner) == mark
