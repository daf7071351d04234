"""Keeping the server's log readable: it is rotated, so whoever could fill it could also make what it said disappear."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import LRUCache

__all__ = ["Calm", "calm_down"]

_AT_ONCE = 200  # lines of one place in the code; of other packages, such as the framework's own complaints, fewer
_AT_ONCE_OTHERS = 20
_A_MINUTE = 6.0  # after that
_PLACES = 1000


@dataclass(frozen=True)
class _Place:
    left: float
    time: float
    dropped: int = 0


class Calm(logging.Filter):
    """Lets a place in the code say something some hundred times at once, then once in ten seconds, with a count.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._places: LRUCache[tuple[str, int], _Place] = LRUCache(_PLACES)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written; asked again for the same one by another handler, say the same."""
        known: bool | None = getattr(record, "rep3d_written", None)
        if known is None:
            known = record.rep3d_written = self._is_due(record)
        return known

    def _is_due(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("task_"):  # what a training prints comes from one place
            return True
        key, now = (record.pathname, record.lineno), self._clock()
        most = _AT_ONCE if record.name.startswith(("lib.", "rep3d.", "root")) else _AT_ONCE_OTHERS
        place = self._places.get(key) or _Place(most, now)
        left = min(most, place.left + (now - place.time) * _A_MINUTE / 60)
        if left < 1:
            self._places[key] = _Place(left, now, place.dropped + 1)
            return False
        if place.dropped:
            record.msg, record.args = f"{record.getMessage()} (and {place.dropped} more from here)", None
        self._places[key] = _Place(left - 1, now)
        return True


def calm_down() -> None:
    """Put one filter before all handlers of the log; those of MONAI Label keep at most 11 files of 10 MB."""
    logging.raiseExceptions = False  # where the log's own disk is full, a stack for each line helps nobody
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="watchdog")  # they name all that it watches
    calm = Calm()
    loggers = [logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict)]
    for handler in {handler for logger in loggers for handler in logger.handlers}:
        handler.addFilter(calm)
