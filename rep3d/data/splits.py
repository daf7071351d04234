"""k-fold splits, kept in a file: which cases a fold is trained on, and which it is measured on.

The file is nnU-Net's ``splits_final.json``: a list with one object per fold, ``{"train": [ids], "val": [ids]}``. So
both programs can be compared on the same folds. A split that is made here depends on the ids of the cases alone: jobs
that make it at the same time make the same one. Cases of one patient are kept together where a file says which they
are; it is never guessed from their names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rep3d.data.cases import Case, LeftOut
from rep3d.errors import ConfigError
from rep3d.files import write_text
from rep3d.json_text import parse_json

__all__ = ["Fold", "hash_order", "make_splits", "read_patients", "read_splits", "split_cases", "write_splits"]


@dataclass(frozen=True)
class Fold:
    """The ids of the cases that a fold is trained on, and of those that it is measured on."""

    training: tuple[str, ...]
    validation: tuple[str, ...]


def hash_order(id_: str) -> tuple[str, str]:
    """Return by what ids are sorted so that their order has nothing to do with how they are named."""
    return hashlib.sha256(id_.encode()).hexdigest(), id_


def make_splits(ids: Collection[str], folds: int, patients: Mapping[str, str] | None = None) -> list[Fold]:
    """Return folds in which each case is measured on once; they are as equally large as patients allow.

    Args:
        ids: of the cases.
        folds: how many.
        patients: case id to patient, whose cases stay in one fold; a case that is not there is a patient of its own.

    Raises:
        ConfigError: if there are fewer patients than folds, or less than two folds.
    """
    groups: dict[tuple[bool, str], list[str]] = {}
    for id_ in sorted(ids):
        known = (patients or {}).get(id_)
        groups.setdefault((known is not None, id_ if known is None else known), []).append(id_)
    if not 2 <= folds <= len(groups):
        whom = "cases" if patients is None else "patients"
        raise ConfigError(f"--folds: expected from 2 to {len(groups)}, as there are {len(groups)} {whom}, got {folds}.")
    held_out: list[list[str]] = [[] for _ in range(folds)]
    for _, cases in sorted(groups.items(), key=lambda group: (-len(group[1]), hash_order(group[0][1]))):
        min(held_out, key=len).extend(cases)
    return [Fold(tuple(sorted(set(ids) - set(part))), tuple(sorted(part))) for part in held_out]


def write_splits(path: Path, folds: Sequence[Fold]) -> None:
    """Write folds in nnU-Net's form, whole or not at all."""
    content = [{"train": fold.training, "val": fold.validation} for fold in folds]
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_splits(path: Path) -> list[Fold]:
    """Return the folds of a file in nnU-Net's form.

    Raises:
        ConfigError: if it cannot be read, is of another form, or a fold measures on what it is trained on.
    """
    content = _parsed(path, "--splits")
    if not isinstance(content, list) or not content:
        raise ConfigError(f"--splits: {path} must hold a list of folds, each an object with 'train' and 'val'.")
    folds = []
    for number, entry in enumerate(content):
        parts: list[Any] = [entry.get(name) for name in ("train", "val")] if isinstance(entry, dict) else []
        if not parts or not all(_is_list_of_ids(part) for part in parts):
            raise ConfigError(f"--splits: fold {number} of {path} has no 'train' and 'val', each a list of case ids.")
        if both := sorted(set(parts[0]) & set(parts[1])):
            raise ConfigError(f"--splits: fold {number} of {path} is trained and measured on {', '.join(both[:5])}.")
        folds.append(Fold(*(tuple(dict.fromkeys(part)) for part in parts)))
    return folds


