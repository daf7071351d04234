"""The Slicer side of the helper process: hand over work, look for what came back, never wait.

Slicer draws and listens on one thread, and Python threads hardly run beside it. So whatever takes time is done by a
child process (`main.py`). Jobs go to its standard input; what it answers is appended to a file, because a file can be
read without waiting on every system, and a pipe cannot.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..connection import FAILED
from .helper import Helper
from .wire import decode

__all__ = ["Job", "JobError", "Worker"]

Done = Callable[[Any], None]
Progress = Callable[[Mapping[str, Any]], None]

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
        self._child: Helper | None = None
        self._closing: list[Helper] = []
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
        """Id of the process that was started, in Slicer the launcher's; None if none runs."""
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
            self._child = Helper(self._folder, self.log, self._python, self._environment)
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
            message = f"The helper process ended ({child.how_it_ended}) before it had answered. {child.last_words}"
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
