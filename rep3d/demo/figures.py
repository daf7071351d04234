"""Pictures of the demo's report as PNG data URIs: the Dice curve, and slices with true and predicted contours.

Apart from the page, because drawing needs matplotlib (imported only when something is drawn) and knows about
millimetres and orientation, while the page knows about neither.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from rep3d.errors import ImageError
from rep3d.html import GREY, LINE_COLOURS, dress, png_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LABEL_STYLES", "PREDICTION_COLOUR", "TRUTH_COLOUR", "CurvePoint", "curve_png", "slice_pngs"]

TRUTH_COLOUR, PREDICTION_COLOUR = "#3ddcff", "#ff9d2e"  # told apart by the colour-blind too
LABEL_STYLES = ("solid", "dashed", "dotted", "dashdot")  # of a label's contour, in the order of the labels
_MARGIN_MM = 12.0  # of surroundings shown around the organ

# Plane, the array axis across it, the axes to the right and upwards, and the letters at left, right, bottom, top.
# The first axis is drawn from the patient's right to left (radiological), the second, where horizontal, from the front.
_PLANES = (("axial", 2, (0, 1), "RLPA"), ("coronal", 1, (0, 2), "RLIS"), ("sagittal", 0, (1, 2), "APIS"))


@dataclass(frozen=True)
class CurvePoint:
    """A point of the Dice curve: how many labels were submitted, the mean of each label, and one mean per case.

    ``cases`` is empty while no model exists.
    """

    submitted: int
    labels: dict[str, float]
    cases: tuple[float, ...]


def curve_png(points: Sequence[CurvePoint], ink: str, width: float) -> str:
    """Return the mean Dice against the labels submitted, on a transparent ground for a page whose text is ``ink``.

    ``width`` is in inches; the letters keep their size, so that a narrow picture stays readable on a phone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 1.6 + 0.3 * width), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    measured = [p for p in points if p.cases]
    x = np.array([p.submitted for p in measured])
    cases = [np.array([v for v in p.cases if np.isfinite(v)]) for p in measured]
    mean = np.array([c.mean() if len(c) else np.nan for c in cases])
    spread = np.array([c.std(ddof=1) if len(c) > 1 else 0.0 for c in cases])
    axes.fill_between(x, mean - spread, np.minimum(mean + spread, 1), color=ink, alpha=0.10, linewidth=0)
    for submitted, values in zip(x, cases, strict=True):
        axes.scatter(np.full(len(values), submitted), values, s=14, color=GREY, alpha=0.55, linewidths=0, zorder=2)
    for i, label in enumerate(measured[0].labels):
        colour = LINE_COLOURS[i % len(LINE_COLOURS)]
        axes.plot(x, [p.labels[label] for p in measured], color=colour, linewidth=1.8, marker="o", ms=4, label=label)
    axes.plot(x, mean, color=ink, linewidth=2.6, marker="o", ms=6, label="mean", zorder=4)
    if np.isfinite(mean[-1]):
        place, text = (x[-1], mean[-1]), f"{mean[-1]:.2f}"
        axes.annotate(text, place, (9, 0), textcoords="offset points", color=ink, weight="bold", va="center")
    for point in points:
        if not point.cases:
            axes.axvline(point.submitted, color=GREY, linewidth=1, linestyle=(0, (2, 3)))
            axes.annotate("no model yet", (point.submitted, 0.03), (5, 0), textcoords="offset points", color=GREY)
    axes.set(ylim=(0, 1), xlabel="labels submitted", ylabel="Dice on held-out cases")
    dress(axes, ink)
    axes.legend(loc="lower right", frameon=False, labelcolor=ink)
    return _data_uri(figure, transparent=True)


def slice_pngs(image: Path, label: Path, prediction: Path, labels: Mapping[str, int]) -> list[tuple[str, str]]:
    """Axial, coronal and sagittal slice through the organ with contours, as pairs of description and PNG.

    The slices follow the image's own axes in their right proportions; each is where most of all true labels is seen.

    Raises:
        ImageError: label or prediction is not on the grid of the image, or a file is no 3D image.
    """
    from matplotlib.figure import Figure

    grey, affine = _load(image)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    masks = []
    for path in (label, prediction):
        voxels, place = _load(path)
        if voxels.shape != grey.shape:
            raise ImageError(f"{path} has the shape {voxels.shape}, its image {grey.shape}. Resample it.")
        if not np.allclose(place, affine, atol=1e-2):
            raise ImageError(f"{path} has the affine {place.tolist()}, its image {affine.tolist()}. Resample it.")
        masks.append(np.round(voxels).astype(int))
    truth, predicted = masks
    shown = (truth > 0) | (predicted > 0)
    found = np.argwhere(shown if shown.any() else np.ones_like(shown))
    low, high = found.min(axis=0) * spacing, found.max(axis=0) * spacing
    centre, half = (low + high) / 2, float((high - low).max() / 2 + _MARGIN_MM)
    window = np.percentile(grey, (1, 99.5))
    pictures = []
    for plane, across, (right, up), letters in _PLANES:
        index = _fullest_slice(truth, across, labels)
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
        pictures.append((f"{plane} slice with true and predicted contours", _data_uri(figure, transparent=False)))
    return pictures


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return voxels (X, Y, Z) turned to the nearest RAS+ order, and their affine (4, 4) to mm."""
    try:
        image = nib.as_closest_canonical(nib.load(path))
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from error
    voxels = np.asarray(image.dataobj)
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    if voxels.ndim != 3:
        raise ImageError(f"{path} is not three-dimensional: its shape is {voxels.shape}. Give one channel only.")
    return voxels.astype(np.float32), np.asarray(image.affine)


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


def _data_uri(figure: Figure, transparent: bool) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=transparent)
    return png_uri(buffer.getvalue())
