"""Files that are written whole or not at all: a reader, or a crash, finds the old one or the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "PART_SUFFIX",
    "Stamp",
    "copy_whole",
    "file_hash",
    "file_stamp",
    "file_state",
    "known_hash",
    "leads_out",
    "link_whole",
    "make_folder",
    "sync_folder",
    "unpacked_sizes",
    "utc_now",
    "whole_file",
    "write_text",
]

PART_SUFFIX = ".part"
Stamp = tuple[int, int]
_BLOCK = 1 << 20


def utc_now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def file_state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file does (change in nanoseconds, size in bytes, inode); None where there is none."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino


def file_stamp(path: Path) -> Stamp:
    """Return what changes when a file does, or is replaced by another one: change in nanoseconds, size in bytes."""
    state = path.stat()
    return state.st_mtime_ns, state.st_size


def unpacked_sizes(content: BinaryIO, unpacker: zlib._Decompress) -> Iterator[int]:
    """Yield how many bytes each part of a packed stream unpacks to; no more than one part is ever held.

    It ends with the stream or with the input; the unpacker knows which, and whether anything follows.
    """
    while not unpacker.eof and (block := unpacker.unconsumed_tail or content.read(_BLOCK)):
        yield len(unpacker.decompress(block, _BLOCK))


def leads_out(path: Path | str, folder: Path | str) -> bool:
    """Return whether a path leads out of a folder, by links in it or by being one."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _part_of(path: Path) -> Path:
    """Return a hidden name beside a file; the watcher of a studies folder ignores its suffix.

    Of a long name only the beginning is taken: file systems allow 255 bytes, and a character may have four.
    """
    return path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}{PART_SUFFIX}")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write that appears at ``path`` when it is complete; until then it lies beside it, hidden."""
    temporary = _part_of(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk: without it, a power cut may bring the old file back."""
    if os.name == "nt":  # which opens no folders, and needs none of this
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems cannot
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder, with those above it, so that a power cut cannot take it away with what will be in it."""
    new = []
    for place in (folder, *folder.parents):
        if place.exists():
            break
        new.append(place)
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        sync_folder(place.parent)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file's content by way of :func:`whole_file`."""
    with source.open("rb") as file, whole_file(target) as out:
        shutil.copyfileobj(file, out)


def link_whole(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, at once; a copy where the file system knows no hard links."""
    temporary = _part_of(target)
    try:
        os.link(source, temporary)
    except OSError:
        copy_whole(source, target)
        return
    try:
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)  # where both names were one file already, replacing does nothing


def write_text(path: Path, text: str) -> None:
    """Write a text file by way of :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def known_hash(path: Path) -> str:
    """As :func:`file_hash`, of a file that is asked for several times: it is read again only where it has changed."""
    return _hash_of(path, file_state(path))


@lru_cache(maxsize=1 << 14)
def _hash_of(path: Path, state: tuple[int, int, int] | None) -> str:
    return file_hash(path)
