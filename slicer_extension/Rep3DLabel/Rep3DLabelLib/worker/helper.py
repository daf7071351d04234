"""One helper process: its pipe, its file of answers, what it said, and its end.

In Slicer it is two processes: `PythonSlicer` is a launcher that starts the Python, passes no signal on, and gives a
crash no exit code of its own. So the helper ends by the end of its input, which reaches the Python wherever the
launcher is; by force only with all that the launcher started; and why it crashed is read in its log.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..processes import Child

__all__ = ["Helper"]

_SCRIPT = Path(__file__).resolve().with_name("main.py")
_READ_AT_ONCE = 1 << 22  # bytes of answers taken in one poll
_WRITE_AT_ONCE = 1 << 15
_LOG_LIMIT = 1 << 22
_LOG_TAIL = 1 << 16  # a crash is followed by what each thread was doing
_PATIENCE = 3.0  # seconds, when Slicer ends: the helper says goodbye for two
_CRASH = re.compile(r"(Fatal Python error|Windows fatal exception): .*")
_OF_THE_LAUNCHER = re.compile(r"exit abnormally - Report the problem")


class Helper:
    """A helper process.

    Args:
        folder: For its answers.
        log: Receives what it says about its own mistakes.
        python: The Python, or its launcher.
        environment: Of the process, None for that of this one.

    Raises:
        OSError, ValueError: It cannot be started.
    """

    _all: set[Helper] = set()
    _folders: set[Path] = set()

    def __init__(self, folder: Path, log: Path, python: str, environment: Mapping[str, str] | None) -> None:
        self._file = folder / f"answers-{uuid.uuid4().hex}.jsonl"
        self._file.touch(0o600)
        self._log = log
        with contextlib.suppress(OSError):
            if log.stat().st_size > _LOG_LIMIT:
                log.unlink()
        command = [python, str(_SCRIPT), "--events", str(self._file)]
        variables = {**(os.environ if environment is None else environment), "PYTHONFAULTHANDLER": "1"}
        try:
            with log.open("ab") as output:
                self._log_start = output.tell()
                self._child = Child(command, variables, None, output, fed=True)
        except BaseException:
            self._file.unlink()
            raise
        assert self._child.input is not None
        self._pipe = self._child.input
        if os.name == "posix":
            os.set_blocking(self._pipe.fileno(), False)
        self._ready = False
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._offset = 0
        self._rest = b""
        self._all.add(self)

    @property
    def pid(self) -> int:
        """Id of the process that was started, the launcher's where there is one."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._child.poll() is not None

    @property
    def how_it_ended(self) -> str:
        """How it ended, in a word that says little: a launcher makes code 1 of every crash."""
        code = self._child.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"code {code}"

    @property
    def last_words(self) -> str:
        """What it said at last, in a sentence."""
        said = _last_line(self._log, self._log_start)
        return (
            f"It last said: {said}" if said else "It wrote nothing; the system may have ended it, for lack of memory."
        )

    @property
    def is_read(self) -> bool:
        """Whether all that it has written is read."""
        with contextlib.suppress(OSError):
            return self._file.stat().st_size <= self._offset
        return True

    def send(self, number: int, line: bytes) -> None:
        """Send a job when it reads."""
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
                with contextlib.suppress(OSError):  # on Windows, the helper may not have closed it yet
                    self._file.unlink()
                self._file = self._file.with_name(event["next"])
                self._offset, self._rest = 0, b""
            else:
                found.append(event)
        return found

    def hang_up(self) -> None:
        """End its input: it ends what it is at, and itself."""
        with contextlib.suppress(OSError):
            self._pipe.close()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        with contextlib.suppress(OSError):
            self._child.kill()

    def clean_up(self) -> None:
        """Leave nothing of it, after it has ended."""
        self.hang_up()
        with contextlib.suppress(OSError):
            self._file.unlink()
        self._all.discard(self)

    @classmethod
    def end_all(cls) -> None:
        """End those that still run, when Python ends: in order if they can, else by force; and remove their folders."""
        for end in (Helper.hang_up, Helper.kill):
            for helper in cls._all:
                end(helper)
            deadline = time.monotonic() + _PATIENCE
            while not all(helper.ended for helper in cls._all) and time.monotonic() < deadline:
                time.sleep(0.01)
        for helper in tuple(cls._all):
            helper.clean_up()
        for folder in cls._folders:
            shutil.rmtree(folder, ignore_errors=True)

    @classmethod
    def remove_folder(cls, folder: Path) -> None:
        """Remove a folder with files of helpers that are ending; what Windows keeps till then, when Python ends."""
        shutil.rmtree(folder, ignore_errors=True)
        cls._folders.add(folder)


atexit.register(Helper.end_all)


def _last_line(log: Path, start: int) -> str:
    """Return what a log says of a crash, else its last line, from a place in it on; "" if there is none."""
    try:
        with log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(start, end - _LOG_TAIL))
            lines = [line.strip()[:500] for line in stream.read().decode("utf-8", "replace").split("\n")]
    except OSError:
        return ""
    own = [line for line in reversed(lines) if line and not _OF_THE_LAUNCHER.search(line)]
    return next((line for line in own if _CRASH.match(line)), own[0] if own else "")
