"""A data set looked at, and what it suggests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rep3d.data.cases import DataSet, listed, read_data_set
from rep3d.errors import NoCasesError
from rep3d.inference.predictor import choose_device
from rep3d.memory import free_and_total
from rep3d.nn.zoo import preset_stride, preset_word
from rep3d.planning.fingerprint import Fingerprint, fingerprint
from rep3d.planning.inspecting import Inspection, inspect
from rep3d.planning.proposal import Proposal, propose
from rep3d.tasks.dataset_json import (
    channels_from_dataset_json,
    ignore_from_dataset_json,
    labels_from_dataset_json,
    several,
)
from rep3d.training.minutes.speed import default_preset
from rep3d.training.minutes.step_memory import step_memory

__all__ = ["Plan", "plan"]

_SHOWN = 6  # cases of which slices are shown


@dataclass(frozen=True)
class Plan:
    """A data set, what was found in it, and what is proposed.

    Attributes:
        name: of the data set.
        modality: as the data set says it; None where it does not.
        seen: what was found in its files.
        measured: what they measure together.
        proposal: the task file.
    """

    name: str
    modality: str | None
    seen: Inspection
    measured: Fingerprint
    proposal: Proposal


def plan(
    folder: Path,
    *,
    name: str | None = None,
    preset: str | None = None,
    device: str | None = None,
    memory_gb: float | None = None,
    report: Callable[[int, int], None] = lambda done, of: None,
) -> Plan:
    """Look at a data set, and propose a task file.

    Args:
        folder: the data set, with a ``dataset.json``.
        name: of the task; None for the folder's name.
        preset: the network to plan for; None for what suits the device.
        device: where it will be trained; None for the best there is.
        memory_gb: what a training may take there; None for all that the device has.
        report: called with how many cases were read, and of how many.

    Raises:
        TaskError: if the folder is no data set.
        NoCasesError: if none of its cases can be used, with the reasons.
    """
    description = folder / "dataset.json"
    labels, ignore = labels_from_dataset_json(description), ignore_from_dataset_json(description)
    names = channels_from_dataset_json(description)
    channels = several(names)
    modality = None if channels else next(iter(names), None)
    count = len(channels) or 1
    where = torch.device(choose_device(device))
    word = preset_word(preset) if preset else default_preset(where)
    data = read_data_set(folder)
    seen = inspect(data, labels, _shown(data), report, count, ignore)
    if not seen.facts:
        why = listed([defect.entry for defect in seen.defects])
        raise NoCasesError(f"{folder} has no case that can be used. {why}")
    measured = fingerprint(seen.facts, labels)
    called = name or folder.resolve().name
    proposal = propose(
        called,
        labels,
        modality,
        seen.facts,
        measured,
        word,
        preset_stride(word),
        step_memory(word, count, len(labels) + 1).of,
        _memory(where) if memory_gb is None else round(memory_gb * 1e9),
        on_gpu=where.type == "cuda",
        channels=channels,
        ignore=ignore,
    )
    return Plan(called, modality, seen, measured, proposal)


def _shown(data: DataSet) -> set[str]:
    """Return the cases of which slices are kept, evenly over the names."""
    step = max(1, len(data.cases) // _SHOWN)
    return {case.id for case in data.cases[::step][:_SHOWN]}


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return free_and_total()[1]
