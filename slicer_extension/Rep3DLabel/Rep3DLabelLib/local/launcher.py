"""Where the workflow gets a local server from: a new one, or one that has outlived the Slicer that started it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..i18n import tr
from ..settings import LocalChoice
from .notes import Leftover, leftovers
from .server import RUNNING, STOPPED, STOPPING, LocalServer

__all__ = ["AdoptedServer", "Launcher"]

_LOOK_SECONDS, _GRACE = 1.0, 20.0


class Launcher:
    """Makes local servers.

    Args:
        folder: For their logs and notes; kept from session to session.
        environment: Of the server, see `processes.clean_environment`.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder, self._environment = folder, environment

    def make(self, choice: LocalChoice) -> LocalServer:
        """Return a server that is not started yet."""
        return LocalServer(
            choice.python, choice.studies, self._folder, choice.app, choice.labels, environment=self._environment
        )

    def leftover(self) -> AdoptedServer | None:
        """Return the server that an earlier session has left running, None if there is none."""
        found = leftovers(self._folder)
        return AdoptedServer(found[0]) if found else None


class AdoptedServer:
    """A server that still runs although the Slicer that started it is gone; used like a `LocalServer`.

    Args:
        leftover: The server.
        clock: Seconds.
    """

    def __init__(self, leftover: Leftover, clock: Callable[[], float] = time.monotonic) -> None:
        self._leftover, self._clock = leftover, clock
        self._next = self._kill_at = 0.0
        self.state = RUNNING
        self.url = leftover.url
        self.message = tr("The server of an earlier session still runs, with the images of {folder}.").format(
            folder=leftover.studies
        )

    def poll(self) -> str:
        """Look, once a second, whether it still runs, and return its state."""
        now = self._clock()
        if self.state != STOPPED and now >= self._next:
            self._next = now + _LOOK_SECONDS
            if not self._leftover.is_alive():
                self.state, self.message = STOPPED, ""
            elif self.state == STOPPING and now >= self._kill_at:
                self._leftover.end(by_force=True)
        return self.state

    def log_lines(self, count: int) -> list[str]:
        """Return nothing: its log belongs to the session that started it."""
        return []

    def stop(self) -> None:
        """Ask it to end in order; `poll` ends it by force after a grace period."""
        if self.state == RUNNING:
            self.state, self.message = STOPPING, tr("Stopping the server.")
            self._kill_at = self._clock() + _GRACE
            self._leftover.end()
