"""Our pages: the demo's report, ``rep3d explain``, ``evaluate`` and ``compare``, from ``templates/``.

Each is one file without outside resources. They, and the charts on them, share a look for light and dark, paper and
phones.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:  # it takes a second, and only what draws needs it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GREY", "LINE_COLOURS", "dress", "figure_uri", "png_uri", "render"]

LINE_COLOURS = ("#0f9d8f", "#e07a1f", "#8b6fe8", "#d6457f", "#6b9e1f", "#3b82d6")
GREY = "#8a93a3"  # readable on white and on black


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("rep3d"),
        autoescape=True,  # a name that looks like markup stays text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """Return a page from a template; every value is escaped but what is ``markupsafe.Markup``."""
    return _templates().get_template(template).render(values)


def dress(axes: Axes, ink: str, size: int = 10) -> None:
    """Give a chart our look: whole numbers along x, text of the colour ``ink``, figures of ``size`` points."""
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.7)
    axes.tick_params(which="both", colors=ink, length=0, labelsize=size)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def png_uri(png: bytes) -> str:
    """Return a picture as a data URI, to stand in a page."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def figure_uri(figure: Figure, *, transparent: bool) -> str:
    """Return a drawing as a data URI; see :func:`png_uri`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=transparent)
    return png_uri(buffer.getvalue())
