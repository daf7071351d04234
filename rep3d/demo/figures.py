"""The Dice curve of the demo's report, as a PNG data URI; matplotlib is imported only when it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rep3d.html import GREY, LINE_COLOURS, dress, figure_uri

__all__ = ["CurvePoint", "curve_png"]


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
    return figure_uri(figure, transparent=True)
