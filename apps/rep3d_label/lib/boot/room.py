"""Room on the disk: without it a server starts, says so, and only reads until there is some."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lib.errors import DiskFullError
from rep3d.errors import machine_error

__all__ = ["Room"]

logger = logging.getLogger(__name__)

_PROBE = b"\0" * 65536
_AGAIN_SECONDS = 5.0


class Room:
    """Does what a start has to write, at once or later, and knows whether the disk is full.

    Args:
        folder: the server's own folder.
        again: seconds between two tries while there is no room, and for which what was found out holds.
    """

    def __init__(self, folder: Path, again: float = _AGAIN_SECONDS) -> None:
        self._folder = folder
        self._again = again
        self._steps: list[Callable[[], object]] = []  # of the start, that wait for room
        self._guard = threading.Lock()
        self._looked: float | None = None
        self._found: str | None = None

    def do(self, step: Callable[[], object]) -> None:
        """Do a step of the start, or let it wait for room, and with it all that are given later."""
        with self._guard:
            self._steps.append(step)
            if len(self._steps) > 1:
                return
            full = self._try()
        if full is not None:
            logger.error("%s Until there is room, this server only reads.", full)
            threading.Thread(target=self._wait, name="wait-for-room", daemon=True).start()

    def check(self) -> None:
        """Refuse a change while the start has not been able to write what it must.

        Raises:
            DiskFullError: if there still is no room.
        """
        if self._steps:
            with self._guard:
                full = self._try()
            if full is not None:
                raise DiskFullError(f"The disk had no room when the server started, and has none now. {_NOTHING}")
            self._looked = None

    def problem(self) -> str | None:
        """Return what people should know about the disk; None where it takes what it is given."""
        now = time.monotonic()
        if self._looked is None or now - self._looked >= self._again:
            self._looked, self._found = now, self._look()
        return self._found

    def _look(self) -> str | None:
        try:
            self.check()
            with tempfile.TemporaryFile(dir=self._folder, buffering=0) as probe:
                probe.write(_PROBE)
                os.fsync(probe.fileno())
        except (DiskFullError, OSError) as error:
            full = machine_error(error)
            return None if full is None else f"The disk is full, so nothing can be saved. {_NOTHING}"
        return None

    def _try(self) -> DiskFullError | None:
        """Do the steps that wait, in their order; return why one could not be done."""
        while self._steps:
            try:
                self._steps[0]()
            except Exception as error:
                full = machine_error(error)
                if not isinstance(full, DiskFullError):
                    self._steps.clear()
                    raise
                return full
            del self._steps[0]
        return None

    def _wait(self) -> None:
        while self._steps:
            time.sleep(self._again)
            try:
                self.check()
            except DiskFullError:
                continue
            except Exception:
                logger.exception("what the start had to write could not be written; start the server again")
                return
        logger.warning("there is room on the disk again: this server changes things, too")


_NOTHING = "Make room; what is there can be looked at meanwhile."
