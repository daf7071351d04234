"""What comes out of preparing, number by number: kept volumes are named by its release."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.data.cases import Case
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.volumes.prepared import make_ready
from rep3d.training.volumes.store import PREPARING

LABELS = {"a": 2, "b": 7, "c": 300}
WINDOW = TaskConfig("window", LABELS, (1.5, 1.0, 2.0), Intensity("window", -100, 156))
ZSCORE = TaskConfig("zscore", LABELS, (1.0, 2.0, 1.0), Intensity("zscore", 5, 95), "LPS")
OUTCOMES = {
    3: {
        "window image": [
            14,
            31,
            18,
            1.0,
            0.383,
            0.496,
            1.0,
            0.0,
            0.445,
            0.033,
            0.537,
            1.0,
            0.0,
            0.486,
            0.99,
            0.571,
            0.305,
        ],
        "window label": [5351, 2418, 39, 4, 10115703, 57358, 24884],
        "window places": [7812],
        "zscore image": [
            20,
            16,
            36,
            1.604,
            -0.396,
            1.236,
            -0.95,
            0.606,
            -1.579,
            0.052,
            1.604,
            -0.578,
            1.055,
            -1.207,
            0.425,
            -0.0,
            1.0,
        ],
        "zscore label": [7770, 3648, 90, 12, 19949088, 873432, 22728],
        "zscore places": [11520],
    },
}
"""Release of the preparing code to what it made: add one, and raise ``PREPARING``, where that is meant to change."""


def outcome(folder: Path) -> dict[str, list[float]]:
    """Return some of all that is made of a generated image: sizes, values, moments, counts, places."""
    grid = np.stack(np.meshgrid(*map(np.arange, (24, 20, 16)), indexing="ij"))
    image = (grid[0] * 37 + grid[1] * 101 + grid[2] * 53) % 400 - 150
    label = np.where((grid[0] > 5) & (grid[0] < 14), 2, 0)
    label[grid.sum(0) > 50], label[2:4, 2:4, 2:4], label[:, -1] = 7, 300, 9
    affine = np.array([[0, -1.0, 0, 30], [0, 0, 2.0, -5], [1.5, 0, 0, 7], [0, 0, 0, 1]])
    case = Case("x", folder / "image.nii.gz", folder / "label.nii.gz")
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), case.image)
    nib.save(nib.Nifti1Image(label.astype(np.uint16), affine), case.label)
    found: dict[str, list[float]] = {}
    for task in (WINDOW, ZSCORE):
        ready = make_ready(case, task, (9,))
        values = ready.image.astype(np.float64)
        picked = [*values.ravel()[:: values.size // 12], values.mean(), values.std()]
        places = np.arange(ready.label.size).reshape(ready.label.shape)
        found[f"{task.name} image"] = [*values.shape[1:], *[round(float(value), 3) for value in picked]]
        found[f"{task.name} label"] = [*ready.counts, *[int(places[ready.label == i].sum()) for i in range(1, 4)]]
        found[f"{task.name} places"] = [len(ready.positions)]
    return found


def test_what_comes_out_of_preparing_changes_with_its_release_only(tmp_path: Path) -> None:
    found, expected = outcome(tmp_path), OUTCOMES[PREPARING]
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name] == pytest.approx(numbers, abs=0.002), f"{name}: raise PREPARING"
