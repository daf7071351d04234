"""A process that waits for the next training, so that this begins without the seconds that imports take.

MONAI Label starts a process for each training, keeps it and reads what it says. All that stays as it is; only where it
would start one, it is given the one that waits, which then does what the other would have done. Where none waits, is
not ready or has been killed, where memory is short, or where the training's environment is another (some of the GPUs
alone are to be seen by it), the training starts in the ordinary way.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from monailabel.utils.async_tasks import utils

from lib.training.standby_process import CHILD_MODULE, READY, TAKEN
from rep3d.memory import free_and_total

__all__ = ["Standby"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 2.0
_AGAIN_SECONDS = 60.0  # after it could not be started
_ANSWER_SECONDS = 5.0  # by which it must have taken up a training: it may be stopped, or swapped out
_BEGIN_BYTES = 4 * 2**30  # of free memory, with which one is started; it takes a tenth of that
_KEEP_BYTES = 2 * 2**30  # below, one that waits is ended
_START = (sys.executable, "-m", CHILD_MODULE, "-m", "train")  # how MONAI Label starts a training
_ANEW = frozenset({"MASTER_ADDR", "MASTER_PORT"})  # of its environment, what it makes anew for each


class Standby:
    """Keeps one process that waits, whenever no training runs.

    Args:
        training: whether a training runs that the next one has to wait for.
        free: the bytes of memory that can still be taken.
    """

    def __init__(self, training: Callable[[], bool], free: Callable[[], int] = lambda: free_and_total()[0]) -> None:
        self._training = training
        self._free = free
        self._guard = threading.Lock()
        self._ready: subprocess.Popen[str] | None = None
        self._environment: dict[str, str] = {}
        self._ordinary: Any = subprocess

    def start(self, seconds: float = _LOOK_SECONDS) -> None:
        """Begin to keep one, until the server ends; with that its input is closed, and it ends.

        Args:
            seconds: between two looks.
        """
        self._ordinary = utils.subprocess  # its name in the one module that starts trainings
        utils.subprocess = _Subprocess(self._ordinary, self._popen)
        threading.Thread(target=self._watch, args=(seconds,), name="standby", daemon=True).start()

    def _watch(self, seconds: float) -> None:
        never = threading.Event()
        while not never.wait(seconds):
            try:
                self._look()
            except Exception as error:  # trainings start without it, too
                logger.warning("no process waits for the next training: %s", error)
                never.wait(_AGAIN_SECONDS)

    def _look(self) -> None:
        """Start one where one is wanted, and end it where its memory is."""
        free = self._free()
        with self._guard:
            waiting = self._ready
            if waiting is not None and (waiting.poll() is not None or free < _KEEP_BYTES):
                self._ready = None
                _end(waiting)
        if waiting is None and free >= _BEGIN_BYTES and not self._training():
            self._begin()

    def _begin(self) -> None:
        environment = {**os.environ, "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false"}
        process = self._ordinary.Popen(
            [sys.executable, "-m", "lib.training.standby_process", "train"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            env=environment,
        )
        said = ""
        while (line := process.stdout.readline()) and line.strip() != READY:
            said = line.strip() or said
        if not line:
            if process.wait() > 0:  # else somebody ended it
                raise RuntimeError(f"it could not import what a training needs: {said}")
            return
        with self._guard:
            self._ready, self._environment = process, environment
        logger.info("a process waits for the next training: %s", process.pid)

    def _popen(self, command: Sequence[str], **options: Any) -> Any:
        """Start a process for MONAI Label: the one that waits, where it is what was asked for."""
        wanted = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "universal_newlines": True}
        environment = options.get("env") or {}
        if tuple(command[: len(_START)]) == _START and options == {**wanted, "env": environment}:
            process = self._take(command[len(_START) - 2 :], environment)
            if process is not None:
                return process
        return self._ordinary.Popen(command, **options)

    def _take(self, arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str] | None:
        with self._guard:
            process = self._ready
            if process is None or _settled(environment) != _settled(self._environment):
                return None
            self._ready = None
        anew = {name: environment[name] for name in _ANEW & environment.keys()}
        late = threading.Timer(_ANSWER_SECONDS, process.kill)
        late.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps({"arguments": list(arguments), "environment": anew}) + "\n")
            process.stdin.close()
            taken = process.stdout.readline().strip() == TAKEN
        except Exception:  # it was killed, or whatever is wrong with it: the training must start
            taken = False
        finally:
            late.cancel()
        if not taken:
            _end(process)
        return process if taken else None


class _Subprocess(ModuleType):
    """The module ``subprocess`` with another ``Popen``."""

    def __init__(self, ordinary: Any, popen: Callable[..., Any]) -> None:
        super().__init__("subprocess")
        self._ordinary = ordinary
        self.Popen = popen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ordinary, name)


def _settled(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _ANEW}


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
