"""The most uncertain places."""

from __future__ import annotations

import numpy as np
import pytest
from Rep3DLabelLib.images.peaks import find_peaks

SPACING = np.diag([2.0, 1.0, 3.0, 1.0])


def blob(values: np.ndarray, place: tuple[int, int, int], height: float) -> None:
    k, j, i = place
    values[k - 1 : k + 2, j - 1 : j + 2, i - 1 : i + 2] = height


def test_the_highest_places_come_first_in_ras() -> None:
    values = np.zeros((20, 40, 30), np.float32)
    for place, height in (((5, 10, 7), 0.5), ((12, 30, 20), 0.9), ((15, 8, 25), 0.7)):
        blob(values, place, height)
    affine = SPACING.copy()
    affine[:3, 3] = [100, -50, 20]
    peaks = find_peaks(values, affine)
    assert [peak.ras for peak in peaks[:3]] == [(140, -20, 56), (150, -42, 65), (114, -40, 35)]
    assert [peak.value for peak in peaks[:3]] == pytest.approx([0.9, 0.7, 0.5])


def test_places_are_apart_and_few() -> None:
    values = np.random.default_rng(0).random((20, 40, 30)).astype(np.float32)
    peaks = find_peaks(values, SPACING)
    assert len(peaks) == 5
    places = np.array([peak.ras for peak in peaks])
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert distances[np.triu_indices(5, 1)].min() >= 10
    heights = [peak.value for peak in peaks]
    assert heights == sorted(heights, reverse=True)


def test_one_noisy_voxel_counts_less_than_a_region() -> None:
    values = np.zeros((20, 20, 20), np.float32)
    values[3, 3, 3] = 1.0
    blob(values, (12, 12, 12), 0.5)
    assert find_peaks(values, np.eye(4))[0].ras == (12, 12, 12)


def test_the_border_is_no_worse_than_the_middle() -> None:
    values = np.ones((5, 6, 7), np.float16)
    assert [peak.value for peak in find_peaks(values, np.eye(4))] == pytest.approx([1.0], abs=1e-6)


@pytest.mark.parametrize(
    "values",
    [np.zeros((4, 5, 6)), np.full((4, 5, 6), np.nan), np.full((4, 5, 6), -1.0), np.zeros((0, 0, 0))],
    ids=["zero", "nan", "negative", "empty"],
)
def test_no_place_at_all(values: np.ndarray) -> None:
    assert find_peaks(values, np.eye(4)) == []


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (2, 1, 2)])
def test_thin_volumes(shape: tuple[int, int, int]) -> None:
    values = np.ones(shape)
    values[0, 0, 0] = np.inf
    values.ravel()[-1] = 3
    peaks = find_peaks(values, np.eye(4))
    assert len(peaks) == 1
    assert (values > 0).all()  # what was given is not changed
