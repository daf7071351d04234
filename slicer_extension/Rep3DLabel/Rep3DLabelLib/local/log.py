"""The log of a process that is still writing it: new lines only, and the last ones of those that came."""

from __future__ import annotations

from collections import deque
from pathlib import Path

__all__ = ["LogReader"]

_AT_ONCE = 1 << 18  # bytes; more comes with the next call
_LONGEST = 1 << 14  # characters of a line that are kept
_KEPT = 2000


class LogReader:
    """Reads a log from where it stopped the last time.

    Args:
        path: The log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def read(self) -> list[str]:
        """Return the lines that are new and complete; [] if the log cannot be read now."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                block = stream.read(_AT_ONCE)
        except OSError:
            return []
        self._offset += len(block)
        *complete, rest = (self._rest + block).split(b"\n")
        self._rest = rest[-4 * _LONGEST :]
        lines = [line.decode("utf-8", "replace").rstrip("\r")[:_LONGEST] for line in complete]
        self._lines.extend(lines)
        return lines

    def last(self, count: int) -> list[str]:
        """Return the last lines that were read, at most so many; a line that is not complete yet is the last one."""
        rest = [self._rest.decode("utf-8", "replace")[:_LONGEST]] if self._rest else []
        return [*self._lines, *rest][-count:] if count > 0 else []
