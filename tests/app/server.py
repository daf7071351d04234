"""A real MONAI Label server process for tests: on a free port of this machine only, stopped by its own id.

Most are forked from a process that has imported MONAI Label already (:mod:`tests.app.forks`); tests of the start itself
and of kills start theirs as users do.

Tests talk to it over HTTP, as clients do; what it logs is kept in a file, so that refusals to start can be read.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import requests

from tests.app.forks import APP_DIR, ROOT, Forked, popen

__all__ = ["APP_DIR", "ROOT", "AppServer", "free_port", "until"]

HOST = "127.0.0.1"
_START_SECONDS = 180.0
_STOP_SECONDS = 90.0


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def until(holds: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds; AssertionError where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class AppServer:
    """A server process over one studies folder.

    Args:
        studies: the studies folder.
        scratch: a folder for its log, its sessions and its working directory, outside the studies folder.
        conf: ``--conf`` settings. Tests begin without a model unless they ask for a starter model, and no process waits
            for a training unless they ask for that.
        app: the app's folder.
        port: port to listen on, or None for a free one.
        prefix: a command to run the server by, such as one that takes rights away.
        scores_by_itself: whether it computes scores that are missing in the background, which takes a core for a while.
        forked: whether it may be forked, or must be started by its command.
        host: the address to listen on; None for MONAI Label's own default, which is every address of this computer.
        environment: variables of its environment, besides those of the tests.
        certificate: files of a certificate and its key, to be spoken to by https.
    """

    def __init__(
        self,
        studies: Path,
        scratch: Path,
        conf: Mapping[str, str] | None = None,
        app: Path = APP_DIR,
        port: int | None = None,
        prefix: Sequence[str] = (),
        scores_by_itself: bool = False,
        forked: bool = True,
        host: str | None = HOST,
        environment: Mapping[str, str] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.studies = studies
        self.port = port or free_port()
        self.url = f"{'https' if certificate else 'http'}://{HOST}:{self.port}"
        self._verify: str | bool = str(certificate[0]) if certificate else True
        self.log_file = scratch / f"server-{self.port}.log"
        self._scratch = scratch
        self._scores_by_itself = scores_by_itself
        asked = {"starter": "off", "standby": "off", **(conf or {})} if app == APP_DIR else dict(conf or {})
        settings: Sequence[str] = [part for pair in asked.items() for part in ("--conf", *pair)]
        self._command = [*prefix, sys.executable, "-m", "monailabel.main", "start_server", "--app", str(app)]
        self._command += ["--studies", str(studies), *(["--host", host] if host else [])]
        self._command += ["--port", str(self.port), *settings]
        if certificate:
            self._command += ["--ssl_certfile", str(certificate[0]), "--ssl_keyfile", str(certificate[1])]
        self._environment = environment or {}
        self._popen: Any = popen if forked and app == APP_DIR else subprocess.Popen
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def orderly(self) -> bool:
        """Whether the process ended of itself with status 0."""
        return self._process is not None and self._process.poll() == 0

    @property
    def pid(self) -> int:
        """Id of the server's process."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the server has logged so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def launch(self) -> None:
        """Start the process without waiting for it."""
        temporary = self._scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        folders = {"MONAI_LABEL_SESSION_PATH": str(self._scratch / "sessions"), "TMPDIR": str(temporary)}
        watch = {"MONAI_LABEL_AUTO_UPDATE_SCORING": str(self._scores_by_itself).lower()}
        environment = {**os.environ, **folders, **watch, **self._environment}
        with self.log_file.open("wb") as log:
            self._process = self._popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=self._scratch,
                env=environment,
            )

    def wait_until_ready(self) -> float:
        """Wait for the first answer to ``GET /info/``.

        Returns:
            Seconds that it took.
        """
        assert self._process is not None
        started = time.monotonic()
        while time.monotonic() - started < _START_SECONDS:
            if self._process.poll() is not None:
                raise AssertionError(f"the server ended with status {self._process.returncode}:\n{self.log[-4000:]}")
            with contextlib.suppress(requests.ConnectionError):
                answer = requests.get(f"{self.url}/info/", timeout=30, verify=self._verify)
                if answer.status_code in (200, 401):  # it may ask for a key
                    return time.monotonic() - started
            time.sleep(0.05)
        raise AssertionError(f"the server did not answer within {_START_SECONDS:g} s:\n{self.log[-4000:]}")

    def wait_until_refused(self) -> str:
        """Wait for a server that does not start to end.

        Returns:
            What it logged.
        """
        assert self._process is not None
        status = self._process.wait(_START_SECONDS)
        assert status != 0, self.log[-4000:]
        return self.log

    def stop(self) -> None:
        """End the process in the orderly way, and what is left of it and its children the other way."""
        if self._process is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> AppServer:
        self.launch()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Requests ------------------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Return a request with a time-out; ``options`` are those of ``requests``."""
        options.setdefault("verify", self._verify)
        return requests.request(method, f"{self.url}{path}", timeout=options.pop("timeout", 120), **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        """``GET``."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """``POST``."""
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> requests.Response:
        """``PUT``."""
        return self.request("PUT", path, **options)

    def train_stats(self) -> dict[str, Any]:
        """Return the state of the training as ``/info/`` gives it."""
        return dict(self.get("/info/").json()["train_stats"]["rep3d"])

    def wait_for_training(self, seconds: float = 480.0) -> dict[str, Any]:
        """Wait until no training runs any more.

        Returns:
            Its last state.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            stats = self.train_stats()
            task = self.get("/train/").json()
            if stats.get("phase") in ("done", "error", "stopped", "interrupted") and task["status"] not in (
                "SUBMITTED",
                "RUNNING",
            ):
                return stats
            time.sleep(0.3)
        raise AssertionError(f"the training did not end within {seconds:g} s:\n{self.log[-4000:]}")
