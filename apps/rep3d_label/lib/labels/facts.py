"""What label files contain, remembered by time stamp: reading a volume for each question would take minutes."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rep3d.files import Stamp, file_stamp
from rep3d.imaging.labels import label_counts
from rep3d.imaging.nifti import read_label
from rep3d.json_file import JsonFile, json_object

__all__ = ["FactsCache", "LabelFacts"]


@dataclass(frozen=True)
class LabelFacts:
    """What a label map contains.

    Attributes:
        digest: SHA-256 of shape and voxel values: equal for files that say the same, however they are compressed.
        counts: voxel value to number of voxels, background included.
    """

    digest: str
    counts: Mapping[int, int]

    @classmethod
    def of(cls, values: np.ndarray) -> LabelFacts:
        """Return the facts about a label map.

        Args:
            values: (X, Y, Z) voxel values.
        """
        digest = hashlib.sha256(str(values.shape).encode())
        for index in range(values.shape[-1]):
            digest.update(np.ascontiguousarray(values[..., index], dtype="<i4").tobytes())
        return cls(digest.hexdigest(), label_counts(values))


_Known = dict[str, tuple[Stamp, LabelFacts]]


class FactsCache:
    """Facts about label files, kept in a file of their own so that a restart does not read all volumes again.

    Args:
        path: that file.
    """

    def __init__(self, path: Path) -> None:
        lost = "nothing: what the label files contain is read again from them"
        self._file: JsonFile[_Known] = JsonFile(path, _parsed, lost, dict, begins_anew=True)
        self._guard = threading.RLock()
        self._known = self._file.read()

    def known(self, file: Path) -> LabelFacts | None:
        """Return the facts about a file if they are known, without reading it."""
        with self._guard:
            stamp, facts = self._known.get(str(file), (None, None))
        return facts if facts is not None and stamp == file_stamp(file) else None

    def of(self, file: Path) -> LabelFacts:
        """Return the facts about a file, which is read if it has changed.

        Raises:
            LabelError: if it is no label map.
        """
        facts = self.known(file)
        if facts is None:
            stamp = file_stamp(file)  # before it is read: what changes meanwhile is read again
            facts = LabelFacts.of(read_label(file)[0])
            self._put(file, stamp, facts)
        return facts

    def remember(self, file: Path, facts: LabelFacts) -> None:
        """Record facts that are known from elsewhere."""
        self._put(file, file_stamp(file), facts)

    def _put(self, file: Path, stamp: Stamp, facts: LabelFacts) -> None:
        with self._guard:
            self._known[str(file)] = stamp, facts

    def save(self) -> None:
        """Write what is known to the file."""
        with self._guard:
            stored = {
                file: {"stamp": stamp, "digest": facts.digest, "counts": facts.counts}
                for file, (stamp, facts) in self._known.items()
                if os.path.exists(file)
            }
            self._file.write(stored)


def _parsed(content: Any) -> _Known:
    found = {}
    for file, stored in json_object(content).items():
        json_object(stored, digest=str, counts=dict, stamp=list)
        counts = {int(value): int(count) for value, count in stored["counts"].items()}
        stamp = int(stored["stamp"][0]), int(stored["stamp"][1])
        found[file] = stamp, LabelFacts(stored["digest"], counts)
    return found
