"""How long the GUI stood still: the longest Python callback, and the longest turn of the event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from PySide6 import QtCore, QtWidgets

from tests.slicerbench import callbacks

_SLICE_MS = 5  # a turn of the event loop without a long callback ends after about this long
_meters: list[StallMeter] = []


class StallMeter:
    """Measures while it is in use by `stall_meter`.

    Attributes:
        runs: the callbacks that ran: functions connected to signals and timers.
        longest_turn: the longest turn of the event loop in `driver.wait` and `driver.spin`, in seconds. It also counts
            what is no callback: event handlers, painting, observers of VTK; and up to 5 ms of waiting.
    """

    def __init__(self) -> None:
        self.runs: list[callbacks.Run] = []
        self.longest_turn = 0.0

    @property
    def longest(self) -> float:
        """Seconds of the longest callback, 0 where none ran."""
        return max((run.seconds for run in self.runs), default=0.0)

    @property
    def where(self) -> str:
        """Name of the longest callback, "" where none ran."""
        return max(self.runs, key=lambda run: run.seconds).name if self.runs else ""

    def check(self, seconds: float) -> None:
        """Raise AssertionError, naming the slowest, where a callback or a turn took longer than `seconds`."""
        slowest = sorted(self.runs, key=lambda run: -run.seconds)[:5]
        report = ", ".join(f"{run.name} {run.seconds * 1000:.0f} ms" for run in slowest)
        assert self.longest <= seconds, (
            f"the GUI stood still for {self.longest * 1000:.0f} ms; the slowest callbacks: {report}"
        )
        assert self.longest_turn <= seconds + _SLICE_MS / 1000, (
            f"one turn of the event loop took {self.longest_turn * 1000:.0f} ms; the slowest callbacks: {report}"
        )


@contextmanager
def stall_meter() -> Iterator[StallMeter]:
    """Measure how long the GUI stands still inside it."""
    meter = StallMeter()
    callbacks.listen(meter.runs.append)
    _meters.append(meter)
    try:
        yield meter
    finally:
        _meters.remove(meter)
        callbacks.unlisten(meter.runs.append)


def process_events() -> None:
    """One turn of the event loop, measured."""
    start = time.perf_counter()
    QtWidgets.QApplication.processEvents(QtCore.QEventLoop.ProcessEventsFlag.AllEvents, _SLICE_MS)
    QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)
    seconds = time.perf_counter() - start
    for meter in _meters:
        meter.longest_turn = max(meter.longest_turn, seconds)
