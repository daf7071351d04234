"""Headers unlike all others are named; a mixture, or a handful, is no outlier."""

from __future__ import annotations

import numpy as np

from rep3d.imaging.grid import Geometry
from rep3d.imaging.outliers import along_axes, outliers


def _grid(x: float, y: float, z: float) -> Geometry:
    return Geometry((10, 10, 10), np.diag([x, y, z, 1.0]))


def test_another_orientation_and_a_far_voxel_size_are_named() -> None:
    grids = {f"case {number}": _grid(-1, -1, 3) for number in range(8)}
    grids |= {"turned": _grid(1, -1, 3), "small": _grid(-0.1, -0.1, 3), "thick": _grid(-1, -1, 8.9)}
    found = outliers(grids)
    assert list(found) == ["turned", "small"]
    assert found["turned"] == "its axes run RPS, and those of 10 others LPS"
    assert found["small"] == "its voxels are 0.1 x 0.1 x 3 mm, and the median is 1 x 1 x 3"


def test_few_or_mixed_images_have_no_outlier() -> None:
    assert outliers({"a": _grid(1, 1, 1), "b": _grid(1, 1, 1), "c": _grid(-9, 1, 1)}) == {}
    assert outliers({name: _grid(1 if name in "abc" else -1, 1, 1) for name in "abcdef"}) == {}


def test_sizes_are_compared_along_the_axes_of_the_body() -> None:
    turned = Geometry((4, 5, 6), np.array([[0, 0, 2.0, 0], [-3, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]))
    assert turned.axis_codes == ("P", "S", "R")
    assert along_axes(turned.spacing, turned.axis_codes) == [2, 3, 1]
    assert along_axes(turned.extent, turned.axis_codes) == [12, 12, 5]
    assert along_axes(turned.shape, turned.axis_codes, "SAR") == [5, 4, 6]
