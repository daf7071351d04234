"""The demo's report: one HTML file that shows what the loop gained, how it looks, and what exactly was measured.

It is the first thing a newcomer sees and something people forward, hence a single file without outside resources: style
inline, pictures embedded, readable on a phone, in the dark and on paper. Every number on it is computed here from the
Dice of single held-out cases, so that a summary can never disagree with the table below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from rep3d.demo.figures import LABEL_STYLES, PREDICTION_COLOUR, TRUTH_COLOUR, CurvePoint, curve_png, slice_pngs
from rep3d.errors import ConfigError
from rep3d.html import CSS, table

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
class CasePicture:
    """Files of a held-out case to draw: image, true label and predicted label on one grid."""

    case_id: str
    image: Path
    label: Path
    prediction: Path


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
    path.write_text(_page(report), encoding="utf-8")


def case_mean(dice: Mapping[str, float]) -> float:
    """Mean Dice of one case over its labels; labels with NaN are left out, NaN if none is left."""
    return _mean(dice.values())


def pick_cases(dice: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """The best, median and worst case of a round by mean Dice, as role to case id; fewer roles if there are fewer."""
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
    """One value per held-out case: its Dice of ``label``, or its mean over the labels for None."""
    rows = result.dice.values()
    return [case_mean(row) if label is None else row.get(label, float("nan")) for row in rows]


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _mean_sd(values: Iterable[float]) -> str:
    """Mean, and the standard deviation over cases where there are two or more."""
    array = _finite(values)
    spread = f" <small>&plusmn;&nbsp;{array.std(ddof=1):.3f}</small>" if len(array) > 1 else ""
    return _number(_mean(array)) + spread


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --------------------------------------------------------------------------------------------------------------- page
def _page(report: DemoReport) -> str:
    title = escape(report.title)
    sections = (_header(report), _curve(report), _rounds(report), _pictures(report), _cases(report), _facts(report))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(report: DemoReport) -> str:
    last, held_out = report.rounds[-1], _held_out(report.rounds)
    trainings = sum(r.train_seconds > 0 for r in report.rounds)
    dice = _number(_mean(_case_values(last, None))) if last.dice else "no model yet"
    tiles = (
        ("Mean Dice, held-out cases", dice),
        ("Labels submitted", str(last.submitted)),
        ("Held-out cases", str(len(held_out))),
        ("Time spent training", _duration(sum(r.train_seconds for r in report.rounds))),
    )
    cells = [f"<div{' class=first' if i == 0 else ''}><dt>{k}</dt><dd>{v}</dd></div>" for i, (k, v) in enumerate(tiles)]
    names = " and ".join(filter(None, (", ".join(list(report.labels)[:-1]), list(report.labels)[-1])))
    return (
        f'<header><p class="eyebrow">Rep3D Label, demo report</p><h1>{escape(report.title)}</h1>'
        f'<p class="lead">A stand-in for a clinician asked the server for images of {escape(report.dataset)}, '
        f"corrected its segmentation of {escape(names)}, submitted {_plural(last.submitted, 'label')} and had the "
        f"model trained {_plural(trainings, 'time')}. After each round the model was tested on cases it never saw.</p>"
        f'<dl class="tiles">{"".join(cells)}</dl></header>'
    )


def _curve(report: DemoReport) -> str:
    if not any(r.dice for r in report.rounds):
        return "<h2>Accuracy and labels given</h2><p>No model yet: there is nothing to draw.</p>"
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
    return (
        "<h2>Accuracy and labels given</h2><figure><picture>"
        f'<source media="{night} and {narrow}" srcset="{curve_png(points, dark, 4.4)}">'
        f'<source media="{night}" srcset="{curve_png(points, dark, 8.4)}">'
        f'<source media="screen and {narrow}" srcset="{curve_png(points, light, 4.4)}">'
        f'<img src="{curve_png(points, light, 8.4)}" '
        'alt="Dice of held-out cases against the number of labels submitted"></picture></figure>'
        '<p class="muted">Each grey dot is one held-out case (mean over its labels), the band one standard deviation '
        "over the cases.</p>"
    )


def _rounds(report: DemoReport) -> str:
    head = [
        "Round",
        "Labels so far",
        *map(escape, report.labels),
        "Mean",
        "Training",
        "Model",
        "Submitted in this round",
    ]
    rows = []
    for r in report.rounds:
        names = f'<small class="names">{escape(", ".join(r.new_cases))}</small>' if r.new_cases else ""
        if r.dice:
            dice = "".join(f'<td class="n">{_mean_sd(_case_values(r, label))}</td>' for label in (*report.labels, None))
        else:
            dice = f'<td colspan="{len(report.labels) + 1}" class="muted">no model yet</td>'
        training = _duration(r.train_seconds) if r.train_seconds > 0 else "-"
        rows.append(
            f'<tr><th scope="row">{r.round}</th><td>{r.submitted}</td>{dice}'
            f'<td class="n">{training}</td><td class="version">{escape(r.version or "-")}</td>'
            f"<td>{len(r.new_cases)}{names}</td></tr>"
        )
    return (
        "<h2>Round by round</h2><p>Dice of the held-out cases, mean &plusmn; standard deviation over cases.</p>"
        + table(head, rows)
    )


def _pictures(report: DemoReport) -> str:
    dice = report.rounds[-1].dice
    roles = {case: role for role, case in pick_cases(dice).items()}
    chosen = [p for case in roles for p in report.pictures if p.case_id == case] or list(report.pictures)
    if not chosen:
        return ""
    articles = []
    for picture in chosen:
        row = dice.get(picture.case_id, {})
        values = ", ".join(f"{escape(name)} {_number(row.get(name, float('nan')))}" for name in report.labels)
        role = f"{roles[picture.case_id].capitalize()}: " if picture.case_id in roles else ""
        drawn = slice_pngs(picture.image, picture.label, picture.prediction, report.labels)
        images = "".join(f'<img src="{png}" alt="{alt}">' for alt, png in drawn)
        articles.append(
            f'<article><div class="cap"><h3>{role}{escape(picture.case_id)}</h3><span>Dice {values}</span></div>'
            f'<div class="planes">{images}</div></article>'
        )
    legend = [
        f'<li><i style="border-color:{c}"></i>{n}</li>'
        for c, n in ((TRUTH_COLOUR, "true"), (PREDICTION_COLOUR, "predicted"))
    ]
    if len(report.labels) > 1:
        css = {"dashdot": "double"}  # CSS borders know no dash-dot; only a fourth label needs it
        for i, name in enumerate(report.labels):
            style = LABEL_STYLES[i % len(LABEL_STYLES)]
            legend.append(f'<li><i style="border-top-style:{css.get(style, style)}"></i>{escape(name)}</li>')
    said = "the best, the median and the worst held-out case of the last round" if roles else "held-out cases"
    return (
        f"<h2>What it looks like</h2><p>Shown are {said}, by mean Dice, cut along the image's own axes where most of "
        "the true labels is seen; in an oblique image the letters name the nearest direction. Radiological convention: "
        "the patient's left (L) is on the right of the picture. The bar is 10 mm.</p>"
        f'<ul class="legend">{"".join(legend)}</ul>{"".join(articles)}'
    )


def _cases(report: DemoReport) -> str:
    dice = report.rounds[-1].dice
    if not dice:
        return ""
    rows = []
    for case in sorted(dice):
        values = [dice[case].get(name, float("nan")) for name in report.labels] + [case_mean(dice[case])]
        cells = "".join(f'<td class="d" style="--v:{np.nan_to_num(v):.3f}">{_number(v)}</td>' for v in values)
        rows.append(f'<tr><th scope="row">{escape(case)}</th>{cells}</tr>')
    return (
        "<h2>Every held-out case, last round</h2><p>A dash means that neither truth nor prediction has that label; "
        "it counts in no mean.</p>" + table(["Case", *map(escape, report.labels), "Mean"], rows)
    )


def _facts(report: DemoReport) -> str:
    held_out = _held_out(report.rounds)
    always = all(sorted(r.dice) == held_out for r in report.rounds if r.dice)
    same = ", and the same cases were tested after every round" if always else ""
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in report.facts.items())
    return (
        "<h2>What was measured, and what was not</h2>"
        f'<p class="note">Dice overlap with the true labels on {_plural(len(held_out), "held-out case")} of '
        f"{escape(report.dataset)} (n = {len(held_out)}). They were never submitted and never trained on"
        f"{same}. The &ldquo;clinician&rdquo; submitted the true labels: no person corrected anything, so nothing here "
        "speaks of time saved. This is one run; another seed or another split will give other numbers, and nothing "
        "here says how the model does on other organs, scanners or patients.</p>"
        f'<h2>How it was made</h2><dl class="facts">{facts}</dl>'
    )
