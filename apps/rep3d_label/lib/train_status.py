"""What a training does, kept in a file: the child process writes it, the server reads it, and both may be killed.

Progress comes many times a second and the disk need not hear of each; a change of phase is always written. A run whose
process is gone without having said how it ended is reported as ended, never as running.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.workspace import read_json, utc_now, write_text

__all__ = ["ALIVE", "FINISHED_PHASES", "TrainStatus", "read_status"]

FINISHED_PHASES = frozenset({"done", "error", "stopped"})
ALIVE = frozenset({"SUBMITTED", "RUNNING"})


class TrainStatus:
    """The record of one run.

    Args:
        path: the file.
        interval: seconds between two writes of mere progress.
        clock: monotonic time in seconds.
    """

    def __init__(self, path: Path, interval: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._interval = interval
        self._clock = clock
        self._written_at: float | None = None
        self._fields: dict[str, Any] = {
            "phase": "starting",
            "iteration": 0,
            "iterations": 0,
            "loss": None,
            "eta_seconds": None,
            "device": None,
            "started": utc_now(),
            "updated": None,
            "version": None,
            "cases": 0,
            "skipped": {},
            "error": None,
        }

    def update(self, changes: Mapping[str, Any]) -> None:
        """Records changes; they reach the disk at once if the phase changes, else at most once per interval."""
        new_phase = changes.get("phase", self._fields["phase"]) != self._fields["phase"]
        self._fields.update(changes)
        now = self._clock()
        if new_phase or self._written_at is None or now - self._written_at >= self._interval:
            self._fields["updated"] = utc_now()
            write_text(self._path, json.dumps(self._fields, indent=2))
            self._written_at = now


def read_status(path: Path, tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the last run does or did.

    Args:
        path: the file that :class:`TrainStatus` writes.
        tasks: this server's training tasks as MONAI Label keeps them, oldest first.

    Returns:
        The fields of the file, with ``phase`` corrected where the process is gone; empty where nothing was ever
        trained.
    """
    status = read_json(path)
    if not status or status.get("phase") in FINISHED_PHASES:
        return status
    last = tasks[-1] if tasks else None
    if last is None:
        return {**status, "phase": "stopped", "eta_seconds": None, "error": "the server ended while this training ran"}
    if last["status"] in ALIVE:
        return status
    if last["status"] == "STOPPED":
        return {**status, "phase": "stopped", "eta_seconds": None, "error": "stopped on request"}
    lines = list(last.get("details") or [])
    words = f"the training process ended without a result; its last line: {lines[-1] if lines else 'none'}"
    return {**status, "phase": "error", "eta_seconds": None, "error": words}
