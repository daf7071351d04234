"""Looks at the place of an output before the work: what cannot be written, or would overwrite an input, is refused.

Every command, and every function that writes a file under a name of the user's, asks here first. The work may take
hours, and the file in the way may be a patient's only scan.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rep3d.errors import DiskFullError, OutputError, Rep3DError, machine_error

__all__ = [
    "check_output",
    "check_output_folder",
    "refuse_replacing",
    "remove_unused_folders",
    "require_room",
    "same_file",
]


_made: list[Path] = []  # folders, each after the one that it lies in


def check_output(
    path: Path | str,
    suffixes: tuple[str, ...],
    inputs: Iterable[Path | str | None] = (),
    *,
    option: str = "",
    room: int = 0,
    make_folder: bool = False,
) -> Path:
    """Make sure that a file can be written, and is none of the files that are read.

    Args:
        path: the file to write; one that is there may be replaced.
        suffixes: what its name may end in, in lower case.
        inputs: what is read for it; None for an input that was not given.
        option: how the user gave it, for the message; empty where it has no name.
        room: bytes that it takes at least.
        make_folder: make its folder where that is missing.

    Returns:
        The path.

    Raises:
        OutputError: saying what is wrong, and what to do.
        DiskFullError: if there is not so much room on the disk.
    """
    path = Path(path)
    told = f"{option}: {path}" if option else str(path)
    if not path.name.lower().endswith(suffixes) or path.name.lower() in suffixes:
        raise OutputError(f"{told} cannot be written: the file name must end in {' or '.join(suffixes)}.")
    for source in inputs:
        if source is not None and same_file(path, source):
            raise OutputError(
                f"{told} is the same file as {source}, which is read and must not be overwritten. Give another name."
            )
    mode = _mode(path, told)
    if mode is not None and stat.S_ISDIR(mode):
        raise OutputError(f"{told} is a folder. Give the name of a file to write.")
    if mode is not None and stat.S_ISLNK(mode):  # to replace it would part it from the file that it stands for
        raise OutputError(f"{told} is a link to {os.readlink(path)}. Give the name of the file itself, or remove it.")
    if mode is not None and not (stat.S_ISREG(mode) and os.access(path, os.W_OK)):
        raise OutputError(f"{told} may not be replaced: it is protected, or no ordinary file. Give another name.")
    _check_folder(path.parent, told, make_folder)
    require_room(path.parent, room, told)
    return path


def check_output_folder(
    folder: Path | str,
    names: Iterable[str] = (),
    inputs: Iterable[Path | str | None] = (),
    *,
    option: str = "--out",
    room: int = 0,
) -> Path:
    """Make a folder to write into, if need be, and make sure that files can be written there.

    Args:
        folder: the folder.
        names: the files to write into it.
        inputs: what is read for it.
        option: how the user gave the folder.
        room: bytes that the files take at least, together.

    Returns:
        The folder.

    Raises:
        OutputError: as :func:`check_output`; also if the folder is a file.
        DiskFullError: if there is not so much room on the disk.
    """
    folder = Path(folder)
    told = f"{option}: {folder}"
    _check_folder(folder, told, make=True)
    sources = list(inputs)
    for name in names:
        check_output(folder / name, (Path(name).suffix,), sources, option=option)
    require_room(folder, room, told)
    return folder


def refuse_replacing(files: Iterable[Path | None], why: str = "") -> None:
    """Refuse to write over what is there.

    Args:
        files: to be written; None for one that was not asked for.
        why: what else is to be said of one that is there, as a clause.

    Raises:
        OutputError: naming the first that is there.
    """
    for file in files:
        if file is not None and file.exists():
            raise OutputError(f"{file} is there already{why}. Give another name, or --replace to write over it.")


def require_room(folder: Path, room: int, told: str) -> None:
    """Refuse what the disk has no room for.

    Args:
        folder: where it will be.
        room: bytes that it takes at least.
        told: what is to be written, for the message.

    Raises:
        DiskFullError: with both sizes.
    """
    free = shutil.disk_usage(folder).free
    if room > free:
        raise DiskFullError(
            f"{told} cannot be written: it takes at least {room / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free on the "
            f"disk. Make room, or choose another disk."
        )


def remove_unused_folders() -> None:
    """Remove the folders that were made by the checks here and are still empty: the command was refused."""
    while _made:
        with suppress(OSError):  # something was written into it
            _made.pop().rmdir()


def same_file(one: Path | str, other: Path | str) -> bool:
    """Return whether two names stand for one file: through links, other spellings, another case where that is one."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # one of them is not there (yet)
        return os.path.realpath(one) == os.path.realpath(other)


def _mode(path: Path, told: str) -> int | None:
    """Return what is at a path, a link itself and not what it leads to; None where nothing is."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # the name is too long, or has a zero byte
        raise _refused(told, error) from error


def _check_folder(folder: Path, told: str, make: bool) -> None:
    """Make sure that a new file can be made in a folder, by making one: rights alone do not tell of read-only disks."""
    try:
        if make:
            new = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            _made.extend(each.absolute() for each in reversed(new))
        if not folder.is_dir():
            raise OutputError(f"{told} cannot be written: there is no folder {folder}. Make it, or give another one.")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise _refused(told, error) from error


def _refused(told: str, error: Exception) -> Rep3DError:
    if (full := machine_error(error)) is not None:
        return DiskFullError(f"{told} cannot be written. {full}")
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError(f"{told} cannot be written ({reason}). Choose another name or folder.")
