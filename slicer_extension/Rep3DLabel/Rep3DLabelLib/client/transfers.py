"""Watching a transfer and stopping it: what a download or an upload tells, and is asked, at each block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import Cancelled, LocalProblem

__all__ = ["FileBody", "Progress", "Stop", "Watch"]

_BLOCK = 1 << 18

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


class FileBody:
    """A file as the body of an upload, read from disk while it is sent.

    Args:
        path: The file.
        headers: What HTTP says of it.
        watch: Who watches the upload. It can be stopped until its last block is on the way: from then on the server
            may have carried it out.

    Raises:
        LocalProblem: The file cannot be read.
    """

    def __init__(self, path: Path, headers: Mapping[str, str], watch: Watch) -> None:
        self._watch, self.headers = watch, headers
        try:
            self._file = path.open("rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise LocalProblem(f"Cannot read '{path}': {error.strerror or error}. Check the file.") from error

    def __len__(self) -> int:
        """Return bytes of the body, which become the Content-Length header."""
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        """Yield the body in blocks; requests takes an object with this method for a stream."""
        done = 0
        while done < self._size:
            self._watch.ask()
            block = self._file.read(_BLOCK)
            if not block:
                raise LocalProblem(f"'{self._file.name}' became shorter while it was sent. Try again.")
            done += len(block)
            yield block
            self._watch.tell(done, self._size)

    def __enter__(self) -> FileBody:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
