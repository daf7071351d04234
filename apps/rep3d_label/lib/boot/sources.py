"""What a server starts from, read and refused where it could not do with it: a ``dataset.json``, a published model.

A server works with images of one channel, and learns from label maps that say something of each voxel and each label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.errors import StartupError
from rep3d.checkpoint import read_checkpoint_task
from rep3d.errors import CheckpointError, TaskError
from rep3d.tasks.config import TaskConfig, labels_from_dataset_json, modality_from_dataset_json
from rep3d.tasks.dataset_json import annotated_from_dataset_json, ignore_from_dataset_json
from rep3d.tasks.registry import matching_task

__all__ = ["StatedData", "published_task"]


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
            labels, modality = _folder_labels(path)
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


def _folder_labels(path: Path) -> tuple[dict[str, int], str | None]:
    """Return the labels and the modality that the ``dataset.json`` of a studies folder names.

    Raises:
        TaskError: if it cannot be used, names several channels, or says that label maps say nothing in places.
    """
    labels, ignore, annotated = (
        labels_from_dataset_json(path),
        ignore_from_dataset_json(path),
        annotated_from_dataset_json(path),
    )
    if ignore is not None:
        raise TaskError(
            f"{path}: 'ignore' ({ignore}) is nnU-Net's name for voxels of which nothing is known, and no structure. A "
            f"server cannot leave voxels out: train with rep3d train, or use no label maps with the value {ignore}."
        )
    if annotated.everywhere is not None or annotated.by_case:
        raise TaskError(
            f"{path}: it says under 'annotated' that only some labels were drawn. A server takes each label map for "
            f"complete: train with rep3d train, or complete them and remove 'annotated'."
        )
    return labels, modality_from_dataset_json(path)


def published_task(path: Path) -> tuple[TaskConfig, dict[str, Any]]:
    """Return the task of a published model, and what it says about its origin.

    Raises:
        CheckpointError: if it cannot be used, or takes images of several channels.
    """
    task, facts = read_checkpoint_task(path)
    if task.in_channels > 1:
        names = ", ".join(channel.name for channel in task.channels)
        raise CheckpointError(
            f"{path} is for images of {task.in_channels} channels ({names}), and a server takes images of one. Use it "
            f"with rep3d segment."
        )
    return task, facts
