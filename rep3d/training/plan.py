"""What is to be trained, from what, into what: all that passes from a caller to the processes of a training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rep3d import __version__
from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case, LeftOut
from rep3d.files import utc_now
from rep3d.memory import free_and_total
from rep3d.nn.config import NetworkConfig, Rep3DConfig
from rep3d.nn.network import Network
from rep3d.nn.zoo import build_network, preset_config
from rep3d.starter.facts import inherited
from rep3d.tasks.config import TaskConfig
from rep3d.training.minutes.budget import Tail
from rep3d.training.minutes.step_memory import step_memory
from rep3d.training.sampling import case_weights
from rep3d.training.settings import TrainSettings
from rep3d.training.snapshots import case_marks, start_mark
from rep3d.training.start import as_fine_stage, encoder_mark, with_encoder_of

__all__ = ["TrainPlan", "first_config", "first_network", "room_to_hold"]

logger = logging.getLogger(__name__)

_LEFT_FREE = 10**9  # bytes of memory that are never taken to hold cases


@dataclass(frozen=True)
class TrainPlan:
    """What to train, from what, into what; the fields are the arguments of :func:`rep3d.training.train.train`."""

    cases: Sequence[Case]
    task: TaskConfig
    settings: TrainSettings
    output: Path
    start: Checkpoint | None = None
    validation: Sequence[Case] = ()
    weights: Mapping[str, float] | None = None
    state: Path | None = None
    other_values: tuple[int, ...] = ()
    must_resume: bool = False
    left_out: Sequence[LeftOut] = ()
    encoder: Checkpoint | None = None
    coarse: Checkpoint | None = None
    prepared: Path | None = None
    prepared_most: int | None = None  # bytes of them that stay between trainings
    held_most: int = 0  # bytes of them that are held in memory
    resolution: Mapping[str, Any] | None = None  # what the task's voxel size rests on, where it was chosen
    began: float | None = None
    spent: float = 0.0  # seconds of the minutes that were used before it began
    tail: Tail = Tail()
    best: Path | None = None
    table: Path | None = None
    tensorboard: Path | None = None
    run_mark: str | None = None  # of a run that can be resumed: by what its checkpoint is known again

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for an interrupted run to be resumed."""
        return {
            "cases": case_marks(self.cases),
            "validation cases": case_marks(self.validation),
            "weights": case_weights(self.cases, self.weights),
            "settings": self._settings(),
            "task": self.task.to_dict(),
            "start": start_mark(self.start) if self.start else None,
            "encoder": start_mark(self.encoder) if self.encoder else None,
            "coarse": start_mark(self.coarse) if self.coarse else None,
            "other values": sorted(self.other_values),
            "program": __version__,
        }

    def mark(self) -> str:
        """Return what tells whether a checkpoint is of this very run: a checksum of :meth:`identity`."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True, default=str).encode()).hexdigest()

    def facts(self, marks: Mapping[str, str], left_out: Sequence[LeftOut]) -> dict[str, Any]:
        """Return what a checkpoint says of how it was trained, as plain JSON types.

        Args:
            marks: what the image of each case is known by that was trained on, by id.
            left_out: those that could not be used.
        """
        parent = self.start.info if self.start else {}
        encoder = self.encoder.info if self.encoder else {}
        before = [id_ for info in (parent, encoder) for id_ in info.get("trained_on", info.get("cases", []))]
        generation = int(parent.get("generation", 0)) + 1
        ids = list(marks)
        return {
            "version": f"v{generation}",
            "generation": generation,
            "parent": parent.get("version"),
            "created": utc_now(),
            "cases": ids,
            "trained_on": sorted({*before, *ids}),
            "images": _joined(encoder.get("images", {}), parent.get("images", {}), {id_: [marks[id_]] for id_ in ids}),
            "left_out": [entry.to_dict() for entry in left_out],
            "validation_cases": [case.id for case in self.validation],
            "preset": parent.get("preset", self.settings.preset),
            "encoder_from": encoder_mark(self.encoder) if self.encoder else parent.get("encoder_from"),
            "starter": inherited(parent) or inherited(encoder),
            "resolution": dict(self.resolution) if self.resolution else None,
            "head": parent.get("head"),  # what rep3d.training.head changed before this run
            "sampling": self.settings.sampling,
            "background_share": self.settings.background_share,
            "loss_function": self.settings.loss,
            "settings": self._settings(),
            **({"run_mark": self.run_mark} if self.run_mark else {}),
        }

    def _settings(self) -> dict[str, Any]:
        settings = dataclasses.asdict(self.settings)
        return {**settings, "gpus": str(settings["gpus"])}


def _joined(*images: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the marks of the images that a model was trained on, by case; several may have had one name."""
    found: dict[str, set[str]] = {}
    for one in images:
        for id_, marks in one.items():
            found.setdefault(id_, set()).update(marks)
    return {id_: sorted(marks) for id_, marks in sorted(found.items())}


def first_config(
    settings: TrainSettings, out_channels: int, roi_size: Sequence[int], in_channels: int = 1
) -> Rep3DConfig | NetworkConfig:
    """Return what network a training begins with that begins with none."""
    config = preset_config(settings.preset, in_channels, out_channels, roi_size)
    if isinstance(config, Rep3DConfig):
        return dataclasses.replace(config, spatial_prior=settings.variant)
    return config


def first_network(plan: TrainPlan) -> Network:
    """Return the network that is trained, as it is before the first step."""
    if plan.start is None:
        task = plan.task
        # The image's, and those of the labels: see rep3d.training.layered.
        channels = task.in_channels + (task.out_channels - 1 if plan.coarse else 0)
        network = build_network(first_config(plan.settings, task.out_channels, task.roi_size, channels))
        if plan.coarse:
            return as_fine_stage(network, plan.coarse)
        return with_encoder_of(network, plan.encoder) if plan.encoder else network
    network = build_network(plan.start.model.config)
    network.load_state_dict(plan.start.model.state_dict())
    return network


def room_to_hold(plan: TrainPlan, in_channels: int, on_cpu: bool) -> int:
    """Return how many bytes of cases are held in memory; where that is less than was asked for, it is logged.

    Args:
        plan: what to train.
        in_channels: of the network.
        on_cpu: whether its steps take memory of the same machine, which is left free for them.
    """
    if not plan.held_most:
        return 0
    step = 0
    if on_cpu:
        memory = step_memory(plan.settings.preset, in_channels, plan.task.out_channels)
        together = plan.settings.micro_batch or plan.settings.crops * plan.settings.batch
        step = memory.fixed + round(memory.per_voxel * together * math.prod(plan.task.roi_size))
    free, _ = free_and_total()
    room = min(plan.held_most, max(0, free - step - _LEFT_FREE))
    if room < plan.held_most:
        logger.warning(
            "at most %.1f GB of cases are held in memory, not %.1f: %.1f GB are free, and a training step takes %.1f",
            *(number / 1e9 for number in (room, plan.held_most, free, step)),
        )
    return room
