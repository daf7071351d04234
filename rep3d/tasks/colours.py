"""In which colour a label is shown, everywhere the same."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping

from rep3d.tasks.config import Term
from rep3d.tasks.registry import TASKS

__all__ = ["Colour", "colour_of", "label_colours"]

Colour = tuple[int, int, int]
"""Red, green, blue from 0 to 255."""
_GOLDEN_ANGLE = 0.618034


def label_colours(labels: Mapping[str, int], terms: Mapping[str, Term] | None = None) -> dict[str, Colour]:
    """Return a colour for each label: its task's, else the registered one for its name, else one by its value.

    Args:
        labels: label name to voxel value.
        terms: label name to what it stands for, where the task says so.
    """
    known = {name: term.colour for task in TASKS.values() for name, term in task.terms.items()}
    known |= {name: term.colour for name, term in (terms or {}).items()}
    return {name: known.get(name) or colour_of(value) for name, value in labels.items()}


def colour_of(value: int) -> Colour:
    """Return the colour of a voxel value that no label is registered for."""
    red, green, blue = colorsys.hsv_to_rgb((value * _GOLDEN_ANGLE) % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)
