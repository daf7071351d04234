"""What a server starts from, read and refused where it could not do with it: a ``dataset.json``, a published model.

A server works with images of one channel, and learns from label maps that say something of each voxel and each label.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rep3d.checkpoint import read_checkpoint_task
from rep3d.errors import CheckpointError, TaskError
from rep3d.tasks.config import TaskConfig, labels_from_dataset_json, modality_from_dataset_json
from rep3d.tasks.dataset_json import annotated_from_dataset_json, ignore_from_dataset_json

__all__ = ["folder_labels", "published_task"]


def folder_labels(path: Path) -> tuple[dict[str, int], str | None]:
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
