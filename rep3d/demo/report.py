"""The demo's report: one HTML file that shows what the loop gained, how it looks, and what exactly was measured.

It is the first thing a newcomer sees and something people forward, hence a single file without outside resources: style
inline, pictures embedded, readable on a phone, in the dark and on paper. Every number on it is computed here from the
Dice of single held-out cases, so that a summary can never disagree with the table below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rep3d.data.cases import Case
from rep3d.demo.figures import CurvePoint, curve_png
from rep3d.errors import ConfigError
from rep3d.evaluation.pictures import LABEL_STYLES, PREDICTION_COLOUR, TRUTH_COLOUR, slice_pngs
from rep3d.files import write_text
from rep3d.html import render

__all__ = ["CasePicture", "DemoReport", "RoundResult", "case_mean", "pick_cases", "write_report"]


@dataclass(frozen=True)
class RoundResult:
    """What one round of the loop brought.

    ``dice`` maps a held-out case to the Dice of each label (NaN where neither truth nor prediction has the label); it
    is empty as long as no model exists. ``submitted`` counts the labels given so far, ``new_cases`` names this round's,
    ``train_seconds`` is 0 for a round without training.
    """

    round: int
    submitted: int
    new_cases: tuple[str, ...]
    dice: dict[str, dict[str, float]]
    train_seconds: float
    version: str | None


@dataclass(frozen=True)
class CasePicture(Case):
    """A held-out case to draw, with its predicted label on the same grid."""

    prediction: Path = field(kw_only=True)


@dataclass(frozen=True)
class DemoReport:
    """All that the report says. ``facts`` (data, seed, machine, versions, date, total time) is listed in its own order.

    Raises:
        ConfigError: there is no label or no round, or a held-out case was also submitted, which would make all
            figures worthless.
    """

    title: str
    dataset: str
    labels: dict[str, int]
    rounds: tuple[RoundResult, ...]
    pictures: tuple[CasePicture, ...]
    facts: dict[str, str]

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("A report needs at least one label, got none.")
        if not self.rounds:
            raise ConfigError("A report needs at least one round, got none.")
        leaked = sorted({case for r in self.rounds for case in r.new_cases} & set(_held_out(self.rounds)))
        if leaked:
            raise ConfigError(f"Held-out cases must never be submitted, got {leaked} in both. Keep them apart.")


def write_report(path: Path, report: DemoReport) -> None:
    """Write ``report`` as one self-contained HTML file.

    Raises:
        ImageError: a picture's label or prediction is not on the grid of its image.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _page(report))


def case_mean(dice: Mapping[str, float]) -> float:
    """Return the mean Dice of one case over its labels; labels with NaN are left out, NaN if none is left."""
    return _mean(dice.values())


def pick_cases(dice: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Return the best, median and worst case of a round by mean Dice, as role to case id; fewer of fewer cases."""
    ranked = sorted((case for case in dice if np.isfinite(case_mean(dice[case]))), key=lambda c: -case_mean(dice[c]))
    if not ranked:
        return {}
    picks = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    if len(ranked) < 3:
        del picks["median"]
    if len(ranked) < 2:
        del picks["worst"]
    return picks


# ------------------------------------------------------------------------------------------------------------ numbers
def _held_out(rounds: Iterable[RoundResult]) -> list[str]:
    return sorted({case for r in rounds for case in r.dice})


def _finite(values: Iterable[float]) -> np.ndarray:
    array = np.array(list(values), dtype=float)
    return array[np.isfinite(array)]


def _mean(values: Iterable[float]) -> float:
    array = _finite(values)
    return float(array.mean()) if len(array) else float("nan")


def _case_values(result: RoundResult, label: str | None) -> list[float]:
    """Return one value per held-out case: its Dice of ``label``, or its mean over the labels for None."""
    rows = result.dice.values()
    return [case_mean(row) if label is None else row.get(label, float("nan")) for row in rows]


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _spread(values: Iterable[float]) -> float | None:
    """Return the standard deviation over cases, where there are two or more."""
    array = _finite(values)
    return float(array.std(ddof=1)) if len(array) > 1 else None


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --------------------------------------------------------------------------------------------------------------- page
def _page(report: DemoReport) -> str:
    last, held_out, labels = report.rounds[-1], _held_out(report.rounds), list(report.labels)
    roles = {case: role for role, case in pick_cases(last.dice).items()}
    chosen = [p for case in roles for p in report.pictures if p.id == case] or list(report.pictures)
    return render(
        "report.html",
        report=report,
        last=last,
        held_out=held_out,
        labels=labels,
        names=" and ".join(filter(None, (", ".join(labels[:-1]), labels[-1]))),
        trainings=sum(r.train_seconds > 0 for r in report.rounds),
        same_cases=all(sorted(r.dice) == held_out for r in report.rounds if r.dice),
        curve=_curve(report) if any(r.dice for r in report.rounds) else [],
        roles=roles,
        pictures=[(p, slice_pngs(p.image, p.label, p.prediction, report.labels)) for p in chosen],
        case_row=lambda dice: [*(dice.get(name, float("nan")) for name in labels), case_mean(dice)],
        case_values=_case_values,
        mean=_mean,
        spread=_spread,
        number=_number,
        nan=float("nan"),
        duration=_duration,
        plural=_plural,
        truth_colour=TRUTH_COLOUR,
        prediction_colour=PREDICTION_COLOUR,
        label_styles=LABEL_STYLES,
    )


def _curve(report: DemoReport) -> list[tuple[str, str]]:
    """Return the curve as pictures, each with the media that it is for; the last is for all others."""
    points = [
        CurvePoint(
            submitted=r.submitted,
            labels={label: _mean(_case_values(r, label)) for label in report.labels},
            cases=tuple(_case_values(r, None)),
        )
        for r in report.rounds
    ]
    light, dark = "#1c2431", "#e7eaf0"  # --ink of the style sheet
    narrow, night = "(max-width: 34rem)", "screen and (prefers-color-scheme: dark)"
    return [
        (f"{night} and {narrow}", curve_png(points, dark, 4.4)),
        (night, curve_png(points, dark, 8.4)),
        (f"screen and {narrow}", curve_png(points, light, 4.4)),
        ("", curve_png(points, light, 8.4)),
    ]
