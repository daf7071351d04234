"""Does a label map fit its image and its task?

A label map is hours of a clinician's work, so everything that is accepted is checked here first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from rep3d.errors import LabelError
from rep3d.imaging.channels import Files, as_files, channels_grid
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.nifti import read_label

__all__ = ["check_grid", "check_label", "check_values", "label_counts"]


def label_counts(values: np.ndarray) -> dict[int, int]:
    """Return how many voxels have each value, 0 included.

    Args:
        values: (X, Y, Z) integers. As :func:`rep3d.imaging.nifti.read_label` gives them, they are counted slice by
            slice: a large map is not copied or sorted as a whole.
    """
    if values.dtype not in (np.uint8, np.uint16):  # bincount takes neither negative nor all 64-bit numbers
        found, counts = np.unique(values, return_counts=True)
        return {int(value): int(count) for value, count in zip(found, counts, strict=True)}
    high = int(values.max())
    total = np.zeros(high + 1, np.int64)
    for index in range(values.shape[-1]):
        total += np.bincount(values[..., index].ravel(order="K"), minlength=high + 1)
    return {int(value): int(total[value]) for value in np.flatnonzero(total)}


def check_label(
    label: Path | str,
    image: Files,
    labels: Mapping[str, int],
    other_values: Collection[int] = (),
    channels: int = 1,
) -> tuple[np.ndarray, dict[int, int]]:
    """Return a label map, after making sure that it lies on its image's grid and has only the task's values.

    Args:
        label: the label map's file.
        image: the image's file or files.
        labels: label name to voxel value.
        other_values: values that may be there as well, such as those of another model's labels, or the one that a task
            ignores.
        channels: of the image.

    Returns:
        The (X, Y, Z) voxel values, and how many voxels have each.

    Raises:
        LabelError: saying which of the two does not hold, with expected, got and remedy.
        ImageError: if the image itself cannot be read, has another number of channels, or these do not lie on one grid.
    """
    label = Path(label)
    values, grid = read_label(label)
    check_grid(grid, channels_grid(image, channels), label.name, as_files(image)[0].name)
    counts = label_counts(values)
    check_values(set(counts) - set(other_values), labels, label.name)
    return values, counts


def nothing_known(label: Path, ignore: int | None) -> LabelError:
    """Return the error of a label map that is to be ignored as a whole."""
    return LabelError(f"{label.name} says nothing: all its voxels have the value {ignore}, to be ignored.")


def check_grid(grid: Geometry, expected: Geometry, label: str, image: str) -> None:
    """Refuse a label map that does not lie on its image's grid.

    Args:
        grid: the label's.
        expected: the image's.
        label: the label's name, for the message.
        image: the image's name, for the message.

    Raises:
        LabelError: if the grids differ.
    """
    if not same_grid(grid, expected):
        raise LabelError(
            f"{label} does not lie on the voxels of image {image}: expected shape {expected.shape} and "
            f"affine {np.round(expected.affine, 3).tolist()}, got shape {grid.shape} and "
            f"affine {np.round(grid.affine, 3).tolist()}. "
            f"Draw the label on this image, or export it with the image as reference."
        )


def check_values(found: Collection[int], labels: Mapping[str, int], label: str) -> None:
    """Refuse voxel values that are no label's.

    Args:
        found: the values of a label map; 0 is always fine.
        labels: label name to voxel value.
        label: the label map's name, for the message.

    Raises:
        LabelError: if there are others.
    """
    unknown = sorted(set(found) - {0, *labels.values()})
    if unknown:
        raise LabelError(
            f"{label} has unexpected values: {unknown[:10]}. Known are 0 (background) and {dict(labels)}. "
            f"Rename or remove these segments, or give labels that include them."
        )
