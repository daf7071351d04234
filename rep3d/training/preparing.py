"""Cases made ready one by one, so that one that cannot be used never costs the others.

Whatever goes wrong with a case, it is named with the reason and left out. No list of kinds of errors decides that: a
file can be odd in ways that nobody thought of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from rep3d.data.cases import Case, LeftOut
from rep3d.errors import DiskFullError, machine_error, said
from rep3d.imaging.labels import check_label
from rep3d.imaging.nifti import geometry

__all__ = ["each_case", "left_out_for", "why_unusable"]

logger = logging.getLogger(__name__)
_Ready = TypeVar("_Ready")


def why_unusable(case: Case, labels: Mapping[str, int]) -> LeftOut | None:
    """Return why a case can be neither trained nor measured on; None where it can. Both files are read."""
    try:
        check_label(case.label, case.channels, labels)
        geometry(case.image)
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
    if isinstance(full := machine_error(error), DiskFullError):
        raise full from error
    found = LeftOut(case.id, case.image.name, said(error))
    logger.warning("case %s is left out: %s", case.id, found.reason)
    return found
