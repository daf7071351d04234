"""What an unfinished training keeps on disk, so that it goes on where it was after its process was killed.

A snapshot is one file, replaced atomically: there is the old one or the new one, never a part. It is written by another
thread while the training goes on, and so seldom that it costs little.
"""

from __future__ import annotations

import logging
import threading
import time
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from rep3d.checkpoint import Checkpoint, write_atomically
from rep3d.data.cases import Case
from rep3d.errors import ResumeError, said
from rep3d.files import file_state
from rep3d.training.settings import OF_OLD

__all__ = [
    "COARSE_CHECKPOINT",
    "COARSE_STATE",
    "FINE_STATE",
    "RESOLUTION_FILE",
    "RunState",
    "can_go_on",
    "case_marks",
    "copy_to_cpu",
    "has_snapshot",
    "start_mark",
]

logger = logging.getLogger(__name__)

RESOLUTION_FILE = "resolution.json"
"""At which voxel size the run works, beside its snapshot."""
COARSE_STATE, FINE_STATE = "coarse", "fine"
"""Folders in that of a run of two stages."""
COARSE_CHECKPOINT = "coarse.pt"
"""The first stage of a run of two, once it is trained."""
_FILE = "run.pt"
_FORMAT = "rep3d-run"
_FORMAT_VERSION = 1
_SECONDS = 10.0  # between two snapshots
_COST = 20.0  # times what a snapshot takes is waited at least


def can_go_on(folder: Path) -> bool:
    """Return whether the folder of a run holds something from which it can go on, of whichever stage."""
    return any(has_snapshot(folder / stage) for stage in (".", COARSE_STATE, FINE_STATE)) or (
        (folder / COARSE_CHECKPOINT).exists()
    )


def has_snapshot(folder: Path) -> bool:
    """Return whether a folder holds the snapshot of one stage."""
    return (folder / _FILE).exists()


def case_marks(cases: Sequence[Case]) -> list[list[Any]]:
    """Return what tells whether cases are still the same: id, size and time of change of each file, what is known."""
    return [
        [case.id, *map(_file_mark, case.files), *([list(case.annotated)] if case.annotated is not None else [])]
        for case in cases
    ]


def _file_mark(file: Path) -> list[int] | None:
    state = file_state(Path(file))
    return None if state is None else [state[1], state[0]]


def start_mark(start: Checkpoint) -> list[Any]:
    """Return what tells whether a run starts from the same model: its version and a checksum of its weights."""
    check = 0
    for tensor in start.model.state_dict().values():
        check = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), check)
    return [start.version, check]


def copy_to_cpu(content: Any) -> Any:
    """Return a copy of nested dictionaries and lists whose tensors are copies on the CPU."""
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: copy_to_cpu(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return type(content)(copy_to_cpu(value) for value in content)
    return content


def _changes(then: Mapping[str, Any], now: Mapping[str, Any], but: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Return what differs between two identities, by name, each setting by itself."""

    def flat(identity: Mapping[str, Any]) -> dict[str, Any]:
        settings = identity.get("settings")
        parts = {f"settings.{name}": value for name, value in settings.items()} if settings else {}
        return parts | {key: value for key, value in identity.items() if key != "settings" and key not in but}

    one, other = flat(then), flat(now)
    return {key: (one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)}


class RunState:
    """The snapshots of one run.

    Args:
        folder: where they are; made if need be. Nothing else should be in it.
        identity: plain values that are the same if, and only if, the run is the same.
        seconds: least time between two snapshots; None for ten seconds.

    Attributes:
        problem: why :meth:`read` gave nothing, in words.
        changed: what was other in the run that was kept, by name (of settings: ``settings.NAME``): then, and now.
    """

    def __init__(self, folder: Path | str, identity: Mapping[str, Any], seconds: float | None = None) -> None:
        self._folder = Path(folder)
        self._path = self._folder / _FILE
        self._identity = dict(identity)
        self._seconds = _SECONDS if seconds is None else seconds
        self._last = time.monotonic()
        self._cost = 0.0
        self._writer: threading.Thread | None = None
        self.problem = "there is no snapshot of it"
        self.changed: dict[str, tuple[Any, Any]] = {}

    def read(self, but: Collection[str] = ()) -> dict[str, Any] | None:
        """Return what the interrupted run kept, or None where there is none, it is damaged, or it was another run.

        Args:
            but: parts of the identity that may differ, as they are not known yet.
        """
        if not self._path.is_file():
            return None
        try:
            with zipfile.ZipFile(self._path) as archive:  # as torch.save writes it; torch.load checks no checksum
                damaged = archive.testzip()
            if damaged is not None:
                raise OSError(f"checksum of {damaged}")
            content = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception as error:  # bytes that are no pickle can make the unpickler raise anything at all
            self._unusable(f"its snapshot is damaged ({type(error).__name__})")
            return None
        known = isinstance(content, dict) and content.get("format") == _FORMAT
        if not known or content.get("format_version") != _FORMAT_VERSION:
            self._unusable("its snapshot is of another format")
            return None
        kept = content["identity"]
        if isinstance(kept.get("settings"), dict):
            kept["settings"] = {**OF_OLD, **kept["settings"]}
        self.changed = _changes(kept, self._identity, but)
        if self.changed:
            parts = dict.fromkeys(name.partition(".")[0] for name in self.changed)
            told = ", ".join(
                f"{name.removeprefix('settings.')} {then}, now {now}"
                for name, (then, now) in self.changed.items()
                if name.startswith("settings.")
            )
            self._unusable(f"its snapshot is of a training with other {', '.join(parts)}{told and f' ({told})'}")
            return None
        return content["content"]

    def refused(self) -> ResumeError:
        """Return the error of a run that must go on from a snapshot which :meth:`read` did not give."""
        words = f"The interrupted training cannot go on: {self.problem}. Start a new one (resume: false)."
        return ResumeError(words, self.changed)

    def _unusable(self, problem: str) -> None:
        self.problem = problem
        logger.warning("%s: an interrupted training cannot go on: %s", self._path, problem)

    def due(self) -> bool:
        """Return whether a snapshot should be taken now."""
        waited = time.monotonic() - self._last >= max(self._seconds, _COST * self._cost)
        return waited and (self._writer is None or not self._writer.is_alive())

    def write(self, content: Mapping[str, Any]) -> None:
        """Copy what is to be kept and have it written beside the training.

        A disk that is full or gone does not end the training; the log says so.
        """
        self.wait()
        started = time.monotonic()
        snapshot = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "identity": self._identity,
            "content": copy_to_cpu(content),
        }

        def save() -> None:
            try:
                write_atomically(self._path, snapshot)
            except (OSError, RuntimeError) as error:
                logger.warning("%s: no snapshot was written, and the training goes on: %s", self._path, said(error))
            self._cost = time.monotonic() - started

        self._writer = threading.Thread(target=save, name="snapshot", daemon=True)
        self._writer.start()
        self._last = started

    def wait(self) -> None:
        """Until the snapshot under way is on disk."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def remove_parts(self) -> None:
        """Remove what a killed process left of a half-written snapshot."""
        for part in self._folder.glob(f".{_FILE}.*.part"):
            part.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the snapshot: the run ended, there is nothing to resume. The folder goes if nothing else is in it."""
        self.wait()
        self.remove_parts()
        self._path.unlink(missing_ok=True)
        (self._folder / RESOLUTION_FILE).unlink(missing_ok=True)
        with suppress(OSError):  # what is not ours stays, and the folder with it
            self._folder.rmdir()
