"""Our pages: the demo's report and ``rep3d explain``. One file each, without outside resources, from ``templates/``.

They share a look for light and dark, paper and phones.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["GREY", "LINE_COLOURS", "render"]

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
