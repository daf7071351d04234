"""The record of a folder of predictions: what was made of what by which model, and what could not be made and why.

Several processes may share the cases. Each writes a part of its own, since some network drives know no locks, and the
parts are one record to whoever reads; the last thing a process does is to add its part to the whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rep3d.errors import OutputError
from rep3d.files import file_hash, known_hash, utc_now, write_text
from rep3d.json_file import JsonFile, json_object
from rep3d.json_text import parse_json
from rep3d.predicting.statistics import as_csv

__all__ = ["MANIFEST", "STATISTICS", "Manifest", "models_of"]

MANIFEST = "manifest.json"
STATISTICS = "statistics.csv"
_PARTS = "manifest.*.json"
_FORMAT = "rep3d-predictions"


class Manifest:
    """The record.

    Args:
        folder: the folder of the predictions.
        rank: number of this process.
        size: how many processes there are.
    """

    def __init__(self, folder: Path, rank: int = 0, size: int = 1) -> None:
        self.folder = folder
        self._whole = self._file(folder / MANIFEST)
        self._own = self._whole if size == 1 else self._file(folder / f"manifest.{rank}.json")

    @staticmethod
    def _file(path: Path) -> JsonFile[dict[str, Any]]:
        return JsonFile(path, _parsed, "what was predicted: it is predicted again", _empty, begins_anew=True)

    def cases(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each case, of all processes; of two entries the later one."""
        found = self._whole.read()["cases"]
        for part in sorted(self.folder.glob(_PARTS)):
            for case, entry in self._file(part).read()["cases"].items():
                if case not in found or found[case]["time"] <= entry["time"]:
                    found[case] = entry
        return dict(sorted(found.items()))

    def check_free(self, files: Sequence[str]) -> None:
        """Make sure that what is there under the names of outputs was written by a prediction into this folder.

        Args:
            files: names of files to write.

        Raises:
            OutputError: if a file is there that the record does not list.
        """
        there = [name for name in files if os.path.lexists(self.folder / name)]  # first: other processes write, too
        statistics = (self.folder / STATISTICS).exists()
        known = {name for entry in self.cases().values() for name in _written(entry)}
        if statistics and not (self._whole.path.exists() or any(self.folder.glob(_PARTS))):
            there.append(STATISTICS)
        for name in there:
            if name not in known:
                raise OutputError(
                    f"OUTPUT: {self.folder / name} is there already, and was not written by rep3d predict, as far as "
                    f"{MANIFEST} in this folder says. It stays: give another folder, or move this file away."
                )

    def begin(self, case: str, files: Sequence[str], entry: Mapping[str, Any]) -> dict[str, Any]:
        """Make sure that the files of a case may be written, and note that they will be.

        Args:
            case: its id.
            files: their names.
            entry: what else is known of it.

        Returns:
            ``written``, the names of those and of the ones that were written for it before, and ``digests``, what
            these others were then.

        Raises:
            OutputError: if one of the files is not, or no longer, what was written: a person drew or corrected it.
        """
        before = self.cases().get(case, {})
        digests, making = _digests(before), before.get("making", {})
        for name in files:
            digest = self._now(name)
            if digest is not None and digest not in (digests.get(name), making.get(name)):
                raise OutputError(
                    f"{name} is not, or no longer, what was written here, and what a person drew is not replaced. It "
                    "stays: move it away, or give another folder."
                )
        written = tuple(sorted({*files, *_written(before)}))
        begun = {**entry, "written": written, "digests": digests, "making": making}
        self.note(case, {"state": "begun", **begun, "time": utc_now()})
        return {"written": written, "digests": {name: one for name, one in digests.items() if name not in files}}

    def making(self, case: str, digests: Mapping[str, str]) -> None:
        """Note what the files of a case will be, before the first one is in its place: a kill makes none a stranger's.

        Args:
            case: its id, which was begun.
            digests: name to SHA-256.
        """
        self.note(case, {**self.cases()[case], "making": dict(digests), "time": utc_now()})

    def as_left(self, case: str) -> dict[str, Any]:
        """Return ``written`` and ``digests`` of a case that failed, whatever of it was written before that."""
        entry = self.cases().get(case, {})
        digests = _digests(entry)
        digests |= {name: digest for name, digest in entry.get("making", {}).items() if self._now(name) == digest}
        return {"written": tuple(sorted(digests)), "digests": digests}

    def _now(self, name: str) -> str | None:
        """Return the SHA-256 of a file in the folder; None where there is none."""
        file = self.folder / name
        # os.path, since Path.is_file raises an error of a name that is too long for a file.
        return file_hash(file) if os.path.isfile(file) else None

    def is_done(self, case: str, made_of: Mapping[str, Any]) -> bool:
        """Return whether a case was predicted from just this, and all that was written is there as it was.

        Args:
            case: its id.
            made_of: ``input_sha256``, ``models`` and ``settings``.
        """
        entry = self.cases().get(case, {})
        if entry.get("state") != "done" or any(entry.get(key) != value for key, value in made_of.items()):
            return False
        files = [(self.folder / output["file"], output["sha256"]) for output in entry["outputs"].values()]
        return all(file.is_file() and file_hash(file) == digest for file, digest in files)

    def note(self, case: str, entry: Mapping[str, Any]) -> None:
        """Keep what became of a case, on the disk before this returns."""
        with self._own.locked():  # somebody may predict other images into the same folder
            content = self._own.read()
            content["cases"][case] = dict(entry)
            self._own.write(content)

    def finish(self, left_out: tuple[str, ...]) -> None:
        """Put all parts that are there into one file, and write the statistics of all cases.

        Args:
            left_out: files that are part of no image, and why.
        """
        with self._whole.locked():
            cases = self.cases()
            self._whole.write({**_empty(), "cases": cases, "left_out": list(left_out)})
            done = {case: entry for case, entry in cases.items() if entry["state"] == "done"}
            write_text(self.folder / STATISTICS, as_csv(done))
            if self._own is not self._whole:
                self._own.path.unlink(missing_ok=True)


