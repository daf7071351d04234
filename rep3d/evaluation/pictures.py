"""Slices of a case with its true and predicted contours, as PNG data URIs: for the demo's report and for evaluations.

Drawing needs matplotlib (imported only when something is drawn) and knows about millimetres and orientation, while
pages know about neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from rep3d.html import figure_uri
from rep3d.imaging.channels import Files, as_files, count_channels, read_channels
from rep3d.imaging.grid import Geometry
from rep3d.imaging.labels import check_grid
from rep3d.imaging.nifti import read_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LABEL_STYLES", "PREDICTION_COLOUR", "TRUTH_COLOUR", "slice_pngs"]

TRUTH_COLOUR, PREDICTION_COLOUR = "#3ddcff", "#ff9d2e"  # told apart by the colour-blind too
LABEL_STYLES = ("solid", "dashed", "dotted", "dashdot")  # of a label's contour, in the order of the labels
_MARGIN_MM = 12.0  # of surroundings shown around the organ
_SAMPLE = 1_000_000  # voxels that tell how bright an image is

# Plane, the array axis across it, the axes to the right and upwards, and the letters at left, right, bottom, top.
# The first axis is drawn from the patient's right to left (radiological), the second, where horizontal, from the front.
_PLANES = (("axial", 2, (0, 1), "RLPA"), ("coronal", 1, (0, 2), "RLIS"), ("sagittal", 0, (1, 2), "APIS"))


def slice_pngs(image: Files, label: Path, prediction: Path, labels: Mapping[str, int]) -> list[tuple[str, str]]:
    """Axial, coronal and sagittal slice through the organ with contours, as pairs of description and PNG.

    Of several channels the first one is shown. The slices follow the image's own axes in their right proportions; each
    is where most of all true labels is seen, or of those predicted where there is no true one.

    Raises:
        ImageError: the image is no readable 3D image.
        LabelError: label or prediction is no label map on the grid of the image.
    """
    from matplotlib.figure import Figure

    channels, grid = read_channels(image, count_channels(image))
    grey, grid = _upright(channels[0], grid)
    spacing = np.array(grid.spacing)
    masks = []
    for path in (label, prediction):
        voxels, place = _upright(*read_label(path))
        check_grid(place, grid, path.name, as_files(image)[0].name)
        masks.append(voxels)
    truth, predicted = masks
    ends = np.array([_ends((truth > 0) | (predicted > 0), axis) for axis in range(3)]).T
    low, high = ends * spacing
    centre, half = (low + high) / 2, float((high - low).max() / 2 + _MARGIN_MM)
    window = np.percentile(grey.ravel(order="K")[:: max(1, grey.size // _SAMPLE)], (1, 99.5))
    pictures = []
    for plane, across, (right, up), letters in _PLANES:
        index = _fullest_slice(truth if truth.any() else predicted, across, labels)
        figure = Figure(figsize=(3.2, 3.2), dpi=150, facecolor="black")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        extent = [side for axis in (right, up) for side in _edges(grey.shape[axis], spacing[axis], centre[axis])]
        axes.imshow(
            grey.take(index, axis=across).T,
            cmap="gray",
            origin="lower",
            extent=(extent[0], extent[1], extent[2], extent[3]),
            vmin=window[0],
            vmax=max(window[1], window[0] + 1e-6),
            interpolation="bilinear",
        )
        for mask, colour, width in ((truth, TRUTH_COLOUR, 2.4), (predicted, PREDICTION_COLOUR, 1.2)):  # both show
            for i, value in enumerate(labels.values()):
                _contour(
                    axes,
                    np.pad(mask.take(index, axis=across) == value, 1),  # closes contours at the border of the image
                    [(np.arange(-1, grey.shape[a] + 1)) * spacing[a] - centre[a] for a in (right, up)],
                    colour,
                    width,
                    LABEL_STYLES[i % len(LABEL_STYLES)],
                )
        _annotate(axes, plane, letters, half)
        pictures.append((f"{plane} slice with true and predicted contours", figure_uri(figure, transparent=False)))
    return pictures


def _upright(voxels: np.ndarray, grid: Geometry) -> tuple[np.ndarray, Geometry]:
    """Return voxels (X, Y, Z) turned to the nearest RAS+ order, and their grid."""
    turn = nib.io_orientation(grid.affine)
    turned = nib.apply_orientation(voxels, turn)
    return turned, Geometry(turned.shape, grid.affine @ nib.orientations.inv_ornt_aff(turn, voxels.shape))


def _ends(mask: np.ndarray, axis: int) -> tuple[int, int]:
    """Return the first and the last slice of an axis that show something of a mask; those of all where none does."""
    shown = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    return (int(shown[0]), int(shown[-1])) if len(shown) else (0, mask.shape[axis] - 1)


def _fullest_slice(truth: np.ndarray, across: int, labels: Mapping[str, int]) -> int:
    """Return the slice that shows most of all true labels, each counted by its share; the middle one without any."""
    others = tuple(axis for axis in range(3) if axis != across)
    score = np.zeros(truth.shape[across])
    for value in labels.values():
        mask = truth == value
        score += mask.sum(axis=others) / max(int(mask.sum()), 1)
    return int(score.argmax()) if score.any() else truth.shape[across] // 2


def _edges(count: int, spacing: float, centre: float) -> tuple[float, float]:
    """Return where the first and the last voxel of an axis end, in mm from ``centre``."""
    return -0.5 * spacing - centre, (count - 0.5) * spacing - centre


def _contour(axes: Axes, mask: np.ndarray, places: Sequence[np.ndarray], colour: str, width: float, style: str) -> None:
    if mask.any():
        axes.contour(*places, mask.T.astype(float), levels=[0.5], colors=colour, linewidths=width, linestyles=style)


def _annotate(axes: Axes, plane: str, letters: str, half: float) -> None:
    """Name of the plane, orientation letters and a bar of 10 mm; turns the axes to the radiological convention."""
    from matplotlib.patheffects import withStroke

    axes.set(xlim=(half, -half), ylim=(-half, half), aspect="equal")
    for letter, (x, y) in zip(letters, ((0.045, 0.5), (0.955, 0.5), (0.5, 0.045), (0.5, 0.955)), strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, color="white", fontsize=10, ha="center", va="center")
    axes.text(0.025, 0.955, plane, transform=axes.transAxes, color="white", fontsize=10, ha="left", va="center")
    start = 1 - 0.05 - 10 / (2 * half)
    axes.plot([start, 0.95], [0.045, 0.045], transform=axes.transAxes, color="white", linewidth=2)
    for mark in (*axes.texts, *axes.lines):  # bright tissue may lie below
        mark.set_path_effects([withStroke(linewidth=4, foreground="black")])
