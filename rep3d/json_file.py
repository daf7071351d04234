"""State in JSON files: typed, written whole, and never lost in silence.

Everything that a server or a model knows besides voxels is in small JSON files, since those work on network drives and
can be read by people. A file that is not what was written (cut short, of another shape) is damaged. What is a mere
cache, or was only of the moment, begins anew then; the damaged file is kept beside it under another name. What nobody
could make up again is left where it is, and reading it is an error. In both cases the log and :func:`found_damage` say
which file it is and what is lost.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from rep3d.errors import DamagedFileError, Rep3DError
from rep3d.files import file_state, make_folder, utc_now, write_text

__all__ = ["DAMAGED", "Damage", "JsonFile", "found_damage", "json_object", "note_kept"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DAMAGED = ".damaged-"
"""What follows a file's name where it is kept aside, before the time."""
_LOCK_SECONDS = 60.0
_LEVELS = 2  # with a line for each entry; Python writes whole files so ten times slower
_UNEXPECTED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)
_threads = threading.RLock()  # also where a file system knows no locks
_found: dict[Path, Damage] = {}  # by where it is now


@dataclass(frozen=True)
class Damage:
    """A damaged file.

    Attributes:
        file: where it was found.
        kept: where it is now; None where it was left in its place.
        lost: what is lost with it, in words.
        reason: what is wrong with it.
        time: when it was found, UTC, ISO 8601.
    """

    file: Path
    kept: Path | None
    lost: str
    reason: str
    time: str


def found_damage(folder: Path) -> list[Damage]:
    """Return the damaged files below a folder that this process found, in the order of their paths."""
    return [damage for file, damage in sorted(_found.items()) if folder in file.parents]


def note_kept(kept: Path) -> None:
    """Count a file as found that an earlier process kept aside."""
    name, _, time = kept.name.partition(DAMAGED)
    lost = "what it held; it was kept aside at an earlier start"
    _found.setdefault(kept, Damage(kept.with_name(name), kept, lost, "kept aside", time))


def json_object(content: Any, **kinds: type) -> dict[str, Any]:
    """Return a JSON object that has values of these types under these keys; for other content raise ``ValueError``."""
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object, got {type(content).__name__}")
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise ValueError(f"{key}: expected {kind.__name__}, got {type(content.get(key)).__name__}")
    return content


def _in_lines(content: Any, encode: Callable[[Any], str], levels: int, margin: str = "\n") -> str:
    """Return JSON that people can read, with a line for each entry of the outer objects."""
    if not levels or not content or not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        return encode(content)
    inner = f"{margin}  "
    lines = (f"{inner}{encode(key)}: {_in_lines(value, encode, levels - 1, inner)}" for key, value in content.items())
    return "{" + ",".join(lines) + margin + "}"


class JsonFile(Generic[T]):
    """One file.

    Args:
        path: where it is; it may not exist.
        parse: makes the content of what the JSON says; ``ValueError``, ``TypeError``, ``KeyError``, ``IndexError`` or
            ``AttributeError`` mean that it is damaged.
        lost: what is lost where it is damaged, in words: "who works on which image".
        absent: makes the content where there is no file.
        begins_anew: whether a damaged file is kept aside and counts as none; else it stays, and reading it is an error.
        aside: the folder where a damaged file is kept; None for its own.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[Any], T],
        lost: str,
        absent: Callable[[], T],
        begins_anew: bool,
        aside: Path | None = None,
    ) -> None:
        self.path = path
        self._parse = parse
        self._lost = lost
        self._absent = absent
        self._begins_anew = begins_anew
        self._aside = aside or path.parent
        self._latest: tuple[tuple[int, int, int] | None, T] | None = None

    def latest(self) -> T:
        """Return the content as :meth:`read` does, but read it only where the file has changed; do not change it."""
        state = file_state(self.path)
        if self._latest is None or self._latest[0] != state:
            self._latest = (state, self.read())
        return self._latest[1]

    def read(self) -> T:
        """Return the content.

        Raises:
            DamagedFileError: if it is damaged and does not begin anew.
        """
        try:
            return self._read()
        except DamagedFileError as error:
            if not self._begins_anew:
                self._note(error, None)
                raise
        self.set_aside()
        return self._read()

    def write(self, content: Any, *, allow_nan: bool = True, ensure_ascii: bool = False) -> None:
        """Write JSON content, whole or not at all; hold :meth:`locked` where it depends on what was read before.

        Args:
            content: plain JSON types; what is none is written as ``str`` shows it.
            allow_nan: see :func:`json.dumps`.
            ensure_ascii: see :func:`json.dumps`.
        """
        make_folder(self.path.parent)
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=allow_nan, default=str)
        write_text(self.path, _in_lines(content, encoder.encode, _LEVELS) + "\n")

    def set_aside(self) -> Path | None:
        """Rename the file if it is damaged; with the next reading its content begins anew.

        Returns:
            Where it is kept; None where it is not damaged.
        """
        with suppress(DamagedFileError):
            self._read()
            return None
        with self.locked():
            try:
                self._read()  # another process may have been quicker
            except DamagedFileError as error:
                time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
                kept = self._aside / f"{self.path.name}{DAMAGED}{time}"
                os.replace(self.path, kept)
                self._note(error, kept)
                return kept
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes from doing the same with the files of this folder; may be nested."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.parent / ".lock", timeout=_LOCK_SECONDS, is_singleton=True)
        with _threads:
            try:
                lock.acquire()
            except Timeout as error:
                raise Rep3DError(
                    f"{self.path}: another process has been changing it for {_LOCK_SECONDS:g} s. Try again."
                ) from error
            except (OSError, NotImplementedError):  # a network file system without locks: there is one server only
                yield
                return
            try:
                yield
            finally:
                lock.release()

    def _read(self) -> T:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return self._absent()
        try:
            found = self._parse(json.loads(content))
        except _UNEXPECTED as error:
            words = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise DamagedFileError(
                f"{self.path}: the file is damaged ({words}). Lost: {self._lost}. Put a copy back.", words
            ) from error
        _found.pop(self.path, None)  # if it was damaged, a copy was put back
        return found

    def _note(self, error: DamagedFileError, kept: Path | None) -> None:
        known = _found.get(kept or self.path)
        if known is not None and known.reason == error.reason:
            return  # said already
        _found.pop(self.path, None)
        _found[kept or self.path] = Damage(self.path, kept, self._lost, error.reason, utc_now())
        logger.error("%s%s", error, f" The damaged file is kept as {kept}." if kept else "")
