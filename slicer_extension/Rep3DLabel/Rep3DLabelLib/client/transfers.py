"""Watching a transfer and stopping it: what a download or an upload tells, and is asked, at each block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from ..errors import Cancelled

__all__ = ["Progress", "Stop", "Watch"]

Progress = Callable[[int, Optional[int]], None]  # bytes done, bytes in all (None if not announced)
Stop = Callable[[], bool]  # whether the transfer is no longer wanted; may be answered by another thread


@dataclass(frozen=True)
class Watch:
    """Who watches a transfer.

    Attributes:
        progress: Called after each block.
        stop: Asked before each block.
    """

    progress: Progress | None = None
    stop: Stop | None = None

    def ask(self) -> None:
        """Ask whether to go on.

        Raises:
            Cancelled: The transfer is no longer wanted.
        """
        if self.stop is not None and self.stop():
            raise Cancelled("The transfer was stopped on request.")

    def tell(self, done: int, total: int | None) -> None:
        """Tell how far the transfer is, in bytes."""
        if self.progress is not None:
            self.progress(done, total)
