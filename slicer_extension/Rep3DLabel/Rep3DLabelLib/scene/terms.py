"""Names, colours and terminology of label segments, from the server's labels."""

from __future__ import annotations

import colorsys
from typing import Any

import vtk

from ..labels import Code, Label

__all__ = ["colour_of", "serialise_term", "tag_of", "tags_of"]

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_GOLDEN = 0.618033988749895
# "~" and "^" part a serialised term, "|" parts tags in a .seg.nrrd; no part of a code may contain them.
_PLAIN = str.maketrans({"~": "-", "^": "-", "|": "-", "\n": " ", "\r": " ", "\t": " "})


def colour_of(label: Label) -> tuple[float, float, float]:
    """Return the colour of a label, each part 0..1; one that depends on its value only where the server gives none."""
    if label.colour is not None:
        red, green, blue = label.colour
        return red / 255.0, green / 255.0, blue / 255.0
    value = label.value
    # Steps of the golden ratio spread hues evenly for any number of labels; brightness parts those that come close.
    return colorsys.hsv_to_rgb(value * _GOLDEN % 1.0, 0.55 + 0.35 * (value % 2), 1.0 - 0.15 * (value // 2 % 3))


def serialise_term(label: Label) -> str:
    """Return what a label stands for as Slicer keeps it in a segment's tag, "" where that is not known.

    Without a category or a type it is no term to Slicer either.
    """
    if label.category is None or label.type is None:
        return ""
    codes = [_code(part) for part in (label.category, label.type, label.modifier)]
    return "~".join([_CONTEXT, *codes, _REGIONS, _code(label.region), "^^"])


def _code(code: Code | None) -> str:
    parts = ("", "", "") if code is None else (code.scheme, code.value, code.meaning)
    return "^".join(part.translate(_PLAIN) for part in parts)


def tag_of(segment: Any, name: str) -> str | None:
    """Return a tag of a vtkSegment, None where it has no such tag."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else None


def tags_of(segment: Any) -> dict[str, str]:
    """Return all tags of a vtkSegment.

    Python cannot ask for the list of tags. The names stand in its printed form; whatever is not really a tag among
    what could be one there is recognised by asking for it.
    """
    tags: dict[str, str] = {}
    for line in str(segment).splitlines():
        parts = line.strip().split(":")
        for end in range(1, len(parts)):
            name = ":".join(parts[:end])
            value = tag_of(segment, name)
            if value is not None:
                tags[name] = value
    return tags
