"""What earlier trainings took and came to: so the next one knows what to keep back, and what its minutes will allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rep3d.tasks.config import TaskConfig
from rep3d.training.distributed import training_devices
from rep3d.training.minutes.budget import Earlier, Tail
from rep3d.training.settings import TrainSettings
from rep3d.versions.record import VersionRecord

__all__ = ["earlier_trainings", "known_tail", "speed_of", "what_tells_speed"]


def what_tells_speed(settings: TrainSettings, task: TaskConfig) -> dict[str, Any]:
    """Return what must be the same for two trainings to take as long for a step, and for a held-out case."""
    return {
        "devices": training_devices(settings),
        "preset": settings.preset,
        "crops": settings.crops,
        "spacing": list(task.spacing),
        "roi_size": list(task.roi_size),
    }


def speed_of(alike: Mapping[str, Any], **seconds: float | None) -> dict[str, Any]:
    """Return what is kept with a version: :func:`what_tells_speed`, and the times of :class:`Tail` that are known."""
    return {**alike, **{name: value for name, value in seconds.items() if value is not None}}


def known_tail(records: Sequence[VersionRecord], alike: Mapping[str, Any], cases: int) -> Tail:
    """Return what will follow a training, by the youngest versions that tell.

    Args:
        records: the versions, oldest first.
        alike: see :func:`what_tells_speed`.
        cases: segmentations to come.
    """
    times: dict[str, float] = {}
    for record in records:
        if all(record.speed.get(key) == value for key, value in alike.items()):
            for name in ("case_seconds", "other_seconds", "step_seconds"):
                value = record.speed.get(name)
                if isinstance(value, (int, float)) and value > 0:
                    times[name] = float(value)
    return Tail(cases, **times)


def earlier_trainings(records: Sequence[VersionRecord]) -> list[Earlier]:
    """Return what the trainings of a model came to, oldest first; Dice only where it was measured."""
    return [
        {
            "version": record.version,
            "iterations": record.iterations,
            "minutes": record.minutes,
            "dice": record.mean_score,
        }
        for record in records
        if record.origin == "trained"
    ]