def models_of(files: Iterable[Path]) -> set[Path] | None:
    """Return the model files that made label maps, by the record beside these; nothing is changed there.

    Args:
        files: the label maps.

    Returns:
        None where it is not known: a label map is not in a record, or not as it was written, or one of its models is
        not there (any more) with the checksum that it had.
    """
    known: dict[tuple[str, str], bool] = {}

    def there(file: str, digest: str) -> bool:
        if (file, digest) not in known:
            known[file, digest] = Path(file).is_file() and file_hash(Path(file)) == digest
        return known[file, digest]

    @cache
    def made_in(folder: Path) -> dict[tuple[str, str], Any]:
        content = parse_json((folder / MANIFEST).read_bytes())
        entries = _parsed(content)["cases"].values() if content.get("format") == _FORMAT else ()
        done = [entry for entry in entries if entry["state"] == "done"]
        return {(made["file"], made["sha256"]): entry for entry in done for made in entry["outputs"].values()}

    found: set[Path] = set()
    try:
        for file in files:
            entry = made_in(file.parent)[file.name, known_hash(file)]
            models = list(zip(entry["model_files"], entry["models"], strict=True))
            if not models or not all(there(*model) for model in models):
                return None
            found |= {Path(model) for model, _ in models}
    except (OSError, AttributeError, KeyError, TypeError, ValueError):  # no record, or another program's
        return None
    return found or None


def _empty() -> dict[str, Any]:
    return {"format": _FORMAT, "format_version": 1, "cases": {}, "left_out": []}


def _outputs(entry: Mapping[str, Any]) -> Iterable[Mapping[str, str]]:
    return entry.get("outputs", {}).values()


def _digests(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of each file that was written for a case, as it was then, as far as that is known."""
    return {**entry.get("digests", {}), **{one["file"]: one["sha256"] for one in _outputs(entry)}}


def _written(entry: Mapping[str, Any]) -> set[str]:
    return {*entry.get("written", ()), *(output["file"] for output in _outputs(entry))}


def _parsed(content: Any) -> dict[str, Any]:
    json_object(content, cases=dict, left_out=list)
    for entry in content["cases"].values():
        json_object(entry, state=str, time=str)
        if entry["state"] == "done":
            json_object(entry, outputs=dict, statistics=dict, labels=dict)
    return dict(content)
