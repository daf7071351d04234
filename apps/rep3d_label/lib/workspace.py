"""The app's own files below the studies folder, and how they are written: whole or not at all.

Everything that the app knows besides images and labels is in ``STUDIES/rep3d``: the models with their versions, scores
and the state of training, earlier labels, removed cases. Moving that folder moves the knowledge with the data.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["ModelWorkspace", "Workspace", "copy_whole", "read_json", "utc_now", "whole_file", "write_text"]

PART_SUFFIX = ".part"


@dataclass(frozen=True)
class ModelWorkspace:
    """Paths of what belongs to one served model.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d/models/NAME``.
    """

    root: Path

    @property
    def published(self) -> Path:
        """The checkpoint that answers requests."""
        return self.root / "published.pt"

    @property
    def roles(self) -> Path:
        """Which cases train and which validate, for ever, as JSON."""
        return self.root / "roles.json"

    @property
    def run(self) -> Path:
        """What a training that has not ended needs to be resumed."""
        return self.root / "run"

    @property
    def train_status(self) -> Path:
        """What the training does or did last, as JSON."""
        return self.root / "train_status.json"

    @property
    def scores(self) -> Path:
        """How useful each image without a label would be, as JSON."""
        return self.root / "scores.json"

    @property
    def features(self) -> Path:
        """Encoder features of the images."""
        return self.root / "features.npz"

    @property
    def batch(self) -> Path:
        """What the batch inference does or did last, as JSON."""
        return self.root / "batch.json"


@dataclass(frozen=True)
class Workspace:
    """Paths of the app's own data.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d``.
    """

    root: Path

    @property
    def labels(self) -> Path:
        """Which voxel value stands for which label name, as JSON."""
        return self.root / "labels.json"

    @property
    def leases(self) -> Path:
        """Who works on which image, as JSON."""
        return self.root / "leases.json"

    @property
    def reviews(self) -> Path:
        """Which labels were reviewed, and by whom, as JSON."""
        return self.root / "reviews.json"

    @property
    def history(self) -> Path:
        """Earlier labels, one folder per image."""
        return self.root / "history"

    @property
    def predictions(self) -> Path:
        """The last prediction for each image of the studies folder."""
        return self.root / "predictions"

    @property
    def removed(self) -> Path:
        """Images that were removed, with their labels."""
        return self.root / "removed"

    @property
    def models(self) -> Path:
        """One folder per model."""
        return self.root / "models"

    def model(self, name: str) -> ModelWorkspace:
        """Where the data of a model are."""
        return ModelWorkspace(self.models / name)

    @property
    def adopted(self) -> Path:
        """Where somebody may put a checkpoint before the server starts; it becomes the default model's."""
        return self.root / "published.pt"

    def prepare(self, default_model: str) -> None:
        """Makes the folders, takes in a checkpoint that was put there, and removes what a killed process left behind.

        Args:
            default_model: the model that a checkpoint at ``published.pt`` is for.
        """
        target = self.model(default_model)
        target.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.rglob(f".*{PART_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        if self.adopted.exists():
            os.replace(self.adopted, target.published)


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears at ``path`` when it is complete: a reader, or a crash, finds the old one or the new.

    Until then it lies beside it under a hidden name whose suffix the watcher of the studies folder ignores.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def copy_whole(source: Path, target: Path) -> None:
    """Copies a file's content by way of :func:`whole_file`."""
    with source.open("rb") as file, whole_file(target) as out:
        shutil.copyfileobj(file, out)


def write_text(path: Path, text: str) -> None:
    """Writes a text file by way of :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode("utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of ours; empty where there is no file yet, or one that is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
