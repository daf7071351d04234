"""The helper process of the module: a program that does what would block Slicer.

Started by `jobs.Worker` as `python main.py --events FILE`. It reads jobs, one JSON object a line, from standard
input, does up to six at once, and appends what it has to say to FILE, one JSON object a line. It ends when its standard
input does: with Slicer, at the latest. Threads are safe here, unlike in Slicer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Answers", "Crew", "main"]

AT_ONCE = 6
_FILE_LIMIT = 1 << 22
_GOODBYE_SECONDS = 2.0
_NO_ACCIDENT = 12  # characters of a key that stands nowhere by accident


class Answers:
    """The file of answers. No API key is written, whatever an answer or an error says.

    A short key may also stand in a path or a name by accident, which must arrive as it is: such a key is looked for in
    words only.

    Args:
        file: It, made if it does not exist.
        limit: Bytes after which another file is begun, so that a long day fills no disk; the reader removes the old.
    """

    def __init__(self, file: Path, limit: int = _FILE_LIMIT) -> None:
        self._file, self._limit = file, limit
        self._lock = threading.Lock()
        self._secrets: frozenset[str] = frozenset()  # replaced, never changed: another thread may be looking through
        self._stream = self._open()

    def _open(self) -> Any:
        return os.fdopen(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def keep_secret(self, text: str) -> None:
        """Never write this text."""
        if text:
            with self._lock:
                self._secrets = self._secrets | {text, json.dumps(text)[1:-1]}

    def hide(self, text: str, shortest: int = 1) -> str:
        """Return a text without the secrets of that length or more."""
        for secret in self._secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, "***")
        return text

    def _without_secrets(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._without_secrets(part) for key, part in value.items()}
        return self.hide(value) if isinstance(value, str) else value

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an answer; if that fails, nobody can be told anything any more, and the process ends."""
        words = {
            name: self._without_secrets(event[name])
            for name in event
            if name == "failed" or isinstance(event[name], str)
        }
        line = json.dumps({**event, **words}, allow_nan=False)
        with self._lock:
            try:
                self._append(self.hide(line, _NO_ACCIDENT))
                if self._stream.tell() > self._limit:
                    following = self._file.with_name(f"answers-{uuid.uuid4().hex}.jsonl")
                    old, self._file = self._stream, following
                    self._stream = self._open()
                    old.write(json.dumps({"next": following.name}).encode() + b"\n")
                    old.close()
            except OSError as error:
                print(f"Cannot write answers to '{self._file}': {error}.", file=sys.stderr, flush=True)
                os._exit(3)

    def _append(self, line: str) -> None:
        self._stream.write(line.encode() + b"\n")
        self._stream.flush()

    def remove(self) -> None:
        """Remove the file, when nobody will read it."""
        with self._lock, contextlib.suppress(OSError):
            self._stream.close()
            self._file.unlink()


class Crew:
    """Does jobs in threads: so many at once, those of one lane one after the other.

    A job that nobody wants any more makes room at once, although its thread may still wait for a server.

    Args:
        run: Does a job; called in a thread of its own.
        lane: Name of a job's lane, "" if it is in none.
        at_once: How many jobs at once.
    """

    def __init__(self, run: Callable[[Any], None], lane: Callable[[Any], str], at_once: int = AT_ONCE) -> None:
        self._run, self._lane, self._at_once = run, lane, at_once
        self._lock = threading.Lock()
        self._waiting: deque[tuple[int, Any]] = deque()
        self._running: dict[int, Any] = {}
        self._left: set[int] = set()

    def add(self, number: int, job: Any) -> None:
        """Have a job done when its turn comes."""
        with self._lock:
            self._waiting.append((number, job))
            self._start_what_can()

    def cancel(self, number: int) -> Any:
        """Forget a job that waits; return one that runs, which goes on until it notices, None if there is none."""
        with self._lock:
            self._waiting = deque(item for item in self._waiting if item[0] != number)
            job = self._running.get(number)
            if job is not None and not self._lane(job):
                self._left.add(number)
            self._start_what_can()
            return job

    def running(self) -> list[Any]:
        """Return the jobs that run."""
        with self._lock:
            return list(self._running.values())

    def has_lanes(self) -> bool:
        """Return whether a job that is in a lane runs or waits."""
        with self._lock:
            return any(self._lane(job) for job in (*self._running.values(), *(job for _, job in self._waiting)))

    def _start_what_can(self) -> None:
        busy = {self._lane(job) for job in self._running.values()} - {""}
        still: deque[tuple[int, Any]] = deque()
        for number, job in self._waiting:
            lane = self._lane(job)
            if len(self._running) - len(self._left) < self._at_once and lane not in busy:
                self._running[number] = job
                threading.Thread(target=self._do, args=(number, job), daemon=True).start()
            else:
                still.append((number, job))
            if lane:
                busy.add(lane)  # whoever waits in a lane goes before those behind
        self._waiting = still

    def _do(self, number: int, job: Any) -> None:
        try:
            self._run(job)
        finally:
            with self._lock:
                del self._running[number]
                self._left.discard(number)
                self._start_what_can()


def main(arguments: list[str] | None = None) -> None:
    """Serve until standard input ends."""
    here = Path(__file__).resolve().parent
    # The folder of a script comes first in the search path; the names in it are not meant to be found there.
    sys.path[:] = [str(here.parents[1]), *(entry for entry in sys.path if Path(entry or ".").resolve() != here)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", required=True, type=Path)
    events: Path = parser.parse_args(arguments).events
    answers = Answers(events)
    answers.write({"ready": os.getpid()})
    from Rep3DLabelLib.worker.ops import OPS, Task, failure_of  # slow to import: the reader is told first
    from Rep3DLabelLib.worker.wire import encode

    def run(task: Task) -> None:
        try:
            event: dict[str, Any] = {"id": task.id, "done": encode(OPS[task.op].run(task))}
            json.dumps(event, allow_nan=False)
        except Exception as error:
            failure, trace = failure_of(error)
            if trace:
                print(answers.hide(traceback.format_exc()), file=sys.stderr, flush=True)
            event = {"id": task.id, "failed": failure}
        answers.write(event)

    crew = Crew(run, lambda task: OPS[task.op].lane)
    for line in sys.stdin.buffer:
        command = json.loads(line)
        if "cancel" in command:
            running = crew.cancel(command["cancel"])
            if running is not None:
                running.cancel()
            continue
        server = command.get("server") or {}
        answers.keep_secret(str(server.get("api_key") or "").strip())
        if command["op"] not in OPS:
            message = f"Expected an operation among {sorted(OPS)}, got '{command['op']}'."
            answers.write({"id": command["id"], "failed": {"kind": "InternalError", "message": message}})
            continue
        number, op, args = command["id"], command["op"], command.get("args") or {}
        crew.add(number, Task(number, op, server, args, answers.write, events.parent))
    _say_goodbye(crew)
    answers.remove()
    os._exit(0)  # whatever threads still wait for is not wanted any more


def _say_goodbye(crew: Crew) -> None:
    """Tell servers that segmentations are not wanted any more, and end what changes something: a moment at most."""
    end = time.monotonic() + _GOODBYE_SECONDS
    cancelling = [thread for job in crew.running() for thread in job.cancel()]
    for thread in cancelling:
        thread.join(max(0.0, end - time.monotonic()))
    while crew.has_lanes() and time.monotonic() < end:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
