"""What is known about each label, in a file per image that outlives MONAI Label's list.

The list forgets an image, its labels and all that is known about them as soon as a file is away for a moment. Here all
facts are bound to the label file that they are about. They are written before that file takes its place, so that after
a kill in between, author and time are those of the voxels that are there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lib.labels.facts import Stamp
from rep3d.files import file_hash, file_state
from rep3d.json_file import JsonFile, json_object

__all__ = ["DrawnOn", "FileState", "LabelRecord", "LabelRecords"]

FileState = tuple[int, int, int]
_MOST = 4  # records per label: the one that is there, the one that is coming, and copies that may come back


@dataclass(frozen=True)
class DrawnOn:
    """The image that a label was drawn on.

    Attributes:
        stamp: of its file.
        digest: of its voxels, see :func:`lib.labels.fit.voxel_digest`; None until it is worked out.
    """

    stamp: Stamp
    digest: str | None


@dataclass(frozen=True)
class LabelRecord:
    """One label file, and what is known about it.

    Attributes:
        name: the file's name.
        sha256: of its bytes; empty where the file was gone before it was read.
        state: see :func:`rep3d.files.file_state`.
        info: the facts, as the list of images has them.
        drawn_on: the image; None for a label that was not submitted here.
    """

    name: str
    sha256: str
    state: FileState
    info: Mapping[str, Any]
    drawn_on: DrawnOn | None = None


_Case = dict[str, Any]  # "image": facts about the image; "labels": tag to records, the latest first


class LabelRecords:
    """The records of all images. Only the server writes them.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.RLock()
        self._known: dict[str, tuple[FileState, _Case]] = {}

    def of(self, image_id: str, tag: str) -> Sequence[LabelRecord]:
        """Return the records of an image's labels of a tag, the latest first."""
        found: Sequence[LabelRecord] = self._read(image_id)["labels"].get(tag, ())
        return found

    def match(self, image_id: str, tag: str, folder: Path) -> tuple[LabelRecord, FileState] | None:
        """Return the record of the label that is in a folder, with the state of its file; None where there is none.

        A file that was copied has another state: then its bytes say whether it is the same.
        """
        records = self.of(image_id, tag)
        states = {record.name: file_state(folder / record.name) for record in records}
        for record in records:
            if (state := states[record.name]) == record.state and state is not None:
                return record, state
        hashes: dict[str, str] = {}
        for record in records:
            state = states[record.name]
            if state is None:
                continue
            if record.name not in hashes:
                hashes[record.name] = file_hash(folder / record.name)
            if record.sha256 == hashes[record.name]:
                return record, state
        return None

    def put(self, image_id: str, tag: str, record: LabelRecord) -> None:
        """Write a record, as the latest of its tag."""
        info = json.loads(json.dumps(dict(record.info), default=str))  # as it is read again
        record = replace(record, info=info)
        with self._guard:
            case = self._read(image_id)
            others = [old for old in case["labels"].get(tag, ()) if not _same(old, record)]
            self._write(image_id, {**case, "labels": {**case["labels"], tag: [record, *others][:_MOST]}})

    def image_info(self, image_id: str) -> dict[str, Any]:
        """Return the facts about an image itself."""
        return dict(self._read(image_id)["image"])

    def put_image_info(self, image_id: str, info: Mapping[str, Any]) -> None:
        """Write the facts about an image itself."""
        with self._guard:
            self._write(image_id, {**self._read(image_id), "image": dict(info)})

    def file(self, image_id: str) -> Path:
        """Return the file of an image's records; it may not exist."""
        return self._folder / f"{image_id}.json"

    def check(self) -> None:
        """Read all records, so that damaged ones are told."""
        for file in sorted(self._folder.glob("*.json")):
            self._read(file.stem)

    def _read(self, image_id: str) -> _Case:
        state = file_state(self.file(image_id))
        if state is None:
            return {"image": {}, "labels": {}}
        with self._guard:
            known = self._known.get(image_id)
            if known is None or known[0] != state:
                known = self._known[image_id] = state, self._json(image_id).read()
            return known[1]

    def _write(self, image_id: str, case: _Case) -> None:
        labels = {tag: [asdict(record) for record in records] for tag, records in case["labels"].items()}
        self._json(image_id).write({"image": case["image"], "labels": labels})

    def _json(self, image_id: str) -> JsonFile[_Case]:
        lost = f"what is known about the labels of image {image_id}, if the list of images does not have it"
        return JsonFile(self.file(image_id), _parsed, lost, lambda: {"image": {}, "labels": {}}, begins_anew=True)


def _same(one: LabelRecord, other: LabelRecord) -> bool:
    """Return whether two records are about one file, or about copies of one label."""
    return one.state == other.state or (one.sha256, one.info) == (other.sha256, other.info)


def _parsed(content: Any) -> _Case:
    json_object(content, image=dict, labels=dict)
    return {
        "image": content["image"],
        "labels": {tag: [_record(one) for one in stored] for tag, stored in content["labels"].items()},
    }


def _record(stored: Any) -> LabelRecord:
    json_object(stored, name=str, sha256=str, state=list, info=dict)
    changed, size, inode = (int(number) for number in stored["state"])
    drawn_on = None
    if stored.get("drawn_on") is not None:
        json_object(stored["drawn_on"], stamp=list)
        time, length = (int(number) for number in stored["drawn_on"]["stamp"])
        drawn_on = DrawnOn((time, length), stored["drawn_on"].get("digest"))
    return LabelRecord(stored["name"], stored["sha256"], (changed, size, inode), stored["info"], drawn_on)
