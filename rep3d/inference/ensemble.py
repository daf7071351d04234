"""Models that answer together, such as those of the folds of one data set: which of them can."""

from __future__ import annotations

from collections.abc import Sequence

from rep3d.checkpoint import Checkpoint
from rep3d.errors import CheckpointError

__all__ = ["check_members"]

_SHARED = {
    "labels": "labels",
    "orientation": "orientation",
    "intensities": "intensities",
    "channels": "channels",
    "spacing": "voxel size",
}
"""What the probabilities must have in common to be averaged, voxel by voxel and label by label; and its words."""


def check_members(first: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Make sure that models may be averaged: they see the same image on the same grid, and give the same labels.

    Raises:
        CheckpointError: saying in what they differ.
    """
    for number, other in enumerate(others, 2):
        for name, words in _SHARED.items():
            expected, got = getattr(first.task, name), getattr(other.task, name)
            if expected != got:
                raise CheckpointError(
                    f"The models cannot be used together: the {words} of model {number} is {got}, that of the first "
                    f"is {expected}. Give models that were trained for one task, such as the folds of one data set."
                )
        if first.fine or other.fine:
            raise CheckpointError(
                "The models cannot be used together: one of them has two stages, which are never averaged. Use it "
                "alone."
            )
