"""What a label map says in numbers: how large each label is, where it lies, and what the image is like in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np

from rep3d.imaging.grid import Geometry
from rep3d.imaging.values import label_boxes

__all__ = ["COLUMNS", "as_csv", "label_statistics"]

COLUMNS = ("voxels", "volume_ml", "mean", "sd", "min", "max", "centroid_r", "centroid_a", "centroid_s")
"""Of a label: intensities as the image has them, and the centroid in mm to the right, front and top (RAS)."""


def label_statistics(
    image: np.ndarray, values: np.ndarray, grid: Geometry, labels: Mapping[str, int]
) -> dict[str, dict[str, float | int | None]]:
    """Return :data:`COLUMNS` for each label; of one without a voxel, None for all but the first two.

    Args:
        image: (X, Y, Z) intensities.
        values: (X, Y, Z) voxel values.
        grid: where both lie.
        labels: label name to voxel value.
    """
    boxes = label_boxes(values, max(labels.values()))
    found: dict[str, dict[str, float | int | None]] = {}
    for name, value in labels.items():
        row: dict[str, float | int | None] = dict.fromkeys(COLUMNS)
        found[name] = row | {"voxels": 0, "volume_ml": 0.0}
        box = boxes[value - 1]
        if box is None:
            continue
        inside = values[box] == value
        intensities = image[box][inside].astype(np.float64)
        voxels = np.array([places.mean() + part.start for places, part in zip(inside.nonzero(), box, strict=True)])
        centroid = nib.affines.apply_affine(grid.affine, voxels)
        numbers = (
            *(intensities.size * grid.voxel_ml, intensities.mean(), intensities.std()),
            *(intensities.min(), intensities.max(), *centroid),
        )
        found[name] = dict(zip(COLUMNS, (int(intensities.size), *(round(float(n), 4) for n in numbers)), strict=True))
    return found


def as_csv(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table with a row for each case and label.

    Args:
        cases: id to ``statistics`` as :func:`label_statistics` gives them, and ``labels`` (name to voxel value).
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("case", "label", "value", *COLUMNS))
    for case, entry in sorted(cases.items()):
        for label, row in entry["statistics"].items():
            table.writerow((case, label, entry["labels"][label], *(row[column] for column in COLUMNS)))
    return text.getvalue()
