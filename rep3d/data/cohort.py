"""The cases that a demo plays with: those the clinician may be given, and those held out to measure on.

The two sets never meet: held-out images are not even put into the server's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rep3d.data.cases import Case, LeftOut, listed, read_data_set
from rep3d.data.phantoms import generate_cohort
from rep3d.errors import TaskError
from rep3d.tasks.dataset_json import (
    channels_from_dataset_json,
    labels_from_dataset_json,
    read_dataset_json,
    require_folder,
    several,
)

__all__ = ["Cohort", "decathlon_cohort", "phantom_cohort", "require_described"]

Check = Callable[[Case, Mapping[str, int], int], LeftOut | None]


@dataclass(frozen=True)
class Cohort:
    """Cases split into a pool (may be submitted) and a held-out set (never is).

    Attributes:
        found: how many cases there are, those that cannot be used included.
        left_out: what cannot be used, so far as it was looked at, with the reasons.
        channels: names of the images' channels, in their order; none of a single one, which is the modality.
    """

    name: str
    labels: dict[str, int]
    modality: str | None
    pool: tuple[Case, ...]
    held_out: tuple[Case, ...]
    found: int = 0
    left_out: tuple[LeftOut, ...] = ()
    channels: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return how many cases were found, are used, and cannot be, in words."""
        out = len({entry.id for entry in self.left_out})
        return f"{self.found} cases found, {len(self.pool) + len(self.held_out)} used, {out} left out"


def phantom_cohort(folder: Path, pool: int, held_out: int, seed: int) -> Cohort:
    """Generate phantoms into ``folder`` and split them; the first ones, of every geometry, are the pool."""
    generate_cohort(folder, pool + held_out, seed=seed)
    return _split(folder, pool, held_out)


def decathlon_cohort(
    folder: Path,
    pool: int,
    held_out: int,
    seed: int,
    reason: Check | None = None,
    without: Collection[str] = (),
) -> Cohort:
    """Take cases from a folder in the decathlon's layout (``imagesTr``, ``labelsTr``, ``dataset.json``), at random.

    Args:
        folder: the data set.
        pool: how many may be submitted.
        held_out: how many others are measured on.
        seed: of the choice.
        reason: says of a case, with the labels and the number of channels, why it cannot be used: another is taken in
            its place. None for one that can. Without it they are taken unread.
        without: ids of cases that are not taken: a model that is there already was trained on them.

    Raises:
        TaskError: if the layout is another one, or there are too few cases.
    """
    return _split(folder, pool, held_out, seed, reason, without)


def require_described(folder: Path) -> None:
    """Refuse, before any work, what is no folder with a ``dataset.json``.

    Raises:
        TaskError: saying what is missing.
    """
    require_folder(folder)
    if not (folder / "dataset.json").is_file():
        raise TaskError(
            f"{folder} is no data set: it has no dataset.json. Needed are dataset.json, imagesTr and labelsTr, as in "
            f"the Medical Segmentation Decathlon."
        )


def _split(
    folder: Path,
    pool: int,
    held_out: int,
    seed: int | None = None,
    reason: Check | None = None,
    without: Collection[str] = (),
) -> Cohort:
    require_described(folder)
    description = folder / "dataset.json"
    labels, channels = labels_from_dataset_json(description), channels_from_dataset_json(description)
    data = read_data_set(folder)
    cases, left_out = [case for case in data.cases if case.id not in without], list(data.left_out)
    usable: list[Case] = []
    if seed is not None:
        np.random.default_rng(seed).shuffle(cases)  # type: ignore[arg-type]
    for case in cases:
        if len(usable) == pool + held_out:
            break
        if case.annotated is not None:
            words = "only some of its labels were annotated, and a clinician corrects all of them."
            left_out.append(LeftOut(case.id, f"{case.label.parent.name}/{case.label.name}", words))
        elif (problem := reason(case, labels, max(1, len(channels))) if reason else None) is None:
            usable.append(case)
        else:
            left_out.append(problem)
    if len(usable) < pool + held_out:
        seen = len(data.cases) - len(cases)
        why = f" {seen} are not taken, as the model was trained on them." if seen else ""
        why += f" Left out: {listed(left_out)}" if left_out else ""
        raise TaskError(
            f"{folder} has too few cases: {pool + held_out} are needed ({pool} to annotate, {held_out} to hold out), "
            f"and {len(usable)} of {data.found} can be used. Ask for fewer with --submit or --held-out.{why}"
        )
    name = str(read_dataset_json(description).get("name") or folder.name)
    modality = channels[0] if len(channels) == 1 else None
    parts = tuple(usable[:pool]), tuple(usable[pool:])
    return Cohort(name, labels, modality, *parts, data.found, tuple(left_out), several(channels))
