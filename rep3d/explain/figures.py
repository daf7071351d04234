"""Figures of the page of ``rep3d explain``: slices as pixel-exact pictures, curves as SVG in the page's own colours.

Everything is inline SVG. Text and axes take the page's text colour, so that one figure serves light, dark and paper;
slices are stored with one pixel per voxel and enlarged by the browser.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from rep3d.html import GREY, LINE_COLOURS, dress, png_uri

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

__all__ = [
    "MODEL_COLOURS",
    "PRIOR_COLOUR",
    "Box",
    "Curve",
    "bar_svg",
    "curves_svg",
    "log_slice_svg",
    "signed_slice_svg",
]

MODEL_COLOURS = LINE_COLOURS[:2]  # the explained network, and the one beside it
PRIOR_COLOUR = GREY
_INK = "#010203"  # stands for the page's text colour until the figure is on the page
# What matplotlib would say about itself, with addresses of the vocabulary it says it in.
_NO_METADATA: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
# Zero is black, as the smallest value of the other scale is: a bright zero would glare on a dark page.
_SIGNED = ("#b8f0ff", "#45b3e6", "#1c5f8f", "#0b0d12", "#8f4a14", "#e8943a", "#ffe0ae")


@dataclass(frozen=True)
class Box:
    """A rectangle on a slice: first and last pixel along both axes, both inside, and a class of the style sheet."""

    left: int
    right: int
    bottom: int
    top: int
    style: str


@dataclass(frozen=True)
class Curve:
    """A line of a chart.

    Attributes:
        x: shape (R,).
        y: shape (R,).
        label: for the legend.
        colour: of the line.
        dash: a matplotlib line style.
        low: shape (R,), lower end of a band, or None.
        high: shape (R,), upper end of the band.
        marks: places on the line, (x, y), to be dotted.
    """

    x: np.ndarray
    y: np.ndarray
    label: str
    colour: str
    dash: str | tuple[float, tuple[float, ...]] = "-"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    marks: Sequence[tuple[float, float]] = ()


def log_slice_svg(values: np.ndarray, lowest: float, highest: float, label: str, boxes: Sequence[Box] = ()) -> Markup:
    """Return a slice (first axis to the right, second upwards) of positive values, on a log scale with two ends."""
    shown = np.log(np.clip(values, lowest, highest) / lowest) / np.log(highest / lowest)
    return _slice_svg(_colours(signed=False)(shown), label, boxes)


def signed_slice_svg(values: np.ndarray, limit: float, label: str) -> Markup:
    """Return a slice of values from ``-limit`` to ``limit``, on a linear scale with zero in its middle."""
    return _slice_svg(_colours(signed=True)(0.5 + 0.5 * np.clip(values / limit, -1, 1)), label, ())


def bar_svg(signed: bool, label: str) -> Markup:
    """Return the colours of one of the two scales, from left to right."""
    return _slice_svg(_colours(signed)(np.linspace(0, 1, 128))[:, None], label, (), stretch=True)


def curves_svg(
    curves: Sequence[Curve], name: str, x_label: str, y_label: str, *, log: bool = False, levels: Sequence[float] = ()
) -> Markup:
    """Return a line chart.

    Args:
        curves: the lines; later ones lie on top.
        name: unique on the page; goes into the ids of the SVG.
        x_label: of the axis.
        y_label: of the axis.
        log: whether the y axis is logarithmic.
        levels: heights to mark across the chart, as percent.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, 2.9))
    axes = figure.add_axes((0.15, 0.16, 0.84, 0.82))
    for level in levels:
        axes.axhline(level, color=GREY, linewidth=0.7, alpha=0.6)
    for curve in curves:
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=curve.colour, alpha=0.18, linewidth=0)
        label = curve.label.lstrip("_")  # matplotlib hides labels that begin so
        axes.plot(curve.x, curve.y, color=curve.colour, linestyle=curve.dash, linewidth=1.8, label=label)
        for x, y in curve.marks:
            axes.plot([x], [y], color=curve.colour, marker="o", markersize=4.5)
    if log:
        axes.set_yscale("log")
        lines = np.concatenate([curve.y for curve in curves])  # a band that touches zero must not stretch the axis
        axes.set_ylim(0.6 * lines[lines > 0].min(), 1.6 ** len(curves) * lines.max())  # room for the legend
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if levels:
        axes.set_yticks(levels, [f"{level:.0%}" for level in levels])
        axes.set_ylim(0, 1.03)
    axes.set_xlim(left=0)
    axes.set(xlabel=x_label, ylabel=y_label)
    dress(axes, _INK, size=9)
    legend = axes.legend(loc="upper right" if log else "lower right", frameon=False, labelcolor=_INK, fontsize=9)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a file's name may have dollar signs
    return _inline(figure, name, f"{y_label} against {x_label}")


def _inline(figure: Figure, name: str, label: str) -> Markup:
    """Return the figure as SVG for a page: sized by its place, ids of its own, in the page's font and colour."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' (?:width|height)="[\d.]+pt"| xmlns(?::\w+)?="[^"]*"', "", text, count=4)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # matplotlib numbers the parts of every figure alike
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = text.replace(_INK, "currentColor")
    return Markup(text.replace("<svg", f'<svg class="chart" role="img" aria-label="{label}"', 1))


def _colours(signed: bool) -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", _SIGNED) if signed else colormaps["magma"]


def _slice_svg(colours: np.ndarray, label: str, boxes: Sequence[Box], stretch: bool = False) -> Markup:
    """Return an image of one pixel per voxel, from colours (first axis, second axis upwards, RGBA)."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    rows = np.ascontiguousarray(colours.swapaxes(0, 1)[::-1])
    imsave(buffer, rows, format="png", metadata={"Software": "rep3d"})
    width, height = colours.shape[:2]
    shapes = "".join(
        f'<rect class="{style}" x="{box.left}" y="{height - 1 - box.top}" width="{box.right - box.left + 1}"'
        f' height="{box.top - box.bottom + 1}"/>'
        for box in boxes
        for style in ("under", box.style)  # a dark line below, to be seen on bright ground
    )
    style = ' preserveAspectRatio="none"' if stretch else ""
    return Markup(
        f'<svg class="slice" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}"{style}>'
        f'<image href="{png_uri(buffer.getvalue())}" width="{width}" height="{height}"{style}/>{shapes}</svg>'
    )