def read_patients(path: Path) -> dict[str, str]:
    """Return case id to patient from a JSON object, or from a CSV file with the columns ``case`` and ``patient``.

    Raises:
        ConfigError: if the file cannot be read, or says two things of one case.
    """
    if path.suffix.lower() != ".csv":
        content = _parsed(path, "--patients")
        if not isinstance(content, dict) or not all(isinstance(name, str) and name for name in content.values()):
            raise ConfigError(f"--patients: {path} must hold an object of case ids, each with its patient, a text.")
        return content
    rows = csv.DictReader(io.StringIO(_read(path, "--patients").decode("utf-8-sig", "replace")))
    if not {"case", "patient"} <= set(rows.fieldnames or ()):
        raise ConfigError(f"--patients: the first line of {path} must name the columns case and patient.")
    found: dict[str, str] = {}
    for row in rows:
        case, patient = row["case"], row["patient"]
        if not case or not patient or found.setdefault(case, patient) != patient:
            raise ConfigError(f"--patients: line {rows.line_num} of {path} has no case, no patient, or a second one.")
    return found


def split_cases(
    cases: Sequence[Case],
    fold: int,
    path: Path,
    folds: int | None = None,
    patients: Mapping[str, str] | None = None,
) -> tuple[list[Case], list[Case], list[LeftOut]]:
    """Return the cases to train on and to measure on in a fold; the file is written first where there is none.

    Args:
        cases: all that can be used.
        fold: which one, from 0.
        path: the file of the splits.
        folds: how many to make; where the file is there, how many it must have. None for as many as it has.
        patients: see :func:`make_splits`; a split that parts a patient's cases is refused.

    Returns:
        Training cases, held-out cases, and what is in the data set or in the fold, but not in both.

    Raises:
        ConfigError: if there is no such fold, nothing to train or to measure on, or the file does not fit.
        OSError: if it cannot be written.
    """
    if not path.exists():
        if folds is None:
            raise ConfigError(f"--splits: there is no file {path}. Give --folds as well to have it made.")
        if not 0 <= fold < folds:  # before a file is made of it
            raise ConfigError(f"--fold: expected from 0 to {folds - 1}, the folds of --folds, got {fold}.")
        write_splits(path, make_splits([case.id for case in cases], folds, patients))
    known = read_splits(path)
    if folds not in (None, len(known)):
        raise ConfigError(
            f"--folds: {path} has {len(known)} folds, not {folds}. Leave --folds out, or name a new file."
        )
    if not 0 <= fold < len(known):
        raise ConfigError(f"--fold: expected from 0 to {len(known) - 1}, the folds of {path}, got {fold}.")
    wanted = known[fold]
    _refuse_parted(wanted, patients or {}, fold, path)
    there = {case.id: case for case in cases}
    training, held_out = ([there[id_] for id_ in ids if id_ in there] for ids in (wanted.training, wanted.validation))
    for part, words in ((training, "train"), (held_out, "measure")):
        if not part:
            raise ConfigError(f"--splits: fold {fold} of {path} names no case to {words} on that is in the data set.")
    named = {*wanted.training, *wanted.validation}
    left_out = [
        LeftOut(id_, path.name, f"fold {fold} names it, but it cannot be used here.") for id_ in named - {*there}
    ]
    left_out += [LeftOut(id_, there[id_].image.name, f"fold {fold} does not name it.") for id_ in {*there} - named]
    return training, held_out, sorted(left_out, key=lambda entry: entry.id)


def _refuse_parted(fold: Fold, patients: Mapping[str, str], number: int, path: Path) -> None:
    trained = {patients[id_]: id_ for id_ in fold.training if id_ in patients}
    for id_ in fold.validation:
        if (patient := patients.get(id_)) in trained:
            raise ConfigError(
                f"--splits: fold {number} of {path} measures on {id_} and is trained on {trained[patient]}, both of "
                f"the patient {patient}. Name a new file, and it is made with the patients kept together."
            )


def _is_list_of_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(id_, str) and id_ for id_ in value)


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read ({error.strerror}).") from error


def _parsed(path: Path, option: str) -> object:
    try:
        return parse_json(_read(path, option))
    except ValueError as error:
        raise ConfigError(f"{option}: {path} is no JSON ({error}).") from error
