"""Label maps are accepted only on their image's grid and with the task's values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from rep3d.errors import LabelError
from rep3d.imaging.labels import check_label, label_counts
from rep3d.imaging.values import label_boxes
from tests.rep3d.imaging.grids import OBLIQUE

LABELS = {"Head": 1, "Tail": 2}


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((5, 6, 8), OBLIQUE),
        ((5, 6, 7), np.eye(4)),
        ((5, 6, 7), OBLIQUE @ np.diag([-1, 1, 1, 1])),
        ((5, 6, 7), np.array([[1, 0, 0, 0.3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ OBLIQUE),
    ],
    ids=["shape", "unoriented", "flipped", "shifted by 0.3 mm"],
)
def test_labels_of_another_geometry_are_refused(
    write_nifti: Callable[..., Path], image: Path, shape: tuple, affine: np.ndarray
) -> None:
    label = write_nifti("label.nii.gz", np.ones(shape, np.uint8), affine)
    with pytest.raises(LabelError, match="does not lie on the voxels of image image.nii.gz"):
        check_label(label, image, LABELS)


def test_single_precision_headers_are_tolerated(write_nifti: Callable[..., Path], image: Path) -> None:
    label = write_nifti("label.nii.gz", np.ones((5, 6, 7), np.uint8), OBLIQUE + 1e-4)
    check_label(label, image, LABELS)


def test_unknown_values_are_named(write_nifti: Callable[..., Path], image: Path) -> None:
    values = np.zeros((5, 6, 7), np.uint8)
    values[1, 2, 3] = 9
    with pytest.raises(LabelError, match=r"\[9\]"):
        check_label(write_nifti("label.nii.gz", values, OBLIQUE), image, LABELS)


def test_values_that_are_not_whole_are_refused_and_whole_floats_are_not(
    write_nifti: Callable[..., Path], image: Path
) -> None:
    values = np.ones((5, 6, 7), np.float32)
    check_label(write_nifti("label.nii.gz", values, OBLIQUE), image, LABELS)
    values[0, 0, 0] = 1.5
    with pytest.raises(LabelError, match="a whole number"):
        check_label(write_nifti("label.nii.gz", values, OBLIQUE), image, LABELS)
    values[0, 0, 0] = np.nan
    with pytest.raises(LabelError, match="a whole number"):
        check_label(write_nifti("label.nii.gz", values, OBLIQUE), image, LABELS)
    values[0, 0, 0] = np.inf
    with pytest.raises(LabelError, match="a whole number"):
        check_label(write_nifti("label.nii.gz", values, OBLIQUE), image, LABELS)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.int64])
def test_label_counts(kind: type) -> None:
    values = np.random.default_rng(0).choice([0, 1, 7, 120], (6, 5, 4)).astype(kind)
    assert label_counts(values) == {value: int((values == value).sum()) for value in (0, 1, 7, 120)}


def test_label_counts_of_values_that_are_no_labels() -> None:
    assert label_counts(np.array([[[-3, 70000, 70000]]])) == {-3: 1, 70000: 2}


def test_boxes_are_the_same_in_any_order_of_memory() -> None:
    values = np.zeros((5, 6, 7), np.uint8)
    values[1:3, 2, 3:6], values[4, 5, 6] = 2, 4
    expected = ndimage.find_objects(values, 5)
    assert expected[0] is None and expected[1] == (slice(1, 3), slice(2, 3), slice(3, 6))
    assert label_boxes(values, 5) == label_boxes(np.asfortranarray(values), 5) == expected
    assert label_boxes(np.asfortranarray(values)) == expected[:4]
