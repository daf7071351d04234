"""What a data set measures as a whole, in the spirit of nnU-Net's fingerprint.

Isensee et al. 2021, Nature Methods 18 (https://doi.org/10.1038/s41592-020-01008-z): the median shape, the spacings, and
the intensities of labelled voxels decide how images are prepared. Added are sizes of the structures, since the voxels
must be fine enough for the smallest one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rep3d.imaging.outliers import along_axes
from rep3d.planning.inspecting import CaseFacts

__all__ = ["Fingerprint", "LabelFacts", "Range", "fingerprint"]

_CT_AIR = -500.0  # HU: an image that reaches below shows air as CT does
_BINS = 48


@dataclass(frozen=True)
class Range:
    """The lowest, the median and the highest of some numbers."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Return the range of one number or more."""
        return cls(float(min(values)), float(np.median(values)), float(max(values)))


@dataclass(frozen=True)
class LabelFacts:
    """What was measured of a label.

    Attributes:
        value: its voxel value.
        cases: how many cases have it.
        share: of all labelled voxels' volume, 0 to 1.
        volume: in ml, over the cases that have it; None where none has.
        thickness: in mm at the thickest place, over the same.
    """

    value: int
    cases: int
    share: float
    volume: Range | None
    thickness: Range | None


@dataclass(frozen=True)
class Fingerprint:
    """What a data set measures.

    Attributes:
        cases: how many were measured.
        orientations: how many images have which axes, such as ``{"LPS": 18}``; the most frequent first.
        shape: voxels along R, A, S.
        spacing: voxel size in mm along R, A, S.
        intensity: lowest and highest value of each image: the lowest and the highest of all, and the median in between.
        channels: of each channel the percentiles 0.5, 50 and 99.5 of the intensities of labelled voxels, each case
            weighing the same.
        mean: of these intensities in the first channel, as all that is said of intensities below and above.
        sd: their standard deviation.
        air: whether most images have values like those of air in CT, and whole numbers.
        histogram: edges and shares of these intensities.
        labels: label name to what was measured.
    """

    cases: int
    orientations: Mapping[str, int]
    shape: tuple[Range, Range, Range]
    spacing: tuple[Range, Range, Range]
    intensity: Range
    channels: tuple[Range, ...]
    mean: float
    sd: float
    air: bool
    histogram: tuple[tuple[float, ...], tuple[float, ...]]
    labels: Mapping[str, LabelFacts]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        return asdict(self)

    @property
    def thinnest(self) -> tuple[str, float] | None:
        """The label that is thinnest in the median case that has it, and its mm; None where no case has a label."""
        found = [(one.thickness.median, name) for name, one in self.labels.items() if one.thickness]
        return (min(found)[1], min(found)[0]) if found else None


def fingerprint(facts: Sequence[CaseFacts], labels: Mapping[str, int]) -> Fingerprint:
    """Return what one case or more measure together.

    Args:
        facts: of the cases that can be used.
        labels: label name to voxel value.
    """
    sides = np.array([along_axes(one.grid.spacing, one.grid.axis_codes) for one in facts])
    shapes = np.array([along_axes(one.grid.shape, one.grid.axis_codes) for one in facts])
    # Each case is drawn from alike, so that a large image does not outweigh the others.
    least = min(one.samples.shape[1] for one in facts)
    together = np.concatenate([one.samples[:, : max(least, 1000)] for one in facts], axis=1)
    ranges = tuple(Range(*map(float, np.percentile(values, (0.5, 50, 99.5)))) for values in together)
    pooled, low, high = together[0], ranges[0].low, ranges[0].high
    counts, edges = np.histogram(pooled, _BINS, (low, high if high > low else low + 1.0))
    total = sum(sum(one.volumes.values()) for one in facts)
    return Fingerprint(
        cases=len(facts),
        orientations=dict(Counter("".join(one.grid.axis_codes) for one in facts).most_common()),
        shape=_ranges(shapes),
        spacing=_ranges(sides),
        intensity=Range(
            min(one.low for one in facts),
            float(np.median([value for one in facts for value in (one.low, one.high)])),
            max(one.high for one in facts),
        ),
        channels=ranges,
        mean=float(pooled.mean(dtype=np.float64)),
        sd=float(pooled.std(dtype=np.float64)),
        air=2 * sum(one.whole and one.low <= _CT_AIR for one in facts) > len(facts),
        histogram=(tuple(edges.tolist()), tuple((counts / max(counts.sum(), 1)).tolist())),
        labels={name: _of_label(name, value, facts, total) for name, value in labels.items()},
    )


def _ranges(values: np.ndarray) -> tuple[Range, Range, Range]:
    right, front, up = (Range.of(column.tolist()) for column in values.T)
    return right, front, up


def _of_label(name: str, value: int, facts: Sequence[CaseFacts], total: float) -> LabelFacts:
    having = [one for one in facts if name in one.volumes]
    volumes = [one.volumes[name] for one in having]
    return LabelFacts(
        value,
        len(having),
        sum(volumes) / total if total else math.nan,
        Range.of(volumes) if having else None,
        Range.of([one.thickness[name] for one in having]) if having else None,
    )
