"""The page of an evaluation, and that of a comparison: one HTML file each, without outside resources.

Every number on them is in the JSON file beside them. Their words are in ``evaluation.html`` and ``comparison.html``;
here are the figures, and where the dots of a distribution lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rep3d import __version__
from rep3d.data.cases import Case
from rep3d.errors import said
from rep3d.evaluation.comparison import Comparison, Difference
from rep3d.evaluation.evaluation import METRICS, CaseScores, Evaluation, Mean, Metric, case_values
from rep3d.evaluation.pictures import LABEL_STYLES, PREDICTION_COLOUR, TRUTH_COLOUR, slice_pngs
from rep3d.html import render

__all__ = ["Strip", "comparison_page", "evaluation_page"]

_DISTRIBUTIONS = ("dice", "nsd", "hd95", "volume-percent")  # of which the dots are shown
_STEPS = 1, 2, 5


@dataclass(frozen=True)
class Strip:
    """A row of dots, one per case, on the scale of its chart; all places are percent of its width.

    Attributes:
        name: of the label.
        dots: place, and what the dot stands for.
        mean: place of the mean; None where there is none.
        low: place of the lower end of the mean's interval; None where there is none.
        high: and of the upper one.
        shown: the mean, as people read it.
    """

    name: str
    dots: Sequence[tuple[float, str]]
    mean: float | None
    low: float | None
    high: float | None
    shown: str


@dataclass(frozen=True)
class Scale:
    """The axis of a chart, from ``low`` to ``high``."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float], metric: Metric, zero: bool = False) -> Scale:
        """Return one on which all values lie, from 0 to 1 for shares; with ``zero``, even on both sides of 0."""
        largest = max((abs(value) for value in values), default=0.0)
        if metric.key in ("dice", "nsd") and not zero:
            return cls(0.0, 1.0)
        power = 10.0 ** math.floor(math.log10(largest)) if largest else 1.0
        end = next((step * power for step in (*_STEPS, 10) if step * power >= largest), 1.0)
        return cls(-end, end) if zero or metric.better == 0 else cls(0.0, end)

    def place(self, value: float) -> float:
        """Return where a value lies, in percent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places of five numbers along it."""
        numbers = [self.low + (self.high - self.low) * part / 4 for part in range(5)]
        return [(self.place(number), f"{number:.4g}") for number in numbers]


def evaluation_page(evaluation: Evaluation, files: Mapping[str, tuple[Case, Path]], pictures: int) -> str:
    """Return an evaluation as HTML.

    Args:
        evaluation: what was measured.
        files: case id to the case and the file of its prediction.
        pictures: how many of the worst cases to show.
    """
    worst = evaluation.worst(pictures)
    drawn = [(case, *_drawn(*files[case.id], evaluation.labels)) for case in worst]
    dice = METRICS["dice"]
    return render(
        "evaluation.html",
        evaluation=evaluation,
        metrics=METRICS,
        labels=list(evaluation.labels),
        overall={key: evaluation.mean(metric) for key, metric in METRICS.items()},
        means={name: {key: evaluation.mean(m, name) for key, m in METRICS.items()} for name in evaluation.labels},
        charts=[(METRICS[key], *_distribution(evaluation, METRICS[key])) for key in _DISTRIBUTIONS],
        absent={name: _absent(evaluation.counted, name) for name in evaluation.labels},
        rows=[(case, dice.shown(case_values(case.scores, dice))) for case in evaluation.cases],
        dice=dice,
        interval=_interval,
        pictures=drawn,
        truth_colour=TRUTH_COLOUR,
        prediction_colour=PREDICTION_COLOUR,
        label_styles=LABEL_STYLES,
        facts=[*evaluation.source.items(), ("Data set", evaluation.data), ("Measured", evaluation.created),
               ("Surface Dice counts up to", f"{evaluation.tolerance_mm:g} mm"), ("Rep3D", __version__)],
    )  # fmt: skip


def comparison_page(comparison: Comparison) -> str:
    """Return a comparison as HTML."""
    return render(
        "comparison.html",
        comparison=comparison,
        charts=[
            (metric, pair, *_differences(comparison.of(metric, pair), metric))
            for metric in comparison.metrics
            for pair in comparison.pairs
        ],
        facts=[("Rep3D", __version__)],
    )


def _drawn(case: Case, prediction: Path, labels: Mapping[str, int]) -> tuple[list[tuple[str, str]], str]:
    """Return the pictures of a case, or none and why: they cost no other, nor the numbers."""
    try:
        return slice_pngs(case.channels, case.label, prediction, labels), ""
    except Exception as error:  # an image can be odd in ways that nobody thought of
        return [], said(error)


def _distribution(evaluation: Evaluation, metric: Metric) -> tuple[Scale, list[Strip]]:
    values = {
        name: [
            (case.id, value)
            for case in evaluation.counted
            if name in case.scores and not math.isnan(value := metric.value(case.scores[name]))
        ]
        for name in evaluation.labels
    }
    scale = Scale.around([value for cases in values.values() for _, value in cases], metric)
    strips = []
    for name, cases in values.items():
        dots = [(scale.place(value), f"{case}: {metric.shown(value)}") for case, value in cases]
        strips.append(_strip(name, dots, evaluation.mean(metric, name), scale, metric.shown))
    return scale, strips


def _differences(rows: Sequence[Difference], metric: Metric) -> tuple[Scale, list[Strip]]:
    scale = Scale.around([value for row in rows for value in row.differences.values()], metric, zero=True)
    strips = []
    for row in rows:
        dots = [(scale.place(value), f"{case}: {row.shown(value)}") for case, value in row.differences.items()]
        strips.append(_strip(row.title, dots, row.mean, scale, row.shown))
    return scale, strips


def _strip(
    name: str, dots: Sequence[tuple[float, str]], mean: Mean, scale: Scale, shown: Callable[[float], str]
) -> Strip:
    def place(value: float | None) -> float | None:
        return None if value is None or math.isnan(value) else scale.place(value)

    return Strip(name, dots, place(mean.mean), place(mean.low), place(mean.high), shown(mean.mean))


def _absent(cases: Sequence[CaseScores], label: str) -> dict[str, int]:
    found = [case.scores[label].presence for case in cases if label in case.scores]
    return {where: found.count(where) for where in ("truth only", "prediction only", "neither")}


def _interval(mean: Mean, metric: Metric) -> str:
    return "" if mean.low is None else f"{metric.shown(mean.low)} to {metric.shown(mean.high)}"
