"""Files that are moved all together, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from rep3d.files import copy_whole, make_folder, sync_folder

__all__ = ["move_together"]


def move_together(moves: Iterable[tuple[Path, Path]]) -> None:
    """Move files or folders; where one cannot be moved, those before it are put back.

    Of a link to a file elsewhere, a copy is moved, and that file stays where it is.

    Args:
        moves: where each is, and where it is to be.
    """
    done: list[tuple[Path, Path]] = []
    try:
        for source, target in moves:
            make_folder(target.parent)
            if source.is_symlink():
                copy_whole(source, target)
            else:
                shutil.move(source, target)
            done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            if not source.is_symlink():
                shutil.move(target, source)
        raise
    for source, _ in done:
        if source.is_symlink():
            source.unlink()
    for folder in {place.parent for move in done for place in move}:
        sync_folder(folder)
