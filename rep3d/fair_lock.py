"""A lock that is given in the order in which it was asked for.

Python's own lock may be taken again and again by the thread that has just released it. Where two requests take turns
window by window, that would let the large image finish before the small one gets its first turn.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType

import torch

__all__ = ["FairLock", "device_turn"]


class FairLock:
    """First come, first served. Not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> FairLock:
        with self._guard:
            if not self._held:
                self._held = True
                return self
            turn = threading.Event()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:  # Ctrl-C while waiting: the turn must not be given to a thread that is gone
            with self._guard:
                if turn in self._waiting:
                    self._waiting.remove(turn)
                    raise
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()  # stays held: it goes over to the next in line
            else:
                self._held = False


_turns: dict[str, FairLock] = {}
_turns_guard = threading.Lock()


def device_turn(device: torch.device) -> FairLock:
    """Return the lock of a device: whoever computes a window on it, with whichever model, takes it for that window.

    So the memory in use is that of one forward pass, however many requests and models there are.
    """
    with _turns_guard:
        return _turns.setdefault(str(device), FairLock())
