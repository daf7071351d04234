"""Which cases a training on the command line learns from, and which it holds out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rep3d.errors import ConfigError

if TYPE_CHECKING:
    from rep3d.data.cases import Case, LeftOut

__all__ = ["check_folds", "split"]


def check_folds(
    validation: int, fold: int | None, folds: int | None, splits: Path | None, patients: Path | None
) -> None:
    """Refuse options of folds that do not go together."""
    if fold is not None:
        if splits is None or validation:
            raise ConfigError("--fold: give the file of the folds with --splits, and leave --validation out.")
        if folds is None and not splits.exists():
            raise ConfigError(f"--splits: there is no file {splits}. Give --folds as well to have it made.")
        return
    for option, value in (("--folds", folds), ("--splits", splits), ("--patients", patients)):
        if value is not None:
            raise ConfigError(f"{option} says how folds are made. Give --fold as well: which one to train.")


def split(
    found: list[Case],
    validation: int,
    fold: int | None,
    folds: int | None,
    splits: Path | None,
    patients: Path | None,
    seen: Callable[[Case], bool],
) -> tuple[list[Case], list[Case], Sequence[LeftOut]]:
    """Return the cases to train on, those to hold out, none of which was seen before, and those that are left out."""
    from rep3d.data.splits import read_patients, split_cases
    from rep3d.output import check_output
    from rep3d.training.validation import choose_validation

    if fold is None:
        return (*(choose_validation(found, validation, seen) if validation else (found, [])), [])
    assert splits is not None  # check_folds
    if not splits.exists():
        check_output(splits, (".json",), (patients,), option="--splits", make_folder=True)
    training, held_out, left_out = split_cases(
        found, fold, splits, folds, read_patients(patients) if patients else None
    )
    if known := [case.id for case in held_out if seen(case)]:
        raise ConfigError(
            f"--fold: {len(known)} cases that fold {fold} measures on were trained on by the model to begin with "
            f"({', '.join(known[:5])}). Go on from the same fold's model, or begin anew."
        )
    return training, held_out, left_out
