"""What a studies folder says by itself of labels and tasks: its ``dataset.json``, and the models published there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import StartupError
from lib.paths import Workspace
from rep3d.checkpoint import read_checkpoint_task
from rep3d.errors import CheckpointError, TaskError
from rep3d.tasks.config import TaskConfig, labels_from_dataset_json, modality_from_dataset_json
from rep3d.tasks.registry import matching_task

__all__ = ["PublishedModel", "StatedData", "damaged_checkpoint"]


@dataclass(frozen=True)
class StatedData:
    """What the studies folder's ``dataset.json`` says.

    Attributes:
        labels: label name to voxel value in the folder's label files; empty where it says nothing.
        modality: ``"CT"``, ``"MRI"``, ..., if it says so.
        task: the registered task with these labels.
        problem: why it is not used, where it is not usable and was not needed.
    """

    labels: Mapping[str, int]
    modality: str | None
    task: TaskConfig | None
    problem: str = ""

    @classmethod
    def read(cls, path: Path, needed: bool) -> StatedData:
        """Read it; a file that is not usable is refused where its labels are ``needed``."""
        if not path.is_file():
            return cls({}, None, None)
        try:
            labels, modality = labels_from_dataset_json(path), modality_from_dataset_json(path)
        except TaskError as error:
            if not needed:
                return cls({}, None, None, str(error))
            raise StartupError(
                f"The labels in dataset.json cannot be used. {error}",
                "Correct that file, or give the labels with --conf labels a=1,b=2, with the values that the label "
                "files have.",
            ) from error
        task = matching_task(labels, modality)
        return cls(task.labels if task else labels, modality, task)  # the task's names are spelled rightly


@dataclass(frozen=True)
class PublishedModel:
    """The checkpoint that a model will answer with.

    Attributes:
        path: the file; it may not exist.
        task: its task, or None where there is none.
        facts: what it says about its origin.
    """

    path: Path
    task: TaskConfig | None
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, workspace: Workspace, name: str, adopts: bool) -> PublishedModel:
        path = workspace.model(name).published
        if adopts and workspace.adopted.exists():
            path = workspace.adopted
        if not path.exists():
            return cls(path, None, {})
        try:
            return cls(path, *read_checkpoint_task(path))
        except CheckpointError as error:
            raise damaged_checkpoint(path, error) from error


def damaged_checkpoint(path: Path, error: CheckpointError) -> StartupError:
    """Return the refusal to start with a published model that cannot be used."""
    return StartupError(
        f"The published model cannot be loaded. {error}",
        f"Move {path} away (the server then starts without a model).",
    )
