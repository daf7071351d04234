"""How thick structures are, along and across thick slices."""

from __future__ import annotations

import numpy as np
import pytest

from rep3d.imaging import thickness
from rep3d.imaging.grid import Geometry
from rep3d.imaging.thickness import label_thickness


def _of(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> float:
    """Return the thickness of a box of voxels."""
    values = np.zeros([side + 4 for side in shape], np.uint8)
    values[tuple(slice(2, 2 + side) for side in shape)] = 1
    grid = Geometry(values.shape, np.diag([*spacing, 1.0]))
    return label_thickness(values, grid, {"box": 1, "not there": 2})["box"]


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((20, 20, 1), (1.0, 1.0, 10.0), 10.0),  # one slice
        ((18, 18, 1), (1.0, 1.0, 10.0), 10.0),
        ((5, 5, 9), (1.0, 1.0, 10.0), 5.0),  # a rod across the slices
        ((40, 40, 3), (1.0, 1.0, 4.0), 12.0),
        ((1, 30, 30), (3.75, 0.8, 0.8), 3.75),
        ((30, 1, 30), (0.8, 2.0, 0.8), 2.0),
        ((1, 9, 9), (1.0, 3.0, 2.0), 1.0),
        ((7, 30, 30), (0.7, 0.7, 0.7), 4.9),
    ],
)
def test_it_is_that_of_the_narrowest_way_through(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], expected: float
) -> None:
    # Of an even number of voxels the middle lies between two: up to a voxel's smallest side is not seen.
    assert expected - min(spacing) - 1e-9 <= _of(shape, spacing) <= expected + 1e-9
    if all(side % 2 or side > 9 for side in shape):
        assert _of(shape, spacing) == pytest.approx(expected, abs=1e-6)


def test_a_large_one_is_as_thick_as_a_ball_of_its_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thickness, "_MEASURED_VOXELS", 1000)
    assert _of((11, 11, 11), (1.0, 1.0, 1.0)) == pytest.approx((6 / np.pi * 11**3) ** (1 / 3))


def test_of_a_box_too_large_to_part_slices_are_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thickness, "_MOST_PARTED", 1000)
    assert _of((5, 5, 9), (1.0, 1.0, 10.0)) == pytest.approx(5.0)
