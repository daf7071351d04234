"""A task file, or a registered task by name, as a training takes it: checked before anything long begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rep3d.errors import ConfigError, TaskError
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import several
from rep3d.tasks.file import TaskFile, is_task_file, read_task_file
from rep3d.tasks.registry import registered_task, same_modality, spelled_rightly
from rep3d.training.settings import TrainSettings

__all__ = ["check_model_of_task", "checked_task_file", "task_to_go_on_with", "task_to_train"]


def checked_task_file(word: str) -> TaskFile:
    """Return what a word names, a task file (``.yaml``) or a registered task, with settings that a training knows.

    Raises:
        TaskError: if there is none, or the file says something impossible; the message names file and field.
    """
    if not is_task_file(word):
        return TaskFile(registered_task(word))
    known = read_task_file(word)
    try:
        replace(TrainSettings(), **known.training.given())
    except ConfigError as error:
        raise TaskError(f"{word}: the field 'training': {error}") from error
    return known


def task_to_train(
    word: str, labels: Mapping[str, int], channels: Sequence[str], ignore: int | None, description: Path
) -> TaskFile:
    """Return the same, for a data set whose label maps it fits.

    Args:
        word: see :func:`checked_task_file`.
        labels: label name to voxel value, as the data set says.
        channels: names of its images' channels, of a single one the modality; none where it does not say.
        ignore: value in its label maps of which nothing is known; None where there is none.
        description: the data set's ``dataset.json``, for the message.

    Raises:
        TaskError: also if labels, channels or the kind of image are others: a wrong value would falsify all.
    """
    known = checked_task_file(word)
    labels = labels if dict(known.task.labels) == dict(labels) else spelled_rightly(labels)
    if dict(known.task.labels) != dict(labels):
        own = {name: value for name, value in known.task.labels.items() if labels.get(name) != value}
        other = {name: value for name, value in labels.items() if known.task.labels.get(name) != value}
        raise TaskError(
            f"The task {word} and {description} name different labels: {own or 'none'} is only in the task, "
            f"{other or 'none'} only in the data set. Make them the same."
        )
    if known.task.ignore not in (None, ignore):
        raise TaskError(
            f"The task {word} ignores the value {known.task.ignore}, and {description} has "
            f"{'no value' if ignore is None else ignore} to ignore. Make them the same."
        )
    known = replace(known, task=replace(known.task, ignore=ignore))
    modality = channels[0] if len(channels) == 1 else None
    if known.task.channel_names != several(channels):
        raise TaskError(
            f"The task {word} has the channels {', '.join(known.task.channel_names) or 'one'}, and {description} names "
            f"{', '.join(channels) or 'one'}. Make them the same, in the same order."
        )
    if not same_modality(known.task.modality, modality):
        raise TaskError(
            f"The task {word} is for {known.task.modality}, and the images of {description} are {modality}. Correct "
            f"one of them."
        )
    return known


def task_to_go_on_with(word: str, known: TaskConfig, start: TaskConfig) -> TaskConfig:
    """Return the task of a model at the voxel size and patch of a task file; what the model learned to see stays.

    Args:
        word: names the task file, for the message.
        known: the file's task.
        start: the model's.

    Raises:
        TaskError: if the model saw images that were prepared in another way than by voxel size.
    """
    check_model_of_task(word, known, start, "Begin a new model, or take the model's in the task.")
    return replace(start, spacing=known.spacing, roi_size=known.roi_size)


def check_model_of_task(word: str, known: TaskConfig, model: TaskConfig, advice: str) -> None:
    """Make sure that a model's labels are those of a task, and that it sees images as the task says.

    Its voxel size and patch may be others: a training may choose them by the minutes that it has.

    Args:
        word: names the task file, for the message.
        known: the file's task.
        model: the model's.
        advice: what to do where they differ.

    Raises:
        TaskError: if they do.
    """
    others = {"name", "description", "terms", "modality", "ignore", "spacing", "roi_size"}
    own = model.to_dict()
    for name, value in known.to_dict().items():
        if name not in others and value != own.get(name):
            raise TaskError(
                f"The task {word} has the {name} {value!r:.200}, the model {own.get(name)!r:.200}. {advice}"
            )
