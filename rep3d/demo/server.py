"""A real MONAI Label server, with our app unless told otherwise, as a child process that is always stopped with all it
started.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil
import requests

from rep3d.demo.checkout import APP
from rep3d.errors import Rep3DError

__all__ = ["ServerError", "ServerProcess", "free_port"]


class ServerError(Rep3DError):
    """The server did not start, or ended by itself."""


def free_port() -> int:
    """Return a TCP port of this machine that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerProcess:
    """``monailabel start_server`` on one studies folder; a context manager.

    Args:
        studies: folder with the images.
        log: file that receives all that the server prints.
        port: TCP port on 127.0.0.1; 0 for a free one.
        conf: the app's ``--conf`` settings.
        app: folder of the app; ours by default.
        python: the interpreter of another environment to run it in; this one by default.
    """

    def __init__(
        self,
        studies: Path,
        log: Path,
        port: int = 0,
        conf: dict[str, str] | None = None,
        app: Path = APP,
        python: Path | None = None,
    ) -> None:
        if python is None and importlib.util.find_spec("distutils") is None:
            raise ServerError(
                "The server cannot start: MONAI Label needs the module distutils, which Python dropped in 3.12. The "
                "package setuptools brings it back: pip install setuptools==80.9.0"
            )
        self.studies = studies
        self.log = log
        self.port = port or free_port()
        self.conf = dict(conf or {})
        self.app = app
        self.python = python or Path(sys.executable)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerProcess:
        command = [str(self.python), "-m", "monailabel.main", "start_server", "--app", str(self.app)]
        command += ["--studies", str(self.studies), "--host", "127.0.0.1", "--port", str(self.port)]
        for key, value in self.conf.items():
            command += ["--conf", key, value]
        # Idle OpenMP threads must sleep, not spin: server, training and client share the cores.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        with self.log.open("wb") as output:
            # An own session, so that Ctrl-C reaches this program only and it can stop the server in order.
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        return self

    def wait_until(self, ready: Callable[[], bool], timeout: float = 180.0, pause: float = 0.25) -> None:
        """Wait until the server answers.

        Args:
            ready: asks the server once.
            timeout: seconds.
            pause: seconds between two questions.

        Raises:
            ServerError: with the end of the log, if the server ended or the time is over.
        """
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.check()
            if ready():
                return
            time.sleep(pause)
        raise ServerError(
            f"The server did not answer at {self.url} within {timeout:g} s. Its log: {self.log}\n{self._log_end()}"
        )

    def answers(self) -> bool:
        """Ask the server once whether it answers."""
        with suppress(requests.ConnectionError, requests.Timeout):
            return requests.get(f"{self.url}/info/", timeout=60).ok
        return False

    def check(self) -> None:
        """Raise ServerError if the server has ended."""
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise ServerError(
                f"The server ended (exit status {code}). The end of its log {self.log}:\n{self._log_end()}"
            )

    def wait_for_interrupt(self) -> None:
        """Return on Ctrl-C; raise ServerError if the server ends by itself before."""
        try:
            while True:
                self.check()
                time.sleep(0.5)
        except KeyboardInterrupt:
            return

    def _log_end(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError as error:
            return f"(no log: {error})"

    def stop(self) -> None:
        """Stop the server and every process it started; return when they are gone."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            family = []
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.terminate()
        _, alive = psutil.wait_procs(family, timeout=5)
        for member in alive:
            member.kill()
        process.wait(timeout=10)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
