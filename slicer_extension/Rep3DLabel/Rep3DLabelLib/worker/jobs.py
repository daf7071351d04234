"""The Slicer side of the helper process: hand over work, look for what came back, never wait.

Slicer draws and listens on one thread, and Python threads hardly run beside it. So whatever takes time is done by a
child process (`main.py`). Jobs go to its standard input; what it answers is appended to a file, because a file can be
read without waiting on every system, and a pipe cannot.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..connection import FAILED
from .wire import decode

__all__ = ["Job", "JobError", "Worker"]

Done = Callable[[Any], None]
Progress = Callable[[Mapping[str, Any]], None]

_SCRIPT = Path(__file__).resolve().with_name("main.py")
_READ_AT_ONCE = 1 << 22  # bytes of answers taken in one poll
_WRITE_AT_ONCE = 1 << 15
_LOG_LIMIT = 1 << 22
_LOG_TAIL = 4096
_BUDGET = 0.02  # seconds of delivering at each poll


@dataclass(frozen=True)
class JobError:
    """Why a job failed.

    Attributes:
        kind: Name of a class in `errors`, or "HelperEnded" (the child process died), or "InternalError" (a mistake of
            ours; the log says more).
        message: For the user.
        status: HTTP status, None if there was none.
        detail: The server's own words, "" if there are none.
        state: What it says about the connection, a word of `connection`.
    """

    kind: str
    message: str
    status: int | None = None
    detail: str = ""
    state: str = FAILED


Failed = Callable[[JobError], None]


@dataclass(frozen=True, eq=False)
class Job:
    """Work that was handed over; jobs are compared by identity."""

    id: int
    op: str
    done: Done | None
    failed: Failed | None
    progress: Progress | None


class Worker:
    """Runs jobs in a child process, which is started when it is needed.

    Args:
        folder: For its answers and its log (`worker.log`); made if it does not exist.
        python: Python to run it, by default Slicer's, else the one that runs this.
        environment: Of the child, by default that of this process.
    """

    def __init__(self, folder: Path, python: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._folder = Path(folder).resolve()
        # Inside Slicer, sys.executable may be Slicer itself, which must not be started once more.
        this = sys.executable if "python" in Path(sys.executable).name.lower() else "PythonSlicer"
        self._python = python or shutil.which("PythonSlicer") or this
        self._environment = environment
        self._child: _Child | None = None
        self._closing: list[_Child] = []
        self._pending: dict[int, Job] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._number = 0
        self._start_problem = ""

    @property
    def pending(self) -> tuple[Job, ...]:
        """The jobs that have not ended yet, oldest first."""
        return tuple(self._pending.values())

    @property
    def log(self) -> Path:
        """The file with what the child process says about its own mistakes."""
        return self._folder / "worker.log"

    @property
    def pid(self) -> int | None:
        """Id of the child process, None if none runs."""
        return self._child.pid if self._child is not None else None

    def submit(
        self,
        op: str,
        args: Mapping[str, object],
        done: Done | None = None,
        failed: Failed | None = None,
        progress: Progress | None = None,
    ) -> Job:
        """Hand over a job and return at once.

        Args:
            op: Name of the operation, see `ops`.
            args: Its arguments, JSON values; "server" holds "url", "api_key", "verify" and "client_id".
            done, failed, progress: Called by `poll`, never by this call: the first two at most once.

        Raises:
            TypeError: An argument is no JSON value.
        """
        self._number += 1
        job = Job(self._number, op, done, failed, progress)
        server = args.get("server")
        rest = {key: value for key, value in args.items() if key != "server"}
        line = json.dumps({"id": job.id, "op": op, "server": server, "args": rest}).encode() + b"\n"
        while self._child is not None and self._child.ended:
            self._collect()  # what it still said, before another one starts
        if self._child is None:
            self._start()
        self._pending[job.id] = job
        if self._child is not None:
            self._child.send(job.id, line)
        return job

    def poll(self) -> None:
        """Look for answers and call who waits for them, in the order in which they came.

        What takes too long, or comes after an exception of a callback, which passes through, is left for the next poll.
        """
        self._collect()
        end = time.monotonic() + _BUDGET
        while self._events and time.monotonic() < end:
            self._deliver(self._events.popleft())
        for child in list(self._closing):
            if child.ended:
                child.clean_up()
                self._closing.remove(child)

    def drop(self, job: Job) -> None:
        """Have nobody called for a job any more, and have it stopped if it can be."""
        if self._pending.pop(job.id, None) is not None and self._child is not None:
            self._child.cancel(job.id)

    def close(self) -> None:
        """End the child process without waiting for it; kill it if this was called before. Pending jobs are dropped."""
        self._pending.clear()
        self._events.clear()
        for child in self._closing:
            child.kill()
        if self._child is not None:
            self._child.hang_up()
            self._closing.append(self._child)
            self._child = None

    def _start(self) -> None:
        self._child, self._start_problem = None, ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._child = _Child(self._folder, self.log, self._python, self._environment)
        except (OSError, ValueError) as error:
            self._start_problem = (
                f"Cannot start the helper process with '{self._python}' in '{self._folder}': {error}. Check free "
                "space and permissions, and restart Slicer."
            )

    def _collect(self) -> None:
        """Take what the child process has answered; if it has died, fail what it had not done."""
        child = self._child
        if child is None:
            if self._start_problem and self._pending:
                self._fail_all("LocalProblem", self._start_problem)
            return
        ended = child.ended  # asked first: what it said before it ended has been written then
        self._events.extend(child.read())
        child.flush()
        if ended and child.is_read:
            told = {event["id"] for event in self._events if "done" in event or "failed" in event}
            last = _last_line(self.log, child.log_start)
            message = f"The helper process ended ({child.how_it_ended}) before it had answered."
            message += f" It last said: {last}" if last else ""
            self._fail_all("HelperEnded", f"{message} Try again; nothing in Slicer was changed.", told)
            child.clean_up()
            self._child = None

    def _fail_all(self, kind: str, message: str, told: Collection[int] = ()) -> None:
        problem = {"kind": kind, "message": message}
        self._events.extend({"id": number, "failed": problem} for number in self._pending if number not in told)

    def _deliver(self, event: Mapping[str, Any]) -> None:
        job = self._pending.get(event["id"])
        if job is None:
            return
        if "progress" in event:
            if job.progress is not None:
                job.progress(event["progress"])
            return
        del self._pending[job.id]
        if "done" in event:
            if job.done is not None:
                job.done(decode(event["done"]))
        elif job.failed is not None:
            job.failed(JobError(**event["failed"]))


class _Child:
    """One child process, its pipe and its file of answers."""

    _all: weakref.WeakSet[_Child] = weakref.WeakSet()

    def __init__(self, folder: Path, log: Path, python: str, environment: Mapping[str, str] | None) -> None:
        self._file = folder / f"answers-{uuid.uuid4().hex}.jsonl"
        self._file.touch(0o600)
        with contextlib.suppress(OSError):
            if log.stat().st_size > _LOG_LIMIT:
                log.unlink()
        try:
            with log.open("ab") as errors:
                self.log_start = errors.tell()
                self._process = subprocess.Popen(
                    [python, str(_SCRIPT), "--events", str(self._file)],
                    stdin=subprocess.PIPE,
                    stdout=errors,
                    stderr=errors,
                    env={**(os.environ if environment is None else environment), "PYTHONFAULTHANDLER": "1"},
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no console appears on Windows
                )
        except BaseException:
            self._file.unlink()
            raise
        assert self._process.stdin is not None
        self._pipe = self._process.stdin
        if os.name == "posix":
            os.set_blocking(self._pipe.fileno(), False)
        self._ready = False
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._offset = 0
        self._rest = b""
        self._all.add(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def how_it_ended(self) -> str:
        code = self._process.returncode
        return f"signal {-code}" if code is not None and code < 0 else f"code {code}"

    @property
    def is_read(self) -> bool:
        """Whether all that it has written is read."""
        with contextlib.suppress(OSError):
            return self._file.stat().st_size <= self._offset
        return True

    def send(self, number: int, line: bytes) -> None:
        self._outbox.append((number, line))
        self.flush()

    def cancel(self, number: int) -> None:
        """Stop a job; one that was not sent yet is not sent at all."""
        waiting = len(self._outbox)
        first = self._outbox.popleft() if self._outbox and not self._outbox[0][1].startswith(b"{") else None
        self._outbox = deque(item for item in self._outbox if item[0] != number)
        if first is not None:  # half of it is on its way
            self._outbox.appendleft(first)
        if len(self._outbox) == waiting:
            self.send(0, json.dumps({"cancel": number}).encode() + b"\n")

    def flush(self) -> None:
        """Send what can be sent without waiting; nothing before the child reads, since a pipe holds little."""
        sent = 0
        while self._ready and self._outbox and sent < _WRITE_AT_ONCE:
            number, line = self._outbox[0]
            try:
                count = os.write(self._pipe.fileno(), line[:_WRITE_AT_ONCE])
            except BlockingIOError:
                return
            except (OSError, ValueError):  # it has died; `ended` will say so
                return
            sent += count
            if count < len(line):
                self._outbox[0] = (number, line[count:])
            else:
                self._outbox.popleft()

    def read(self) -> list[dict[str, Any]]:
        """Return the answers that are complete."""
        found: list[dict[str, Any]] = []
        try:
            with self._file.open("rb") as stream:
                stream.seek(self._offset)
                content = stream.read(_READ_AT_ONCE)
        except OSError:
            return found
        self._offset += len(content)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if "ready" in event:
                self._ready = True
            elif "next" in event:  # the file had grown long
                self._file.unlink(missing_ok=True)
                self._file = self._file.with_name(event["next"])
                self._offset, self._rest = 0, b""
            else:
                found.append(event)
        return found

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()

    def clean_up(self) -> None:
        self.hang_up()
        with contextlib.suppress(OSError):
            self._file.unlink()

    @classmethod
    def end_all(cls) -> None:
        for child in list(cls._all):
            if not child.ended:
                child.hang_up()
                child.kill()
            child.clean_up()


atexit.register(_Child.end_all)


def _last_line(log: Path, start: int) -> str:
    """Return the last line of a log that stands after a place in it, "" if there is none."""
    try:
        with log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(start, end - _LOG_TAIL))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), "")
