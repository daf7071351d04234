"""What a training does, kept in a file: the child process writes it, the server reads it, and both may be killed.

Progress comes many times a second and the disk need not hear of each; a change of phase and the first step are always
written. A run whose process is gone without having said how it ended is reported as interrupted, never as running.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from lib.paths import utc_now
from rep3d.json_file import JsonFile, json_object

__all__ = ["ALIVE", "FINISHED_PHASES", "TrainStatus", "process_mark", "read_status", "status_file"]

FINISHED_PHASES = frozenset({"done", "error", "stopped", "interrupted"})
ALIVE = frozenset({"SUBMITTED", "RUNNING"})
_POINTS = 200  # of a curve, at most


class TrainStatus:
    """The record of one run.

    Args:
        path: the file.
        interval: seconds between two writes of mere progress.
        clock: monotonic time in seconds.
        process: whose run it is, see :func:`process_mark`; None before there is a process.
    """

    def __init__(
        self,
        path: Path,
        interval: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        process: Mapping[str, float] | None = None,
    ) -> None:
        self._file = status_file(path)
        self._interval = interval
        self._clock = clock
        self._written_at: float | None = None
        self._guard = threading.Lock()  # the watch over the server writes from a thread of its own
        self._curves: dict[str, _Curve] = {"losses": _Curve(), "validations": _Curve()}
        self._fields: dict[str, Any] = {
            "phase": "starting",
            "iteration": 0,
            "iterations": 0,
            "epoch": 0,
            "epochs": 0,
            "loss": None,
            "validation": None,
            "best": None,
            "eta_seconds": None,
            "elapsed_seconds": 0.0,
            "device": None,
            "memory_mb": None,
            "resumed_from": None,
            "started": utc_now(),
            "requested": None,
            "steps_expected": None,
            "earlier": [],
            "forecast": None,
            "resolution": None,
            "shortfall": None,
            "stage": None,
            "updated": None,
            "version": None,
            "version_made": None,
            "decision": None,
            "cases": 0,
            "validation_cases": 0,
            "validation_kind": None,
            "head": None,
            "set_aside": None,
            "found": 0,
            "skipped": {},
            "process": dict(process) if process else None,
            "error": None,
        }

    def update(self, changes: Mapping[str, Any]) -> None:
        """Record changes; they reach the disk at once with a new phase and the first step, else at most once per
        interval."""
        with self._guard:
            urgent = changes.get("phase", self._fields["phase"]) != self._fields["phase"]
            urgent |= not self._fields["iteration"] and changes.get("iteration", 0) > 0
            self._fields.update(changes)
            self._fields.update({name: curve.points for name, curve in self._curves.items()})
            now = self._clock()
            if urgent or self._written_at is None or now - self._written_at >= self._interval:
                self._fields["updated"] = utc_now()
                self._file.write(self._fields)
                self._written_at = now

    def progress(self, changes: Mapping[str, Any]) -> None:
        """As :meth:`update`, with a point more on the curves of loss and validation Dice."""
        iteration, loss, dice = changes["iteration"], changes["loss"], changes["validation"]
        if self._fields["stage"] not in (None, changes.get("stage")):  # the steps are counted anew
            self._curves = {name: _Curve() for name in self._curves}
        if loss is not None:
            self._curves["losses"].add(iteration, loss)
        if dice and dice != self._fields["validation"]:
            self._curves["validations"].add(iteration, sum(dice.values()) / len(dice))
        self.update(changes)

    def take_up(self, earlier: Mapping[str, Any], iteration: int) -> None:
        """Go on with the curves of an interrupted run, up to the step at which it is resumed."""
        for name, curve in self._curves.items():
            for point in earlier.get(name, []):
                if point[0] <= iteration:
                    curve.add(point[0], point[1])


class _Curve:
    """Points of a curve, evenly thinned where there would be too many."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []
        self._stride = 1

    def add(self, iteration: int, value: float) -> None:
        if self.points and iteration - self.points[-1][0] < self._stride:
            return
        self.points.append((iteration, round(value, 5)))
        if len(self.points) >= _POINTS:
            self.points = self.points[::2]
            self._stride = max(1, self.points[1][0] - self.points[0][0])


def status_file(path: Path) -> JsonFile[dict[str, Any]]:
    """Return what the last training does or did, as :class:`TrainStatus` writes it; empty where there was none."""
    return JsonFile(path, _parsed, "what the last training did; the versions that it made are there", dict, True)


def _parsed(content: Any) -> dict[str, Any]:
    status = json_object(content, phase=str, iteration=int, iterations=int)
    for curve in ("losses", "validations"):
        status[curve] = [(int(step), float(value)) for step, value in status.get(curve, [])]
    return status


def process_mark() -> dict[str, float]:
    """Return what tells this process from others, also from a later one of the same number."""
    return {"pid": os.getpid(), "created": psutil.Process().create_time()}


def _runs(process: Mapping[str, float]) -> bool:
    try:
        known = psutil.Process(int(process["pid"]))
        return known.create_time() == process["created"] and known.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_status(path: Path, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the last run does or did.

    Args:
        path: the file that :class:`TrainStatus` writes.
        tasks: this server's trainings of the model as MONAI Label keeps them, oldest first.

    Returns:
        The fields of the file, with ``phase`` corrected where the process is gone; empty where nothing was ever
        trained.
    """
    status = status_file(path).read()
    if not status or status.get("phase") in FINISHED_PHASES:
        return status
    ended = {**status, "phase": "interrupted", "eta_seconds": None}
    last = tasks[-1] if tasks else None
    if last is None:
        return {**ended, "error": "The server ended while this training ran."}
    if last["status"] == "STOPPED":
        return {**ended, "phase": "stopped", "error": "Stopped on request."}
    process = status.get("process")
    if last["status"] in ALIVE and (process is None or _runs(process)):
        return status
    lines = list(last.get("details") or [])
    words = f"The training process ended without a result. Its last line: {lines[-1] if lines else 'none'}"
    # Before it said that it had begun there was nothing to interrupt: it could not start.
    return {**ended, "phase": "interrupted" if process else "error", "error": words}
