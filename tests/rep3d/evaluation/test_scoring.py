"""Distances, surfaces and volumes: by hand, by brute force, and beside MONAI."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.metrics import compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from rep3d.errors import LabelError
from rep3d.evaluation.metrics import dice_of_files, overlaps
from rep3d.evaluation.scoring import LabelScore, score_files, score_maps
from rep3d.imaging.grid import Geometry

SPACING = (0.7, 1.5, 3.0)
TURNED = np.array([[0, -1.5, 0, 9], [0.7, 0, 0, -4], [0, 0, 3.0, 2], [0, 0, 0, 1.0]])  # 0.7, 1.5, 3 mm, axes swapped


def blobs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two label maps of two labels each, some of it at the border."""
    random = np.random.default_rng(seed)
    noise = [gaussian_filter(random.normal(size=(11, 9, 8)), 1.2) for _ in range(2)]
    first, second = (np.digitize(field, (0.05, 0.2)).astype(np.uint8) for field in noise)
    return first, second


def brute_force(one: np.ndarray, other: np.ndarray, tolerance: float) -> tuple[float, float]:
    """Return HD95 and surface Dice with a loop over all places between voxels and all distances between them."""
    areas = get_code_to_measure_table(SPACING)[0].numpy()
    surfaces = []
    for mask in (np.pad(one, 1), np.pad(other, 1)):
        found = []
        for x, y, z in itertools.product(*[range(side - 1) for side in mask.shape]):
            code = int("".join("1" if bit else "0" for bit in mask[x : x + 2, y : y + 2, z : z + 2].ravel()), 2)
            if 0 < code < 255:
                found.append((*np.multiply((x, y, z), SPACING), areas[code]))
        surfaces.append(np.array(found))
    distances = cdist(surfaces[0][:, :3], surfaces[1][:, :3])
    agreeing, percentiles = 0.0, []
    for axis, surface in enumerate(surfaces):
        nearest, area = distances.min(axis=1 - axis), surface[:, 3]
        agreeing += area[nearest <= tolerance].sum()
        reached = 0.0
        for distance, part in sorted(zip(nearest, area, strict=True)):
            reached += part
            if reached >= 0.95 * area.sum():
                percentiles.append(distance)
                break
    return max(percentiles), agreeing / sum(surface[:, 3].sum() for surface in surfaces)


@pytest.mark.parametrize("seed", range(3))
def test_distances_are_those_of_brute_force_and_of_monai(seed: int) -> None:
    prediction, truth = blobs(seed)
    scores = score_maps(prediction, truth, {"a": 1, "b": 2}, Geometry(truth.shape, TURNED), 1.6)
    for name, value in (("a", 1), ("b", 2)):
        one, other = prediction == value, truth == value
        hd95, nsd = brute_force(one, other, 1.6)
        assert scores[name].hd95_mm == pytest.approx(hd95, rel=1e-6)
        assert scores[name].nsd == pytest.approx(nsd, rel=1e-5)
        pair = [torch.from_numpy(mask)[None, None] for mask in (one, other)]
        monai = compute_surface_dice(*pair, [1.6], include_background=True, spacing=SPACING, use_subvoxels=True)
        assert scores[name].nsd == pytest.approx(float(monai), rel=1e-5)


def test_a_box_that_is_moved_by_hand() -> None:
    truth = np.zeros((20, 12, 12), np.uint16)
    truth[4:12, 3:9, 3:9] = 7
    prediction = np.roll(truth, 2, axis=0)  # by 2 x 0.5 mm
    prediction[:, :, -1] = 9  # a value that is no label's
    score = score_maps(prediction, truth, {"box": 7}, Geometry(truth.shape, np.diag([0.5, 2.0, 4.0, 1.0])), 0.9)["box"]
    assert score.dice == pytest.approx(6 / 8)
    assert score.hd95_mm == pytest.approx(1.0)
    assert (score.volume_true_ml, score.volume_predicted_ml) == pytest.approx((288 * 4e-3, 288 * 4e-3))
    assert score.volume_error_ml == pytest.approx(0) and score.presence == "both"
    grid = Geometry(truth.shape, np.diag([0.5, 2.0, 4.0, 1.0]))
    near = [score_maps(prediction, truth, {"box": 7}, grid, mm)["box"].nsd for mm in (0.0, 0.9, 1.0)]
    assert near[0] < near[1] < near[2] == 1.0


def test_a_label_that_only_one_map_has_or_none() -> None:
    truth, prediction = np.zeros((2, 4, 4, 4), np.uint8)
    truth[:2], prediction[2:] = 1, 2
    scores = score_maps(prediction, truth, {"missed": 1, "drawn": 2, "none": 3}, Geometry(truth.shape, 10 * np.eye(4)))
    missed, drawn, none = scores.values()
    assert (missed.dice, missed.nsd, missed.volume_error_percent) == (0, 0, -100)
    assert (missed.volume_error_ml, drawn.volume_error_ml) == pytest.approx((-32, 32))
    assert (drawn.dice, drawn.nsd) == (0, 0) and math.isnan(drawn.volume_error_percent)
    assert all(math.isnan(score.hd95_mm) for score in scores.values())
    assert not none.scored and all(math.isnan(value) for value in (none.dice, none.nsd, none.volume_error_ml))
    assert [score.presence for score in scores.values()] == ["truth only", "prediction only", "neither"]
    kept = LabelScore.from_dict(drawn.to_dict())
    assert repr(kept) == repr(drawn) and None in drawn.to_dict().values()


def test_nothing_counts_where_the_truth_is_not_known() -> None:
    prediction, truth = blobs(5)
    known = np.zeros(truth.shape, bool)
    known[:6] = True
    spoilt = truth.copy()
    spoilt[6:] = 9  # nothing is known there
    grid = Geometry(truth.shape, TURNED)
    part = score_maps(np.where(known, prediction, 0), np.where(known, truth, 0), {"a": 1}, grid)
    assert score_maps(prediction, spoilt, {"a": 1}, grid, ignore=9) == part
    assert overlaps(prediction, spoilt, {"a": 1}, 9) != overlaps(prediction, spoilt, {"a": 1})


def test_files_have_the_same_dice_everywhere_and_lie_on_one_grid(write_nifti: Callable[..., Path]) -> None:
    prediction, truth = blobs(1)
    one, other = write_nifti("one.nii.gz", prediction, TURNED), write_nifti("other.nii.gz", truth, TURNED)
    scores = score_files(one, other, {"a": 1, "b": 2})
    assert {name: score.dice for name, score in scores.items()} == dice_of_files(one, other, {"a": 1, "b": 2})
    moved = write_nifti("moved.nii.gz", truth, TURNED + np.diag([0, 0, 0.5, 0]))
    with pytest.raises(LabelError, match=r"one\.nii\.gz does not lie on the voxels of .*/moved"):
        score_files(one, moved, {"a": 1})
