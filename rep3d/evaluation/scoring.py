"""What is measured of a case, label by label: Dice, distance between the surfaces, and volume.

Surfaces are those of Nikolov et al. (https://arxiv.org/abs/1809.04430), as in MONAI: each of their points counts by its
area, so that voxels which are longer than wide count as what they are. MONAI's functions go over all voxels of a
label's box with numbers of four bytes; here only the points of the surfaces are kept, which for a label with a stray
voxel in a corner of a CT is seconds instead of minutes. How each number is defined is in ``docs/evaluate.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from rep3d.data.cases import shown
from rep3d.evaluation import TOLERANCE_MM
from rep3d.evaluation.metrics import overlaps, read_pair
from rep3d.imaging.grid import Geometry, Place
from rep3d.imaging.labels import check_values, label_counts
from rep3d.imaging.values import label_boxes

__all__ = ["LabelScore", "score_files", "score_maps"]


@dataclass(frozen=True)
class LabelScore:
    """How well one label of one case was found; NaN is what is not defined.

    Attributes:
        dice: in [0, 1]; 0 where only one map has the label.
        hd95_mm: the distance that 95 % of either surface does not exceed to the other one; undefined where only one map
            has the label.
        nsd: surface Dice, the share of both surfaces that lies within the tolerance of the other one; 0 where only one
            map has the label.
        volume_true_ml: of the truth.
        volume_predicted_ml: of the prediction.
    """

    dice: float
    hd95_mm: float
    nsd: float
    volume_true_ml: float
    volume_predicted_ml: float

    @property
    def scored(self) -> bool:
        """Whether there is anything to score: a map that has the label."""
        return not math.isnan(self.dice)

    @property
    def presence(self) -> str:
        """Which of the maps have the label: ``both``, ``truth only``, ``prediction only`` or ``neither``."""
        if self.volume_true_ml:
            return "both" if self.volume_predicted_ml else "truth only"
        return "prediction only" if self.volume_predicted_ml else "neither"

    @property
    def volume_error_ml(self) -> float:
        """Predicted minus true volume; undefined where neither map has the label."""
        return self.volume_predicted_ml - self.volume_true_ml if self.scored else math.nan

    @property
    def volume_error_percent(self) -> float:
        """The same in percent of the true volume; undefined where that is 0."""
        return 100 * self.volume_error_ml / self.volume_true_ml if self.volume_true_ml else math.nan

    def to_dict(self) -> dict[str, float | None]:
        """As plain JSON types; what is not defined is None."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelScore:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if a number is missing or none.
        """
        named = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{name: math.nan if value is None else float(value) for name, value in named.items()})


def score_files(
    prediction: Path | str,
    truth: Path | str,
    labels: Mapping[str, int],
    tolerance_mm: float = TOLERANCE_MM,
    ignore: int | None = None,
    others: Collection[int] | None = None,
) -> dict[str, LabelScore]:
    """As :func:`score_maps`, for two label files on one grid.

    Args:
        prediction: the label map to score.
        truth: the true one.
        labels: see :func:`score_maps`.
        tolerance_mm: likewise.
        ignore: likewise.
        others: values that either map may have beside these, such as those of labels that are not scored; None for any.

    Raises:
        LabelError: if a file is not a label map, has unexpected values, or their grids differ.
        OutOfMemoryError: if there is not enough memory.
    """
    predicted, true, grid = read_pair(prediction, truth)
    if others is not None:
        fine = {*others, ignore}
        for values, file in ((true, truth), (predicted, prediction)):
            check_values(set(label_counts(values)) - fine, labels, shown(file))
    return score_maps(predicted, true, labels, grid, tolerance_mm, ignore)


def score_maps(
    prediction: np.ndarray,
    truth: np.ndarray,
    labels: Mapping[str, int],
    grid: Geometry,
    tolerance_mm: float = TOLERANCE_MM,
    ignore: int | None = None,
) -> dict[str, LabelScore]:
    """Score each label of two label maps on one grid.

    Args:
        prediction: (X, Y, Z) voxel values, unsigned integers.
        truth: (X, Y, Z) voxel values, unsigned integers.
        labels: label name to voxel value, of the labels to score: those that were annotated in this case.
        grid: where the voxels lie.
        tolerance_mm: distance up to which surfaces count as agreeing.
        ignore: value in ``truth`` of voxels of which nothing is known: there both maps count as background.

    Returns:
        Label name to its scores.

    Raises:
        LabelError: if the shapes differ.
    """
    counted = overlaps(prediction, truth, labels, ignore)
    boxes = label_boxes(prediction), label_boxes(truth)
    scores = {}
    for name, value in labels.items():
        overlap = counted[name]
        hd95, nsd = math.nan, math.nan if math.isnan(overlap.dice) else 0.0
        if overlap.predicted and overlap.true:
            ours, theirs = (found[value - 1] for found in boxes)
            assert ours and theirs, "both have voxels"
            place = _around(ours, theirs)
            one, other = prediction[place] == value, truth[place] == value
            if ignore is not None:
                one &= truth[place] != ignore
            hd95, nsd = _surface_scores(one, other, grid.spacing, tolerance_mm)
        volumes = overlap.true * grid.voxel_ml, overlap.predicted * grid.voxel_ml
        scores[name] = LabelScore(overlap.dice, hd95, nsd, *volumes)
    return scores


def _around(one: Place, other: Place) -> Place:
    """Return the smallest box around two."""
    x, y, z = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return x, y, z


def _surface_scores(
    prediction: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], tolerance_mm: float
) -> tuple[float, float]:
    """Return HD95 in mm and surface Dice of two masks, neither of which is empty."""
    (one, one_areas), (other, other_areas) = _surface(prediction, spacing), _surface(truth, spacing)
    away = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    pairs = list(zip(away, (one_areas, other_areas), strict=True))
    agreeing = sum(float(areas[distances <= tolerance_mm].sum()) for distances, areas in pairs)
    nsd = agreeing / float(one_areas.sum() + other_areas.sum())
    return max(_percentile(distances, areas, 0.95) for distances, areas in pairs), nsd


def _surface(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the surface of a mask: points (N, 3) in mm, and the area in mm² at each (N,).

    A point lies between eight voxels of which some, not all, are in the mask; which ones they are tells the area.
    """
    padded = np.pad(np.ascontiguousarray(mask), 1).view(np.uint8)  # as the code is, or each step takes 50 times as long
    code = np.zeros([side - 1 for side in padded.shape], np.uint8)
    for bit, corner in enumerate(itertools.product((0, 1), repeat=3)):
        x, y, z = (slice(start, start + side) for start, side in zip(corner, code.shape, strict=True))
        code |= padded[x, y, z] << np.uint8(7 - bit)
    places = np.nonzero((code > 0) & (code < 255))
    return np.stack(places, axis=1) * spacing, _areas(spacing)[code[places]]


@cache
def _areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Return the area in mm² for each of the 256 cases."""
    from monai.metrics.utils import get_code_to_measure_table  # here, since PyTorch comes with it

    return get_code_to_measure_table(spacing)[0].double().numpy()


def _percentile(distances: np.ndarray, areas: np.ndarray, share: float) -> float:
    """Return the smallest distance that a share of the area does not exceed."""
    order = np.argsort(distances)
    reached = np.cumsum(areas[order])
    index = np.searchsorted(reached, share * reached[-1])
    return float(distances[order[min(int(index), len(order) - 1)]])
