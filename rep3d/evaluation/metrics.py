"""How a segmentation is scored: the one definition of Dice that the demo, the command line and the tests use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rep3d.errors import LabelError
from rep3d.imaging.grid import same_grid
from rep3d.imaging.nifti import read_label

__all__ = ["dice_of_files", "dice_per_label", "mean_dice"]


def dice_per_label(prediction: np.ndarray, truth: np.ndarray, labels: Mapping[str, int]) -> dict[str, float]:
    """Dice of each label between two label maps of the same shape.

    Args:
        prediction: (X, Y, Z) voxel values.
        truth: (X, Y, Z) voxel values.
        labels: label name to voxel value.

    Returns:
        Label name to Dice in [0, 1]; NaN where neither map has the label, 0 where only one of them has it.

    Raises:
        LabelError: if the shapes differ.
    """
    if prediction.shape != truth.shape:
        raise LabelError(f"Dice needs two label maps of one shape, got {prediction.shape} and {truth.shape}.")
    # Counted plane by plane: MONAI's needs a map of each label at once, which for a whole CT are gigabytes.
    axis = int(np.argmax(truth.strides))
    both, either = dict.fromkeys(labels, 0), dict.fromkeys(labels, 0)
    for found, true in zip(np.moveaxis(prediction, axis, 0), np.moveaxis(truth, axis, 0), strict=True):
        for name, value in labels.items():
            one, other = found == value, true == value
            both[name] += np.count_nonzero(one & other)
            either[name] += np.count_nonzero(one) + np.count_nonzero(other)
    # float(): NumPy 2.4 counts in its own type, which torch.load(weights_only=True) does not read in a snapshot.
    return {name: float(2 * both[name] / either[name]) if either[name] else float("nan") for name in labels}


def dice_of_files(prediction: Path | str, truth: Path | str, labels: Mapping[str, int]) -> dict[str, float]:
    """As :func:`dice_per_label`, for two label files on one grid.

    Raises:
        LabelError: if a file is not a label map, or their grids differ.
    """
    predicted, predicted_grid = read_label(prediction)
    true, true_grid = read_label(truth)
    if not same_grid(predicted_grid, true_grid):
        raise LabelError(
            f"Dice cannot be measured: {Path(prediction).name} does not lie on the voxels of {Path(truth).name}."
        )
    return dice_per_label(predicted, true, labels)


def mean_dice(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over cases of each case's mean over its labels; labels absent in both maps (NaN) are left out.

    Args:
        scores: case id to label name to Dice.

    Returns:
        The mean, or NaN if there is nothing to average.
    """
    per_case = [np.nanmean(list(case.values())) for case in scores.values() if not np.isnan(list(case.values())).all()]
    return float(np.mean(per_case)) if per_case else float("nan")
