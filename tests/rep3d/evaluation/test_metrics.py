"""Dice against hand-computed answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rep3d.errors import LabelError
from rep3d.evaluation.metrics import dice_of_files, dice_per_label, mean_dice

LABELS = {"a": 1, "b": 5, "c": 9}


def test_dice_by_hand() -> None:
    truth = np.zeros((2, 3, 4), int)
    truth[0] = 1  # 12 voxels
    truth[1, 0] = 5  # 4 voxels
    prediction = np.zeros_like(truth)
    prediction[0, :2] = 1  # 8 voxels, all right
    prediction[1, 2] = 9  # c is nowhere in the truth
    dice = dice_per_label(prediction, truth, LABELS)
    assert dice == {"a": pytest.approx(2 * 8 / (12 + 8)), "b": 0.0, "c": 0.0}


def test_a_label_in_neither_map_is_nan_and_left_out_of_means() -> None:
    volume = np.ones((2, 2, 2), int)
    dice = dice_per_label(volume, volume, LABELS)
    assert dice["a"] == 1.0 and math.isnan(dice["b"]) and math.isnan(dice["c"])
    assert mean_dice({"x": dice, "y": {"a": 0.5, "b": 0.0, "c": math.nan}}) == pytest.approx((1.0 + 0.25) / 2)
    assert math.isnan(mean_dice({})) and math.isnan(mean_dice({"x": {"a": math.nan}}))


def test_files_on_other_grids_and_other_shapes_are_refused(write_nifti: Callable[..., Path]) -> None:
    here = write_nifti("here.nii.gz", np.ones((3, 3, 3), np.uint8))
    there = write_nifti("there.nii.gz", np.ones((3, 3, 3), np.uint8), np.diag([-1.0, 1, 1, 1]))
    assert dice_of_files(here, here, {"a": 1}) == {"a": 1.0}
    with pytest.raises(LabelError, match="does not lie on the voxels of"):
        dice_of_files(here, there, {"a": 1})
    with pytest.raises(LabelError, match="shape"):
        dice_per_label(np.ones((2, 2, 2)), np.ones((2, 2, 3)), {"a": 1})
