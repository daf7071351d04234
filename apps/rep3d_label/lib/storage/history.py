"""Earlier labels: whatever is replaced, removed or changed on the way in is kept, with author, time and reason.

An entry is a label file and a JSON file of the same name, in one folder per image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lib.errors import NotFoundError
from lib.paths import copy_whole, read_json, utc_now, write_text

__all__ = ["ORIGINAL", "REMOVED", "REPLACED", "LabelHistory", "file_time"]

REPLACED = "replaced"  # another label took its place
REMOVED = "removed"  # it was taken away
ORIGINAL = "original"  # it is what was submitted for a label that was stored with other voxel values or another grid


def file_time() -> str:
    """The time in UTC as part of a file name, with microseconds so that two in a second differ."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


class LabelHistory:
    """The earlier labels of all images.

    Args:
        root: the folder that holds one folder per image.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, image_id: str) -> Path:
        """Where the earlier labels of an image are; it may not exist."""
        return self._root / image_id

    def keep(self, file: Path, image_id: str, tag: str, reason: str, facts: Mapping[str, Any]) -> str:
        """Copies a label into the history.

        Args:
            file: the label; it stays where it is.
            image_id: its image.
            tag: its tag.
            reason: why it is kept, one of this module's constants.
            facts: what is known about it.

        Returns:
            The name of the entry.
        """
        folder = self.folder(image_id)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{tag}-{file_time()}"
        while (folder / f"{name}.json").exists():  # clocks may be coarse, or set back: no entry replaces another
            name = f"{tag}-{file_time()}"
        target = folder / f"{name}{_suffixes(file)}"
        copy_whole(file, target)
        known = {**facts, "image": image_id, "tag": tag, "reason": reason, "replaced": utc_now(), "file": target.name}
        write_text(folder / f"{name}.json", json.dumps(known, indent=2, default=str))
        return name

    def entries(self, image_id: str) -> list[dict[str, Any]]:
        """What is known about the earlier labels of an image, the latest first; ``entry`` is the name of each."""
        folder = self.folder(image_id)
        if not folder.is_dir():
            return []
        found = [{"entry": file.stem, **read_json(file)} for file in folder.glob("*.json")]
        return sorted(found, key=lambda entry: (str(entry.get("replaced")), entry["entry"]), reverse=True)

    def find(self, image_id: str, entry: str) -> tuple[Path, dict[str, Any]]:
        """The file of an entry, and what is known about it.

        Raises:
            NotFoundError: where there is none of that name.
        """
        folder = self.folder(image_id)
        facts = next((known for known in self.entries(image_id) if known["entry"] == entry), None)
        # The name is looked for among those that are there, so it cannot lead anywhere else.
        files = [] if facts is None else [file for file in folder.iterdir() if _is_label_of(file, entry)]
        if facts is None or not files:
            raise NotFoundError(f"Image {image_id} has no earlier label {entry[:200]!r}.")
        return files[0], facts


def _suffixes(file: Path) -> str:
    name = file.name.lower()
    return next((s for s in (".nii.gz", ".seg.nrrd") if name.endswith(s)), Path(name).suffix)


def _is_label_of(file: Path, entry: str) -> bool:
    suffix = _suffixes(file)
    return suffix != ".json" and file.name == f"{entry}{suffix}"
