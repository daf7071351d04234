"""Processes of the app without their start: forked from one that has imported everything, which takes seconds.

``python -m monailabel.main start_server`` and the trainings and scorings that a server starts are ordinary processes in
all that tests look at: own memory, own environment, own working directory, a command line, killed by their id. Only
their modules come from a parent that waits, single-threaded, with everything imported:

    tests ── warm parent ── server
                              └── the server's own parent-to-be ── training, scoring

The second one is forked from the server before it starts, so that a training still is a descendant of its server, and
loses its parent when the server is killed. Where processes cannot be forked so, off Linux, :func:`popen` starts them in
the ordinary way.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

__all__ = ["APP_DIR", "ROOT", "Forked", "popen"]

ROOT = Path(__file__).resolve().parents[2]
APP_DIR = ROOT / "apps" / "rep3d_label"
_CAN_FORK = sys.platform == "linux" and hasattr(os, "pidfd_open")
_LARGEST = 1 << 20  # bytes of a request: an environment and a command line
_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_ROOM = 4096  # bytes for the command line that a forked process shows


class Forked:
    """A forked process, with what `subprocess.Popen` offers of which use is made here.

    Args:
        channel: where its parent says its id, and then its status.
        stdout: what it prints, if that is wanted.
        stdin: the way to its input, likewise.
    """

    def __init__(self, channel: socket.socket, stdout: IO[str] | None, stdin: IO[str] | None = None) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self.stdout = stdout
        self.stdin = stdin
        self.returncode: int | None = None
        told = channel.recv(64)
        assert told, "the warm parent of the servers has ended: what it printed says why"
        self.pid = int(told)

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._status(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; `subprocess.TimeoutExpired` after `timeout` seconds."""
        status = self._status(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _status(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
            with self._lock:
                if self.returncode is None:
                    told = self._channel.recv(64)
                    self.returncode = int(told) if told else -signal.SIGKILL  # its parent was killed, and nobody knows
        return self.returncode


def popen(
    command: Sequence[str],
    stdout: Any = None,
    stderr: Any = None,
    stdin: Any = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    universal_newlines: bool = False,
) -> Any:
    """`subprocess.Popen`, but forked from the warm parent where the command is ``PYTHON -m MODULE ...``.

    What it prints to standard error goes where its standard output goes.
    """
    python, option, *rest = command
    if not _CAN_FORK or (python, option) != (sys.executable, "-m"):
        return subprocess.Popen(
            command, stdout=stdout, stderr=stderr, stdin=stdin, cwd=cwd, env=env, universal_newlines=universal_newlines
        )
    environment = dict(os.environ if env is None else env)
    request = {"words": rest, "cwd": os.fspath(cwd or os.getcwd()), "environment": environment}
    reader: IO[str] | None = None
    if stdout == subprocess.PIPE:
        ours, theirs = os.pipe()
        reader = open(ours, encoding="utf-8", errors="replace")  # noqa: SIM115 (the caller closes it, as with Popen)
    else:
        theirs = os.dup(stdout.fileno())
    given = [theirs]
    writer: IO[str] | None = None
    if stdin == subprocess.PIPE:
        source, ours = os.pipe()
        given.append(source)
        writer = open(ours, "w", encoding="utf-8")  # noqa: SIM115 (likewise)
    channel, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other_end:
        socket.send_fds(_parent(), [json.dumps(request).encode()], [other_end.fileno(), *given])
    for descriptor in given:
        os.close(descriptor)
    return Forked(channel, reader, writer)


# The parents ---------------------------------------------------------------------------------------------------------


_way_to_parent: socket.socket | None = None


def _parent() -> socket.socket:
    """Return the way to the warm parent of this process, started when it is first needed; it ends with this process."""
    global _way_to_parent
    if _way_to_parent is None:
        _way_to_parent, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        with theirs:
            subprocess.Popen(
                [sys.executable, "-m", "tests.app.forks", str(theirs.fileno()), " " * _ROOM],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
            )
    return _way_to_parent


def _be_forked(way: socket.socket) -> list[str]:
    """Forks a process for each request, and ends when nobody is left who could ask for one.

    Returns:
        In a forked process only: the module that it runs, and its arguments.
    """
    children: dict[int, tuple[int, socket.socket]] = {}  # by the descriptor that tells when it has ended
    while True:
        for ready in select.select([way, *children], [], [])[0]:
            if ready is not way:
                pid, channel = children.pop(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(OSError), channel:  # nobody may want to know
                    channel.send(str(status).encode())
                os.close(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(way, _LARGEST, 3)
            if not message:
                os._exit(0)
            channel = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if not pid:
                for descriptor, (_, other) in children.items():
                    os.close(descriptor)
                    other.close()
                channel.close()
                way.close()
                return _become(json.loads(message), descriptors[1], *descriptors[2:])
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            channel.send(str(pid).encode())
            children[os.pidfd_open(pid)] = (pid, channel)


# A forked process ----------------------------------------------------------------------------------------------------


def _import_everything() -> None:
    """All that a server, its trainings and its scorings import, but for ``monailabel.app``: that one is the server."""
    import monailabel.endpoints
    import monailabel.interfaces.utils.app
    import monailabel.main

    for found in pkgutil.iter_modules(monailabel.endpoints.__path__, "monailabel.endpoints."):
        importlib.import_module(found.name)
    sys.path.insert(0, str(APP_DIR))
    importlib.import_module("main")
    importlib.import_module("torch._dynamo")  # which the first optimizer of a training imports
    del sys.modules["main"]  # MONAI Label makes the app's own module anew
    sys.path.remove(str(APP_DIR))


def _become(request: Mapping[str, Any], output: int, source: int | None = None) -> list[str]:
    """Make this process what its start would have made; return the module that it runs, and its arguments."""
    import numpy as np
    from monailabel.config import Settings, settings

    words: list[str] = request["words"]
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    if source is not None:
        os.dup2(source, 0)
        os.close(source)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["cwd"]
    sys.path[1:1] = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    sys.argv[1:] = words[1:]
    _show([sys.executable, "-m", *words])
    tempfile.tempdir = None  # what was read from the environment is read again
    fresh = Settings()
    for name in Settings.model_fields:
        setattr(settings, name, getattr(fresh, name))
    np.random.seed(None)  # other random numbers than its sisters
    return words


def _show(command: Sequence[str]) -> None:
    """Write another command line over the one that ``ps`` shows."""
    with open("/proc/self/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = "\0".join(command).encode()[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _let_trainings_be_forked() -> list[str]:
    """Forks the process that the trainings and scorings of this server are forked from.

    Returns:
        In the server nothing; in a training or scoring the module that it runs, and its arguments.
    """
    global _way_to_parent
    from monailabel.utils.async_tasks import utils

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        return _be_forked(theirs)
    theirs.close()
    _way_to_parent = ours
    utils.subprocess = SimpleNamespace(Popen=popen, PIPE=subprocess.PIPE, STDOUT=subprocess.STDOUT)
    return []


def _limit() -> None:
    """Limit the server as ``ulimit`` does, where its environment says so: no room on a disk, few handles.

    Only when it begins to serve: MONAI Label does not come so far where it cannot write its settings.
    """
    import resource

    import uvicorn

    run = uvicorn.run

    def run_limited(*arguments: Any, **options: Any) -> None:
        if "RLIMIT_FSIZE" in os.environ:  # the console is no file on that disk
            console = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            assert console.stdin is not None
            os.dup2(console.stdin.fileno(), 1)
            os.dup2(console.stdin.fileno(), 2)
        for name in ("RLIMIT_FSIZE", "RLIMIT_NOFILE"):
            if name in os.environ:
                number = getattr(resource, name)
                resource.setrlimit(number, (int(os.environ[name]), resource.getrlimit(number)[1]))
        run(*arguments, **options)

    uvicorn.run = run_limited


def _main() -> None:
    way = socket.socket(fileno=int(sys.argv[1]))
    _import_everything()
    gc.freeze()  # collecting would copy what the forked processes share
    words = _be_forked(way)
    if words[0] == "monailabel.main":
        words = _let_trainings_be_forked() or words
        _limit()
    if words[0] == "monailabel.main":  # it ends with the tests, even if they are killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    sys.modules.pop(words[0], None)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
