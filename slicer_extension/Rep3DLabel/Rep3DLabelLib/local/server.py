"""A server on this computer, for people without an engineer: started, watched and stopped as a child process.

Nothing here waits and there are no threads: `poll` is to be called again and again. The server is not tied to the life
of Slicer: if Slicer crashes, it goes on, so that a running training is not lost, and `leftovers` finds it in the next
session by the note that was left about it.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..processes import Child, clean_environment
from .log import LogReader
from .notes import Leftover, forget, leftovers, remember, tidy
from .pythons import AppSearch, candidate_pythons, find_app, python_of

__all__ = [
    "FAILED",
    "RUNNING",
    "STARTING",
    "STOPPED",
    "STOPPING",
    "Leftover",
    "LocalServer",
    "candidate_pythons",
    "find_app",
    "leftovers",
]

STOPPED, STARTING, RUNNING, STOPPING, FAILED = "stopped", "starting", "running", "stopping", "failed"
HOST = "127.0.0.1"  # nobody else's computer can reach it
_GRACE = 20.0  # seconds in which a server ends in order: it may be in the middle of a segmentation
_READY = re.compile(r"Uvicorn running on ")
_REFUSAL = re.compile(r"Rep3D Label cannot start: (.*)")
_NOT_INSTALLED = re.compile(r"No module named '?monailabel\b")
_PORT_TAKEN = re.compile(r"address already in use|\[WinError 100(?:48|13)\]", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:\[[^\]]*\] )+(?:\([^)]*\) - )?")


class LocalServer:
    """`monailabel start_server` on one folder of images.

    Args:
        python: Python of the environment in which the server is installed: the file, or the environment's folder.
        studies: Folder of images.
        folder: Existing or new folder of our own for the log and the note about the server.
        app: Folder of the app; "" to ask that Python for it.
        labels: Label names, "a,b" or "a=1,b=3"; "" where the folder or a trained model says them.
        port: TCP port; 0 for a free one.
        conf: Further settings of the app.
        environment: What the server's environment is made of, see `clean_environment`.
        grace: Seconds in which the server may end in order.
        clock: Seconds.

    Attributes:
        state: STOPPED, STARTING, RUNNING, STOPPING or FAILED.
        message: For the user: what it does, or why it failed and what to do.
        url: Address of the server, "" before it was started.
        log_file: All that it prints, None before it was started.
    """

    def __init__(
        self,
        python: str | Path,
        studies: str | Path,
        folder: str | Path,
        app: str | Path = "",
        labels: str = "",
        port: int = 0,
        conf: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        grace: float = _GRACE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = STOPPED
        self.message = ""
        self.url = ""
        self.log_file: Path | None = None
        self._python, self._studies, self._folder = str(python), Path(studies).expanduser(), Path(folder)
        self._app = Path(app).expanduser() if str(app).strip() else None
        self._port = port
        self._conf = {**({"labels": labels.strip()} if labels.strip() else {}), **(conf or {})}
        self._environment = clean_environment(environment)
        self._grace, self._clock = grace, clock
        self._search: AppSearch | None = None
        self._child: Child | None = None
        self._log: LogReader | None = None
        self._kill_at = 0.0
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Number of the server's process, None while there is none."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it, if it does not run; whatever goes wrong shows in `state` and `message`."""
        if self.state in (STARTING, RUNNING, STOPPING):
            return
        self._log, self.url, self._killed = None, "", False
        python = python_of(self._python, self._environment)
        if not self._python.strip():
            return self._fail("Choose the Python of the environment in which Rep3D Label is installed.")
        if python is None:
            return self._fail(f"There is no Python at '{self._python}'. Choose its file or its environment.")
        if not str(self._studies).strip(". ") or not self._studies.is_dir():
            return self._fail(f"There is no folder '{self._studies}'. Choose the folder with your images.")
        if self._app is not None and not (self._app / "main.py").is_file():
            return self._fail(
                f"'{self._app}' is not the folder of Rep3D Label's app: it has no main.py. Choose apps/rep3d_label, "
                "or leave the field empty."
            )
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            tidy(self._folder)
        except OSError as error:
            return self._fail(f"Cannot write to '{self._folder}': {error.strerror or error}.")
        self.state, self.message = STARTING, "Starting the server. This takes up to a minute."
        if self._app is None:
            self._search = AppSearch(python, self._environment, self._folder, self._clock)
        else:
            self._launch(python, self._app)
        return None

    def poll(self) -> str:
        """Look after it and return its state; never waits."""
        if self._search is not None and self._search.poll():
            search, self._search = self._search, None
            python = python_of(self._python, self._environment)
            if self.state == STOPPING:
                self._end(STOPPED, "")
            elif search.app is None or python is None:
                self._fail(search.message)
            else:
                self._launch(python, search.app)
        child = self._child
        if child is None:
            return self.state
        self._read_log()
        code = child.poll()
        if code is not None:
            self._read_log()
            self._child = None
            forget(self._folder, child.pid)
            if self.state == STOPPING:
                self._end(STOPPED, "")
            else:
                self._fail(self._reason(code))
        elif self.state == STOPPING and self._clock() >= self._kill_at and not self._killed:
            self._killed = True
            child.kill()
        return self.state

    def log_lines(self, count: int) -> list[str]:
        """Return the last lines that it printed, at most so many."""
        self._read_log()
        return self._log.last(count) if self._log else []

    def stop(self) -> None:
        """Ask it to end in order, with all that it started; `poll` ends it by force after a grace period.

        After the last call of `poll` nobody does that: a server that hangs is a leftover then.
        """
        if self.state not in (STARTING, RUNNING):
            return
        self.state, self.message = STOPPING, "Stopping the server."
        self._kill_at = self._clock() + self._grace
        if self._search is not None:
            self._search.stop()
        if self._child is not None:
            self._child.terminate()

    def _launch(self, python: Path, app: Path) -> None:
        try:
            port = self._port or _free_port()
            self.log_file = self._folder / f"server-{port}.log"
            command = [str(python), "-m", "monailabel.main", "start_server", "--app", str(app)]
            command += ["--studies", str(self._studies), "--host", HOST, "--port", str(port)]
            for name, value in self._conf.items():
                command += ["--conf", name, value]
            with self.log_file.open("wb") as log:
                self._child = Child(command, self._environment, self._folder, log)
        except (OSError, ValueError) as error:
            return self._fail(
                f"The server cannot be started with '{python}': {getattr(error, 'strerror', None) or error}."
            )
        self.url = f"http://{HOST}:{port}"
        self._log = LogReader(self.log_file)
        remember(self._folder, self._child.pid, self.url, str(self._studies))
        return None

    def _read_log(self) -> None:
        if self._log is None:
            return
        for line in self._log.read():
            if self.state == STARTING and self._child is not None and _READY.search(line):
                self._ready()

    def _ready(self) -> None:
        self.state, self.message = RUNNING, f"The server runs at {self.url}."

    def _fail(self, message: str) -> None:
        self._end(FAILED, message)

    def _end(self, state: str, message: str) -> None:
        self.state, self.message = state, message

    def _reason(self, code: int) -> str:
        """Say why it ended, by what it printed."""
        lines = self._log.last(400) if self._log else []
        for line in reversed(lines):
            refusal = _REFUSAL.search(line)
            if refusal:
                return f"The server cannot start: {refusal.group(1)}"
            if _NOT_INSTALLED.search(line):
                return (
                    f"MONAI Label is not installed in the environment of '{self._python}'. "
                    "Choose the Python of the environment in which Rep3D Label was installed."
                )
            if _PORT_TAKEN.search(line):
                return f"Another program uses the port of {self.url}. Start the server again, or choose another port."
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        said = next((_PREFIX.sub("", line).strip() for line in reversed(lines) if line.strip()), "")
        last = f" Its last line was: {said}" if said else " It wrote nothing."
        return f"The server {ended}.{last}" + (f" The whole log is in {self.log_file}." if said else "")


def _free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
