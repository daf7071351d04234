"""The tasks that Rep3D knows by name: those of the paper (arXiv 2505.19603) and the decathlon's hippocampus.

Each is a task file in the folder ``known`` (:mod:`rep3d.tasks.file`), read when it is first asked for. Spacing,
intensity windows and patches of the first five are the paper's. Names and values are those of the data sets' own
``dataset.json`` files, but for AMOS's "arota" and "gall bladder"; AMOS's MR images are annotated with the first
thirteen of its labels. Codes are SNOMED CT's as 3D Slicer's terminologies and DICOM (PS3.16) use them; prostate/uterus
has none, since no single code says two organs. No weights come with a task: a table of tasks is no claim of accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from rep3d.errors import TaskError
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.file import is_task_file, read_task_file

__all__ = ["TASKS", "known_task", "matching_task", "registered_task", "same_modality", "spelled_rightly"]

_KNOWN = Path(__file__).with_name("known")


class _Tasks(Mapping[str, TaskConfig]):
    """The registered tasks by name; only the names are known without reading a file."""

    def __getitem__(self, name: str) -> TaskConfig:
        if name not in _names():
            raise KeyError(name)
        return _read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_names())

    def __len__(self) -> int:
        return len(_names())


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _KNOWN.glob("*.yaml")))


@cache
def _read(name: str) -> TaskConfig:
    task = read_task_file(_KNOWN / f"{name}.yaml").task
    if task.name != name:
        raise TaskError(f"{name}.yaml: the field 'name': expected {name!r}, got {task.name!r}")
    return task


TASKS: Mapping[str, TaskConfig] = _Tasks()

# What the data sets' own files write where we write it otherwise.
_PUBLISHED_SPELLINGS: Mapping[str, str] = {"arota": "aorta", "gall bladder": "gallbladder"}


def registered_task(name: str) -> TaskConfig:
    """Return the task of that name.

    Raises:
        TaskError: if there is none.
    """
    if name not in TASKS:
        raise TaskError(f"There is no task {name!r}. There are: {', '.join(TASKS)}; or name a task file (.yaml).")
    return TASKS[name]


def known_task(word: str) -> TaskConfig:
    """Return the task that a word names: a task file (``.yaml``), or a registered task.

    Raises:
        TaskError: if there is none, or the file cannot be used.
    """
    return read_task_file(word).task if is_task_file(word) else registered_task(word)


def same_modality(one: str | None, other: str | None) -> bool:
    """Return whether two names of modalities may mean the same; ``"MR"`` is ``"MRI"``, and a missing one may be any."""
    first, second = ((text or "").upper().replace("MRI", "MR") for text in (one, other))
    return not first or not second or first == second


def spelled_rightly(labels: Mapping[str, int]) -> dict[str, int]:
    """Return labels as a data set names them, with the published misspellings of AMOS corrected."""
    return {_PUBLISHED_SPELLINGS.get(name, name): value for name, value in labels.items()}


def matching_task(labels: Mapping[str, int], modality: str | None = None) -> TaskConfig | None:
    """Return the registered task with the same label names and voxel values, or None.

    Args:
        labels: label name to voxel value, as a data set says; the published misspellings of AMOS are understood.
        modality: ``"CT"``, ``"MRI"``, ... of the images, if known; a task for another one does not match.
    """
    spelled = spelled_rightly(labels)
    for task in TASKS.values():
        if spelled == task.labels and same_modality(modality, task.modality):
            return task
    return None
