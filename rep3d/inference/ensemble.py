"""Models that answer together, such as those of the folds of one data set: which of them can."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rep3d.checkpoint import Checkpoint
from rep3d.errors import CheckpointError
from rep3d.tasks.config import Intensity, TaskConfig

__all__ = ["check_members"]

_SHARED: tuple[tuple[str, Callable[[TaskConfig], object], Callable[[TaskConfig], str]], ...] = (
    ("number of channels", lambda task: task.in_channels, lambda task: f"{task.in_channels}{_names(task, ' ({})')}"),
    ("names of the channels", lambda task: task.channel_names, lambda task: _names(task)),
    ("intensities", lambda task: task.intensities, lambda task: "; ".join(map(_scaling, task.intensities))),
    ("labels", lambda task: task.labels, lambda task: ", ".join(f"{name} = {n}" for name, n in task.labels.items())),
    ("orientation", lambda task: task.orientation, lambda task: task.orientation),
    ("voxel size", lambda task: task.spacing, lambda task: f"{' x '.join(map(_number, task.spacing))} mm"),
)
"""What the probabilities must have in common to be averaged, voxel by voxel and label by label; and how it is told."""


def check_members(first: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Make sure that models may be averaged: they see the same image on the same grid, and give the same labels.

    Raises:
        CheckpointError: saying in what they differ.
    """
    for number, other in enumerate(others, 2):
        for what, value, words in _SHARED:
            if value(first.task) != value(other.task):
                raise CheckpointError(
                    f"The models cannot be used together: they differ in the {what}: {words(first.task)} in the first "
                    f"one, {words(other.task)} in model {number}. Give models that were trained for one task, such as "
                    f"the folds of one data set."
                )
        if first.fine or other.fine:
            raise CheckpointError(
                "The models cannot be used together: one of them has two stages, which are never averaged. Use it "
                "alone."
            )


def _names(task: TaskConfig, form: str = "{}") -> str:
    return form.format(", ".join(task.channel_names)) if task.channels else ""


def _scaling(intensity: Intensity) -> str:
    low, high = _number(intensity.low), _number(intensity.high)
    return f"values {low} to {high}" if intensity.mode == "window" else f"percentiles {low} to {high} of the image"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
