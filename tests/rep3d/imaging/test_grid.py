"""Label maps move between grids without losing a voxel."""

from __future__ import annotations

import numpy as np
import pytest

from rep3d.imaging.grid import Geometry, resample_label
from rep3d.imaging.labels import label_counts
from tests.rep3d.imaging.grids import AFFINES


@pytest.mark.parametrize("affine", AFFINES)
def test_resampling_back_and_forth_loses_nothing(affine: np.ndarray) -> None:
    values = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(np.uint8)
    grid = Geometry(values.shape, affine)
    flipped = Geometry((7, 5, 6), affine @ np.array([[0, -1, 0, 4], [0, 0, 1, 0], [-1, 0, 0, 6], [0, 0, 0, 1.0]]))
    there = resample_label(values, grid, flipped)
    assert there.shape == (7, 5, 6)
    assert label_counts(there) == label_counts(values)
    np.testing.assert_array_equal(resample_label(there, flipped, grid), values)


def test_resampling_takes_the_nearest_voxel_and_background_outside() -> None:
    values = np.array([1, 2, 3], np.uint8).reshape(3, 1, 1)
    shifted = np.eye(4)
    shifted[0, 3] = -1.4  # the new voxels lie at -1.4, -0.4, 0.6, 1.6, 2.6
    result = resample_label(values, Geometry((3, 1, 1), np.eye(4)), Geometry((5, 1, 1), shifted))
    assert result.ravel().tolist() == [0, 1, 2, 3, 0]
