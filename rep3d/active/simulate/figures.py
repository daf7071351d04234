"""The picture of a simulation: Dice against labels for each strategy, and its paired difference to random choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rep3d.active.simulate.summary import BASELINE, SHARE_OF_FULL
from rep3d.files import whole_file
from rep3d.html import GREY, LINE_COLOURS, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_curves"]

_INK = "#1c2431"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DODGE = 0.12  # of the narrowest step between label counts: neighbouring bars must not hide each other


def write_curves(summary: Mapping[str, Any], title: str, path: Path) -> None:
    """Draw the summary of :func:`rep3d.active.simulate.summary.summarise` into a PNG file.

    Left the mean Dice over seeds with its interval, right (where random choice was played) the paired difference to it.
    """
    from matplotlib.figure import Figure

    strategies: Mapping[str, Any] = summary["strategies"]
    differences = {name: entry for name, entry in strategies.items() if "difference" in entry}
    panels = 2 if differences else 1
    figure = Figure(figsize=(5.6 * panels + 0.4, 4.6), dpi=150, layout="constrained", facecolor="white")
    figure.suptitle(title, color=_INK, fontsize=12, x=0.01, ha="left")
    left = figure.add_subplot(1, panels, 1)
    for index, (name, entry) in enumerate(strategies.items()):
        _curve(left, index, len(strategies), entry["labels"], entry["dice"], name)
    full = summary["full"]
    if full:
        left.axhline(full["mean"], color=GREY, linewidth=1.2)
        left.axhline(full["mean"] * SHARE_OF_FULL, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
        for level, text in ((1.0, "all labels of the pool"), (SHARE_OF_FULL, "95 % of that")):
            place = (0.0, full["mean"] * level)  # at the left the curves are far below
            left.annotate(
                text,
                place,
                (4, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color="#5d6675",
                fontsize=9,
                ha="left",
            )
    _dress(left, "labels submitted", "mean Dice on held-out cases", next(iter(strategies.values()))["labels"])
    # The interval of few runs may be wider than all that Dice can be: the curves decide what is shown.
    heights = [point["mean"] for entry in strategies.values() for point in entry["dice"]]
    heights += [full["mean"]] if full else []
    room = 0.25 * (max(heights) - min(heights)) + 0.02
    left.set_ylim(max(0.0, min(heights) - room), min(1.0, max(heights) + room))
    left.legend(loc="lower right", frameon=False, labelcolor=_INK)
    if differences:
        right = figure.add_subplot(1, panels, 2)
        right.axhline(0, color=LINE_COLOURS[list(strategies).index(BASELINE) % len(LINE_COLOURS)], linewidth=1.8)
        for index, (name, entry) in enumerate(strategies.items()):
            if name in differences:  # the first point is the batch that all share
                _curve(right, index, len(strategies), entry["labels"][1:], entry["difference"][1:], name)
        _dress(
            right, "labels submitted", f"difference to {BASELINE} (paired)", next(iter(strategies.values()))["labels"]
        )
    counts = sorted({point["n"] for entry in strategies.values() for point in entry["dice"]})
    many = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    figure.supxlabel(
        f"Mean over {many} seeds; bars: {summary['interval']}", color="#5d6675", fontsize=9, x=0.01, ha="left"
    )
    with whole_file(path) as file:
        figure.savefig(file, format="png")


def _curve(
    axes: Axes, index: int, of: int, labels: Sequence[int], points: Sequence[Mapping[str, Any]], name: str
) -> None:
    steps = np.diff(labels)
    shift = (index - (of - 1) / 2) * _DODGE * (float(steps.min()) if len(steps) else 1.0)
    x = np.asarray(labels, float) + shift
    mean = np.array([point["mean"] for point in points])
    colour = LINE_COLOURS[index % len(LINE_COLOURS)]
    half = np.array([point["mean"] - point["low"] if point["low"] is not None else 0.0 for point in points])
    axes.errorbar(
        x,
        mean,
        yerr=half if half.any() else None,
        color=colour,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5.5,
        linewidth=1.8,
        elinewidth=1.0,
        capsize=2.5,
        label=name,
    )


def _dress(axes: Axes, x: str, y: str, labels: Sequence[int]) -> None:
    dress(axes, _INK)
    axes.set(xlabel=x, ylabel=y, xticks=list(labels))
