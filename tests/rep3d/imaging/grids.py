"""Grids as scanners make them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset

OBLIQUE = np.array([[0.9, -0.3, 0.1, -20], [0.3, 0.9, -0.2, 5], [0.0, 0.25, 1.8, 7], [0, 0, 0, 1.0]])
LEFT_HANDED = np.diag([-1.0, 1.0, 2.5, 1.0])
AFFINES = [np.eye(4), OBLIQUE, LEFT_HANDED, np.array([[0, 0, 2.0, 1], [-1, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1]])]

SLICES = {
    "oblique": ((0.8, 0.36, -0.48), (-0.6, 0.48, -0.64)),  # the normal is (0, 0.8, 0.6)
    "flipped": ((-1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),  # the normal points to the feet
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}
"""Of DICOM series: the directions of rows and of columns."""


def placed(name: str, step: float = 2.5) -> Callable[[Dataset, int], None]:
    """Return what turns a slice of `tests.rep3d.imaging.test_dicom.write_series`, and says what a scanner would."""
    row, column = SLICES[name]

    def change(data: Dataset, number: int) -> None:
        data.FrameOfReferenceUID, data.SeriesNumber = "1.2.3.9", 4
        data.ImageOrientationPatient = [*row, *column]
        place = np.array([-10.0, 20.0, 30.0]) + np.cross(row, column) * step * number
        data.ImagePositionPatient = [round(float(part), 6) for part in place]

    return change
