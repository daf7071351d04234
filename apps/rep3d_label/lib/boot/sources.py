"""What a studies folder says by itself of its labels: its ``dataset.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.errors import StartupError
from rep3d.errors import TaskError
from rep3d.tasks.config import TaskConfig, labels_from_dataset_json, modality_from_dataset_json
from rep3d.tasks.registry import matching_task

__all__ = ["StatedData"]


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
