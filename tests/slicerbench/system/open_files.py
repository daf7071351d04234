"""Files as on Windows: one that is open in any process cannot be removed, and so neither can its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest


@contextmanager
def files_as_on_windows() -> Iterator[None]:
    """Inside it, removing a file that this process or one below it has open raises PermissionError."""
    unlink = os.unlink

    def careful(path, *, dir_fd: int | None = None) -> None:
        folder = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
        if str((folder / path).resolve()) in _open_files():
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        unlink(path, dir_fd=dir_fd)

    def careful_path(path: Path, missing_ok: bool = False) -> None:
        with suppress(*([FileNotFoundError] if missing_ok else [])):
            careful(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "unlink", careful)
        patch.setattr(Path, "unlink", careful_path)
        yield


def _open_files() -> set[str]:
    found = set()
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        with suppress(psutil.Error):
            found |= {file.path for file in process.open_files()}
    return found
