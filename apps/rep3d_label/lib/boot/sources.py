"""What the ``dataset.json`` of a studies folder says, refused where a server could not do with it.

A server learns from label maps that say something of each voxel and each label; and all its models are for the same
images, with one channel or with several.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lib.channels import ONE, Channels
from lib.errors import StartupError
from rep3d.errors import TaskError
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import (
    annotated_from_dataset_json,
    channels_from_dataset_json,
    ignore_from_dataset_json,
    labels_from_dataset_json,
    several,
)
from rep3d.tasks.registry import matching_task

__all__ = ["StatedData", "channels_of_models", "check_task_file"]


@dataclass(frozen=True)
class StatedData:
    """What the studies folder's ``dataset.json`` says.

    Attributes:
        labels: label name to voxel value in the folder's label files; empty where it says nothing.
        channels: names of an image's channels, in their order; of a single one it is the modality.
        task: the registered task with these labels, for images of as many channels.
        problem: why its labels are not used, where they are not usable and were not needed.
    """

    labels: Mapping[str, int]
    channels: tuple[str, ...] = ()
    task: TaskConfig | None = None
    problem: str = ""

    @property
    def modality(self) -> str | None:
        """``"CT"``, ``"MRI"``, ... of images of one channel, if it says so."""
        return self.channels[0] if len(self.channels) == 1 else None

    @classmethod
    def read(cls, path: Path, needed: bool) -> StatedData:
        """Read it; a file that is not usable is refused where its labels are ``needed``."""
        if not path.is_file():
            return cls({})
        channels: tuple[str, ...] = ()
        try:
            channels = channels_from_dataset_json(path)
            labels = _folder_labels(path)
        except TaskError as error:
            if not needed:  # but images of several channels are that whatever the labels are called
                return cls({}, several(channels), problem=str(error))
            raise StartupError(
                f"The labels in dataset.json cannot be used. {error}",
                "Correct that file, or give the labels with --conf labels a=1,b=2, with the values that the label "
                "files have.",
            ) from error
        found = cls(labels, channels)
        task = matching_task(labels, found.modality)
        if task is None or (channels and task.in_channels != len(channels)):
            return found
        return cls(task.labels, channels, task)  # the task's names are spelled rightly


def _folder_labels(path: Path) -> dict[str, int]:
    """Return the labels that the ``dataset.json`` of a studies folder names.

    Raises:
        TaskError: if it cannot be used, or says that label maps say nothing in places.
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
    return labels


def check_task_file(labels: Mapping[str, int], dataset: StatedData) -> None:
    """Refuse a task file whose labels have other values, or values other labels, than ``dataset.json`` says: label
    files of the folder would be read as what they are not.

    Args:
        labels: the task file's, name to voxel value.
        dataset: what the ``dataset.json`` says; without labels nothing is refused.

    Raises:
        StartupError: naming what differs.
    """
    said = {name.casefold(): value for name, value in dataset.labels.items()}
    names = {value: name for name, value in said.items()}
    for name, value in labels.items():
        word = name.casefold()
        if said.get(word, value) != value or names.get(value, word) != word:
            told = f"has the value {said[word]} for it" if word in said else f"calls that value {names[value]!r}"
            raise StartupError(
                f"The task file of --conf task has the value {value} for the label {name!r}, and dataset.json in the "
                f"studies folder {told}.",
                "Make them the same: give a task file for these data, or correct dataset.json.",
            )


def channels_of_models(tasks: Mapping[str, Mapping[str, TaskConfig]], dataset: StatedData) -> dict[str, Channels]:
    """Return the channels that the images of each model have.

    Args:
        tasks: name of the model to its tasks, each under the words for where it stands; the first one counts, and where
            there is none the ``dataset.json``.
        dataset: what that says.

    Raises:
        StartupError: if that is not the same for all models, or if what is said of a model or of the folder's images
            differs.
    """
    stated = {"dataset.json": Channels.named(dataset.channels)} if dataset.channels else {}
    found = {}
    for name, known in tasks.items():
        said = {**{words: Channels.of(task) for words, task in known.items()}, **stated}
        first, channels = next(iter(said.items()), ("", ONE))
        for words, other in said.items():
            if other != channels:
                raise StartupError(
                    f"{_shown(first)} is for images of {channels}, and {words} says {other}.",
                    "Serve a model for the images that there are; where they are the same images, give the channels "
                    "the same names, in the order that they have in the files.",
                )
        found[name] = channels
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} of {channels}" for name, channels in found.items())
        raise StartupError(
            f"The models to serve are for different images: {told}.",
            "Choose models for the same channels with --conf models, and serve the others from a studies folder of "
            "their own.",
        )
    return found


def _shown(words: str) -> str:
    return words[:1].upper() + words[1:]
