"""The cases that a demo plays with: those the clinician may be given, and those held out to measure on.

The two sets never meet: held-out images are not even put into the server's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rep3d.data.cases import Case, decathlon_cases
from rep3d.data.phantoms import generate_cohort
from rep3d.errors import TaskError
from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json, read_dataset_json

__all__ = ["Cohort", "decathlon_cohort", "phantom_cohort"]


@dataclass(frozen=True)
class Cohort:
    """Cases split into a pool (may be submitted) and a held-out set (never is)."""

    name: str
    labels: dict[str, int]
    modality: str | None
    pool: tuple[Case, ...]
    held_out: tuple[Case, ...]


def phantom_cohort(folder: Path, pool: int, held_out: int, seed: int) -> Cohort:
    """Generate phantoms into ``folder`` and split them; the first ones, of every geometry, are the pool."""
    generate_cohort(folder, pool + held_out, seed=seed)
    return _split(folder, pool, held_out, seed, shuffle=False)


def decathlon_cohort(folder: Path, pool: int, held_out: int, seed: int) -> Cohort:
    """Take cases from a folder in the decathlon's layout (``imagesTr``, ``labelsTr``, ``dataset.json``), at random.

    Raises:
        TaskError: if the layout is another one, or there are too few cases.
    """
    return _split(folder, pool, held_out, seed, shuffle=True)


def _split(folder: Path, pool: int, held_out: int, seed: int, shuffle: bool) -> Cohort:
    description = folder / "dataset.json"
    if not description.is_file():
        raise TaskError(
            f"{folder} is no data set: it has no dataset.json. Needed are dataset.json, imagesTr and labelsTr, as in "
            f"the Medical Segmentation Decathlon."
        )
    labels = labels_from_dataset_json(description)
    cases = decathlon_cases(folder)
    if len(cases) < pool + held_out:
        raise TaskError(
            f"{folder} has too few cases: {pool + held_out} are needed ({pool} to annotate, {held_out} to hold out), "
            f"and {len(cases)} have a file of the same name in imagesTr and labelsTr. "
            f"Ask for fewer with --submit or --held-out."
        )
    if shuffle:
        np.random.default_rng(seed).shuffle(cases)  # type: ignore[arg-type]
    name = str(read_dataset_json(description).get("name") or folder.name)
    modality = modality_from_dataset_json(description)
    return Cohort(name, labels, modality, tuple(cases[:pool]), tuple(cases[pool : pool + held_out]))
