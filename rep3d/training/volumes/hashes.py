"""What files contain, by their hash, read again only where a file changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rep3d.files import file_hash, file_state

__all__ = ["FileHashes"]


class FileHashes:
    """SHA-256 of files, remembered with the state that they had.

    Args:
        folder: paths are remembered as seen from here, so that it can be moved together with the files.
        known: what :attr:`known` was before.

    Attributes:
        known: path to state and hash, as plain JSON types.
    """

    def __init__(self, folder: Path, known: Mapping[str, Any]) -> None:
        self._folder = folder
        self.known = {path: list(entry) for path, entry in known.items()}

    def name(self, file: Path) -> str:
        """Return the path of a file as it is remembered."""
        try:
            return Path(os.path.relpath(file, self._folder)).as_posix()
        except ValueError:  # another drive of Windows
            return str(Path(file).absolute())

    def of(self, name: str) -> str | None:
        """Return the hash of a file by its remembered path; None where there is none.

        Raises:
            OSError: if it cannot be read.
        """
        file = self._folder / name
        state = file_state(file)
        if state is None:
            self.known.pop(name, None)
            return None
        known = self.known.get(name)
        if known is None or known[:3] != list(state):
            known = [*state, file_hash(file)]
            if file_state(file) != state:  # it is being written: what was read is no whole
                return known[3]
            self.known[name] = known
        return known[3]

    def same(self, name: str, sha256: str | None) -> bool:
        """Return whether a file is there, can be read, and has this content."""
        try:
            return sha256 is not None and self.of(name) == sha256
        except OSError:
            return False
