"""Unsent work on disk: what a crash, a closed scene, another sample or a lost server cannot take away.

A draft is a `.seg.nrrd` file, which any Slicer opens, beside a JSON file that says which case of which server it
belongs to. It is written before anything that could lose work, and leaves the list only when the server has confirmed
the label, or when the user throws it away; even then it stays in a folder of its own until thirty newer ones have come.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path

from .errors import LocalProblem
from .images import segnrrd

__all__ = ["Draft", "Drafts"]

_KEPT = 30  # drafts that were sent or thrown away
_DATA, _ABOUT = ".seg.nrrd", ".json"


@dataclass(frozen=True)
class Draft:
    """What is known about unsent work.

    Attributes:
        key: Its name on disk.
        server: Address of the server.
        image_id: The server's id of the image.
        name: Name of the image as shown.
        model: Model whose labels it has.
        source: What the work began from, see `SampleView.source`.
        time: Local time of the last change, ISO 8601.
    """

    key: str
    server: str
    image_id: str
    name: str = ""
    model: str = ""
    source: str = ""
    time: str = ""


class Drafts:
    """The drafts in a folder.

    Args:
        folder: Made when the first draft is kept.
        now: Local time; injected for tests.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = datetime.now) -> None:
        self.folder = folder
        self._now = now

    def new(self, server: str, image_id: str, name: str, model: str, source: str) -> Draft:
        """Return a draft that is not on disk yet."""
        case = hashlib.sha256(f"{server}\n{image_id}".encode()).hexdigest()[:12]
        stamp = self._now().strftime("%Y%m%d-%H%M%S")
        return Draft(f"{stamp}-{case}-{uuid.uuid4().hex[:6]}", server, image_id, name, model, source)

    def save(self, draft: Draft, data: segnrrd.SegmentationData) -> Draft:
        """Write a draft, whole or not at all; its earlier state is replaced.

        Returns:
            The draft with the time of writing.

        Raises:
            LocalProblem: It cannot be written; what was there is as it was.
        """
        steps = self.save_in_steps(draft, data)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                saved: Draft = end.value
                return saved

    def save_in_steps(self, draft: Draft, data: segnrrd.SegmentationData) -> Generator[float, None, Draft]:
        """As `save`, some megabytes with each step; yields the part that is done. Closed early, it changes nothing."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._problem(error) from error
        saved = replace(draft, time=self._now().isoformat(timespec="seconds"))
        about = self.folder / f"{draft.key}{_ABOUT}"
        if not about.exists():  # first: segments of which nobody knows the case could not be restored
            self._write_about(about, asdict(saved))
        yield from segnrrd.write_in_steps(self.path(draft.key), data)
        self._write_about(about, asdict(saved))
        return saved

    def path(self, key: str) -> Path:
        """Return the segmentation file of a draft."""
        return self.folder / f"{key}{_DATA}"

    def list(self) -> tuple[Draft, ...]:
        """Return the unsent drafts, the latest first. A file whose JSON is missing is listed all the same."""
        found = []
        for path in self.folder.glob(f"*{_DATA}") if self.folder.is_dir() else ():
            key = path.name[: -len(_DATA)]
            about = self._about(key)
            if about is not None:
                found.append(about)
        return tuple(sorted(found, key=lambda draft: draft.time, reverse=True))

    def of(self, server: str, image_id: str) -> tuple[Draft, ...]:
        """Return the unsent drafts of a case, the latest first."""
        return tuple(draft for draft in self.list() if (draft.server, draft.image_id) == (server, image_id))

    def find(self, key: str) -> Draft:
        """Return what is known about a draft.

        Raises:
            LocalProblem: It is not there.
        """
        about = self._about(key)
        if about is None:
            raise self._gone(key)
        return about

    def read(self, key: str) -> tuple[Draft, segnrrd.SegmentationData]:
        """Return a draft and its segments, whose voxels stay in the file until they are used.

        Raises:
            LocalProblem, BadAnswer: It is not there, or cannot be read.
        """
        return self.find(key), segnrrd.read(self.path(key), mapped=True)

    def take_over(self, draft: Draft) -> Draft:
        """Give a draft another key, under which the one who goes on with it writes alone.

        Another Slicer may have the same draft in hand: it sees that its draft is gone and writes what it has under the
        old key again, so neither writes over the other's edits.

        Raises:
            LocalProblem: It is gone, or its folder cannot be written to.
        """
        mine = replace(draft, key=self.new(draft.server, draft.image_id, "", "", "").key)
        about = self.folder / f"{mine.key}{_ABOUT}"
        self._write_about(about, asdict(mine))
        try:
            os.replace(self.path(draft.key), self.path(mine.key))
        except OSError as error:
            about.unlink(missing_ok=True)
            raise (self._gone(draft.key) if isinstance(error, FileNotFoundError) else self._problem(error)) from error
        with contextlib.suppress(OSError):
            (self.folder / f"{draft.key}{_ABOUT}").unlink()
        return mine

    def sent(self, key: str) -> None:
        """Take a draft off the list after the server has confirmed its label."""
        self._put_away(key, "sent")

    def discard(self, key: str) -> None:
        """Take a draft off the list because the user does not want it."""
        self._put_away(key, "discarded")

    def _put_away(self, key: str, why: str) -> None:
        target = self.folder / why
        try:
            target.mkdir(parents=True, exist_ok=True)
            for suffix in (_DATA, _ABOUT):
                source = self.folder / f"{key}{suffix}"
                if source.exists():
                    os.replace(source, target / source.name)
            kept = sorted(target.glob(f"*{_DATA}"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in kept[_KEPT:]:
                old.unlink()
                (target / f"{old.name[: -len(_DATA)]}{_ABOUT}").unlink(missing_ok=True)
        except OSError as error:
            raise self._problem(error) from error

    def _about(self, key: str) -> Draft | None:
        path = self.path(key)
        try:
            changed = datetime.fromtimestamp(path.stat().st_mtime).isoformat(timespec="seconds")
        except OSError:
            return None
        try:
            values = json.loads((self.folder / f"{key}{_ABOUT}").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            values = {}
        if not isinstance(values, Mapping):
            values = {}
        known = {item.name: str(values.get(item.name) or "") for item in fields(Draft)}
        return Draft(**{**known, "key": key, "time": known["time"] or changed})

    def _write_about(self, path: Path, values: Mapping[str, object]) -> None:
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_text(json.dumps(values, indent=2), encoding="utf-8")
            os.replace(part, path)
        except OSError as error:
            raise self._problem(error) from error
        finally:
            part.unlink(missing_ok=True)

    def _gone(self, key: str) -> LocalProblem:
        return LocalProblem(f"The unsent work '{key}' is not in '{self.folder}' any more. Refresh the list.")

    def _problem(self, error: OSError) -> LocalProblem:
        return LocalProblem(
            f"Cannot keep drafts in '{self.folder}': {error.strerror or error}. Check free space and permissions."
        )
