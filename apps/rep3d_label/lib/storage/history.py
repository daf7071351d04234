"""Earlier labels: whatever is replaced, removed or changed on the way in is kept, with author, time and reason.

An entry is a label file and a JSON file of the same name, in one folder per image. Where the JSON file is damaged, the
label stays in the list, with what its file's name says.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.errors import NotFoundError
from lib.labels.formats import LABEL_SUFFIXES
from lib.labels.reasons import UNKNOWN
from lib.names import split_suffix
from lib.paths import copy_whole, utc_now
from rep3d.files import make_folder
from rep3d.json_file import JsonFile, json_object

__all__ = ["LabelHistory", "file_time"]

_SUFFIXES = (*LABEL_SUFFIXES, ".json")
_TIME = "%Y%m%dT%H%M%S.%fZ"


def file_time() -> str:
    """Return the time in UTC as part of a file name, with microseconds so that two in a second differ."""
    return datetime.now(timezone.utc).strftime(_TIME)


class LabelHistory:
    """The earlier labels of all images.

    Args:
        root: the folder that holds one folder per image.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, image_id: str) -> Path:
        """Return where the earlier labels of an image are; it may not exist."""
        return self._root / image_id

    def keep(self, file: Path, image_id: str, tag: str, reason: str, facts: Mapping[str, Any]) -> str:
        """Copy a label into the history.

        Args:
            file: the label; it stays where it is, unless it cannot be copied.
            image_id: its image.
            tag: its tag.
            reason: why it is kept, see :mod:`lib.labels.reasons`.
            facts: what is known about it.

        Returns:
            The name of the entry.
        """
        folder = self.folder(image_id)
        make_folder(folder)
        name = f"{tag}-{file_time()}"
        # Clocks may be coarse, or set back: no entry replaces another.
        while any((folder / f"{name}{suffix}").exists() for suffix in _SUFFIXES):
            name = f"{tag}-{file_time()}"
        target = folder / f"{name}{split_suffix(file.name, LABEL_SUFFIXES)[1].lower()}"
        known = {**facts, "image": image_id, "tag": tag, "reason": reason, "replaced": utc_now(), "file": target.name}
        try:
            try:
                copy_whole(file, target)
            except (IsADirectoryError, PermissionError):  # it is no file, or may not be read: it is kept all the same
                os.rename(file, target)
            _file(folder, name).write(known)
        except OSError:
            if os.path.lexists(file):  # else the entry is the file itself
                self.drop(image_id, [name])
            raise
        return name

    def drop(self, image_id: str, entries: Iterable[str]) -> None:
        """Take entries back that were made for something that then did not happen."""
        for name in entries:
            for suffix in _SUFFIXES:
                (self.folder(image_id) / f"{name}{suffix}").unlink(missing_ok=True)

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """Return what is known about the earlier labels of an image, the latest first; ``entry`` is the name of
        each."""
        folder = self.folder(image_id)
        if not folder.is_dir():
            return []
        files = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
        names = {stem for stem, suffix in (split_suffix(file, _SUFFIXES) for file in files) if suffix}
        found = [{"entry": name, **(_file(folder, name).read() or _by_name(name))} for name in names]
        return sorted(found, key=lambda entry: (str(entry.get("replaced")), entry["entry"]), reverse=True)

    def check(self) -> None:
        """Read all entries, so that damaged ones are told."""
        for folder in sorted(self._root.glob("*")):
            self.entries(folder.name)

    def find(self, image_id: str, entry: str) -> tuple[Path, dict[str, Any]]:
        """Return the file of an entry, and what is known about it.

        Raises:
            NotFoundError: where there is none of that name.
        """
        folder = self.folder(image_id)
        facts = next((known for known in self.entries(image_id) if known["entry"] == entry), None)
        # The name is looked for among those that are there, so it cannot lead anywhere else.
        candidates = [] if facts is None else [folder / f"{entry}{suffix}" for suffix in LABEL_SUFFIXES]
        files = [file for file in candidates if file.is_file()]
        if facts is None or not files:
            raise NotFoundError(f"Image {image_id} has no earlier label {entry[:200]!r}.")
        return files[0], facts


def _file(folder: Path, name: str) -> JsonFile[dict[str, Any]]:
    lost = f"author and origin of the earlier label {name} of image {folder.name}; the label itself is there"
    return JsonFile(folder / f"{name}.json", _parsed, lost, dict, begins_anew=True)


def _parsed(content: Any) -> dict[str, Any]:
    return json_object(content, tag=str)


def _by_name(name: str) -> dict[str, Any]:
    """Return what the name of an entry says, as :meth:`LabelHistory.keep` makes it."""
    tag, _, time = name.rpartition("-")
    with suppress(ValueError):
        time = datetime.strptime(time, _TIME).replace(tzinfo=timezone.utc).isoformat(timespec="seconds")
    return {"tag": tag, "replaced": time, "reason": UNKNOWN}
