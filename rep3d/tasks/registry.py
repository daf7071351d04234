"""The tasks that Rep3D knows by name: those of the paper (arXiv 2505.19603) and the decathlon's hippocampus.

They are in ``tasks.json``, in the form of :meth:`rep3d.tasks.config.TaskConfig.to_dict`. Spacing, intensity windows and
patches of the first five are the paper's. Names and values are those of the data sets' own ``dataset.json`` files, but
for AMOS's "arota" and "gall bladder"; AMOS's MR images are annotated with the first thirteen of its labels. Codes are
SNOMED CT's as 3D Slicer's terminologies and DICOM (PS3.16) use them; prostate/uterus has none, since no single code
says two organs. No weights come with a task: a table of tasks is no claim of accuracy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from rep3d.errors import TaskError
from rep3d.tasks.config import TaskConfig

__all__ = ["TASKS", "matching_task", "registered_task", "same_modality"]


def _read() -> dict[str, TaskConfig]:
    content = json.loads(Path(__file__).with_name("tasks.json").read_text(encoding="utf-8"))
    return {task.name: task for task in map(TaskConfig.from_dict, content)}


TASKS: Mapping[str, TaskConfig] = MappingProxyType(_read())

# What the data sets' own files write where we write it otherwise.
_PUBLISHED_SPELLINGS: Mapping[str, str] = {"arota": "aorta", "gall bladder": "gallbladder"}


def registered_task(name: str) -> TaskConfig:
    """Return the task of that name.

    Raises:
        TaskError: if there is none.
    """
    if name not in TASKS:
        raise TaskError(f"There is no task {name!r}. There are: {', '.join(TASKS)}.")
    return TASKS[name]


def same_modality(one: str | None, other: str | None) -> bool:
    """Return whether two names of modalities may mean the same; ``"MR"`` is ``"MRI"``, and a missing one may be any."""
    first, second = ((text or "").upper().replace("MRI", "MR") for text in (one, other))
    return not first or not second or first == second


def matching_task(labels: Mapping[str, int], modality: str | None = None) -> TaskConfig | None:
    """Return the registered task with the same label names and voxel values, or None.

    Args:
        labels: label name to voxel value, as a data set says; the published misspellings of AMOS are understood.
        modality: ``"CT"``, ``"MRI"``, ... of the images, if known; a task for another one does not match.
    """
    spelled = {_PUBLISHED_SPELLINGS.get(name, name): value for name, value in labels.items()}
    for task in TASKS.values():
        if spelled == task.labels and same_modality(modality, task.modality):
            return task
    return None
