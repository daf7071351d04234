"""Cases made ready one by one, so that one that cannot be used never costs the others.

Whatever goes wrong with a case, it is named with the reason and left out. No list of kinds of errors decides that: a
file can be odd in ways that nobody thought of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from rep3d.data.cases import Case, LeftOut
from rep3d.errors import DiskFullError, Rep3DError, machine_error, said
from rep3d.imaging.channels import channels_grid, count_channels, read_channels
from rep3d.imaging.grid import Geometry
from rep3d.imaging.labels import check_label, label_counts, nothing_known
from rep3d.imaging.nifti import read_label
from rep3d.imaging.outliers import outliers

__all__ = [
    "CheckedCase",
    "as_left_out",
    "can_be_used",
    "each_case",
    "leave_out_empty",
    "left_out_for",
    "left_out_if_empty",
    "read_checked",
    "unusual_headers",
    "warn_of_outliers",
    "why_unusable",
]

logger = logging.getLogger(__name__)
_Ready = TypeVar("_Ready")


@dataclass(frozen=True)
class CheckedCase:
    """A case that can be used, as it was read.

    Attributes:
        channels: (X, Y, Z) intensities of each channel.
        label: (X, Y, Z) voxel values.
        counts: how many voxels have each value.
        grid: where the voxels lie.
    """

    channels: tuple[np.ndarray, ...]
    label: np.ndarray
    counts: Mapping[int, int]
    grid: Geometry


def read_checked(case: Case, labels: Mapping[str, int], channels: int = 1, ignore: int | None = None) -> CheckedCase:
    """Read the files of a case, each once; what is refused here is what a training leaves out.

    Args:
        case: the case.
        labels: label name to voxel value.
        channels: of its image.
        ignore: value in its label map of which nothing is known; None where there is none.

    Raises:
        Rep3DError: if the case can be neither trained nor measured on, with the reason.
    """
    others = () if ignore is None else (ignore,)
    label, counts = check_label(case.label, case.channels, labels, others, channels)
    if {*counts} == {ignore}:
        raise nothing_known(case.label, ignore)
    images, grid = read_channels(case.channels, channels)
    return CheckedCase(tuple(images), label, counts, grid)


def can_be_used(case: Case, labels: Mapping[str, int], channels: int = 1, ignore: int | None = None) -> bool:
    """Return whether a case can be trained on and has a label; all its files are read.

    Args:
        case: the case.
        labels, channels, ignore: see :func:`read_checked`.
    """
    try:
        counts = read_checked(case, labels, channels, ignore).counts
    except Exception:  # it is said where the case is read
        return False
    return any(value in counts for value in case.known(labels).values())


def why_unusable(case: Case, labels: Mapping[str, int], channels: int = 1) -> LeftOut | None:
    """Return why a case can be neither trained nor measured on; None where it can. All its files are read."""
    try:
        read_checked(case, labels, channels)
    except Exception as error:
        return left_out_for(case, error)
    return None


def each_case(
    cases: Iterable[Case], make: Callable[[Case], _Ready], left_out: list[LeftOut]
) -> list[tuple[Case, _Ready]]:
    """Make each case ready that can be.

    Args:
        cases: the cases.
        make: makes one ready.
        left_out: gains those that cannot be used.

    Returns:
        The others, with what was made of them.
    """
    found = []
    for case in cases:
        try:
            found.append((case, make(case)))
        except Exception as error:
            left_out.append(left_out_for(case, error))
    return found


def left_out_for(case: Case, error: Exception) -> LeftOut:
    """Return why a case is left out, and log it.

    Raises:
        DiskFullError: where the disk is full, which is no fault of the case: the next one would fail, too.
    """
    found = as_left_out(case, error)
    logger.warning("case %s is left out: %s", case.id, found.reason)
    return found


def as_left_out(case: Case, error: Exception) -> LeftOut:
    """Return the same without a word in the log."""
    if isinstance(full := machine_error(error), DiskFullError):
        raise full from error
    return LeftOut(case.id, case.image.name, said(error))


def left_out_if_empty(case: Case, voxels: int) -> LeftOut | None:
    """Return why a case without a single labelled voxel is not trained on; None where it has some.

    Args:
        case: the case.
        voxels: how many voxels of it have a label.
    """
    if voxels:
        return None
    return LeftOut(
        case.id,
        case.label.name,
        "it is empty: no voxel has a label, so all of its image would be learned as background. Annotate it; if the "
        "image has none of the structures, say so in the task file (training: empty_labels: use).",
    )


def leave_out_empty(
    ready: Sequence[tuple[Case, _Ready]],
    voxels: Callable[[_Ready], int],
    left_out: list[LeftOut],
    labels: Mapping[str, int],
) -> list[tuple[Case, _Ready]]:
    """Return the cases that have a label, logging the others.

    Args:
        ready: the cases, and what was made of them.
        voxels: says of that how many voxels have a label.
        left_out: gains those that have none.
        labels: label name to voxel value.
    """
    found = []
    for case, made in ready:
        empty = left_out_if_empty(case, voxels(made))
        values = {*case.known(labels).values()}
        if empty and not values.isdisjoint(label_counts(read_label(case.label)[0])):
            reason = (
                "no voxel of its labels is left at the voxel size of this training: they are that small. Train with "
                "smaller voxels (--spacing), or leave the case out."
            )
            empty = replace(empty, reason=reason)
        if empty is None:
            found.append((case, made))
        else:
            logger.warning("case %s is left out: %s", case.id, empty.reason)
            left_out.append(empty)
    return found


def unusual_headers(cases: Sequence[Case]) -> dict[str, str]:
    """Return which images have unusual headers, by case, in words; see :mod:`rep3d.imaging.outliers`.

    Only headers are read. One that cannot be read is none: the case is left out for that.
    """
    grids = {}
    for case in cases:
        try:
            grids[case.id] = channels_grid(case.channels, count_channels(case.channels))
        except Rep3DError:
            continue
    return outliers(grids)


def warn_of_outliers(cases: Sequence[Case]) -> None:
    """Log what :func:`unusual_headers` finds."""
    if found := unusual_headers(cases):
        told = "; ".join(f"{name}: {words}" for name, words in list(found.items())[:10])
        logger.warning(
            "%d of %d cases have unusual headers, and are used as these say: %s", len(found), len(cases), told
        )
