"""The one definition of Dice: of arrays and of files, for the gate, the demo, the command line and the tests.

Distances between surfaces and errors of volume are in `rep3d.evaluation.scoring`, which counts voxels here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rep3d.data.cases import shown
from rep3d.errors import LabelError
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.nifti import read_label

__all__ = ["Overlap", "dice_of_files", "dice_per_label", "mean_dice", "overlaps", "read_pair"]


@dataclass(frozen=True)
class Overlap:
    """How many voxels have a label.

    Attributes:
        both: in prediction and truth.
        predicted: in the prediction.
        true: in the truth.
    """

    both: int
    predicted: int
    true: int

    def __add__(self, other: Overlap) -> Overlap:
        """Return both together, of two parts of an image."""
        return Overlap(self.both + other.both, self.predicted + other.predicted, self.true + other.true)

    @property
    def dice(self) -> float:
        """Dice in [0, 1]; NaN where neither map has the label, 0 where only one of them has it."""
        either = self.predicted + self.true
        return 2 * self.both / either if either else float("nan")


def overlaps(
    prediction: np.ndarray, truth: np.ndarray, labels: Mapping[str, int], ignore: int | None = None
) -> dict[str, Overlap]:
    """Count the voxels of each label in two label maps of the same shape.

    Args:
        prediction: (X, Y, Z) voxel values.
        truth: (X, Y, Z) voxel values.
        labels: label name to voxel value, of the labels to count; others of the maps count as background. Of a case in
            which only some were annotated, these alone.
        ignore: value in ``truth`` of voxels of which nothing is known: they do not count. None where there is none.

    Raises:
        LabelError: if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise LabelError(f"Dice needs two label maps of one shape, got {prediction.shape} and {truth.shape}.")
    # Counted plane by plane: MONAI's needs a map of each label at once, which for a whole CT are gigabytes.
    axis = int(np.argmax(truth.strides))
    counts = {name: np.zeros(3, np.int64) for name in labels}
    planes, true_planes = np.moveaxis(prediction, axis, 0), np.moveaxis(truth, axis, 0)  # views, not copies
    for found, true in zip(planes, true_planes, strict=True):
        if ignore is not None:
            known = true != ignore
            found, true = found[known], true[known]
        if 0 not in labels.values():  # most voxels are background in both, and need not be compared with each label
            there = (found != 0) | (true != 0)
            found, true = found[there], true[there]
        for name, value in labels.items():
            one, other = found == value, true == value
            counts[name] += [np.count_nonzero(part) for part in (one & other, one, other)]
    # int(): NumPy 2.4 counts in its own type, which torch.load(weights_only=True) does not read in a snapshot.
    return {name: Overlap(*map(int, three)) for name, three in counts.items()}


def dice_per_label(
    prediction: np.ndarray, truth: np.ndarray, labels: Mapping[str, int], ignore: int | None = None
) -> dict[str, float]:
    """Return the Dice of each label between two label maps of the same shape; arguments as of :func:`overlaps`.

    Returns:
        Label name to Dice in [0, 1]; NaN where neither map has the label, 0 where only one of them has it.

    Raises:
        LabelError: if the shapes differ.
    """
    return {name: overlap.dice for name, overlap in overlaps(prediction, truth, labels, ignore).items()}


def read_pair(prediction: Path | str, truth: Path | str) -> tuple[np.ndarray, np.ndarray, Geometry]:
    """Return the voxels of two label files, and the grid that both lie on.

    Raises:
        LabelError: if a file is not a label map, or their grids differ.
    """
    predicted, predicted_grid = read_label(prediction)
    true, grid = read_label(truth)
    if not same_grid(predicted_grid, grid):
        raise LabelError(f"Dice cannot be measured: {shown(prediction)} does not lie on the voxels of {shown(truth)}.")
    return predicted, true, grid


def dice_of_files(
    prediction: Path | str, truth: Path | str, labels: Mapping[str, int], ignore: int | None = None
) -> dict[str, float]:
    """As :func:`dice_per_label`, for two label files on one grid.

    Raises:
        LabelError: if a file is not a label map, or their grids differ.
    """
    predicted, true, _ = read_pair(prediction, truth)
    return dice_per_label(predicted, true, labels, ignore)


def mean_dice(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over cases of each case's mean over its labels; labels absent in both maps (NaN) are left out.

    Args:
        scores: case id to label name to Dice.

    Returns:
        The mean, or NaN if there is nothing to average.
    """
    per_case = [np.nanmean(list(case.values())) for case in scores.values() if not np.isnan(list(case.values())).all()]
    return float(np.mean(per_case)) if per_case else float("nan")
