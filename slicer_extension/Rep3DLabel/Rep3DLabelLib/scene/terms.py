"""Names, colours and terminology of label segments, from the server's entries.

An entry is {"name", "value", "colour": [r, g, b] 0..255 or None, "term": {"category", "type", "modifier", "region"} or
None}, each part of a term {"value", "scheme", "meaning"}.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from typing import Any

import vtk

__all__ = ["colour_of", "entries_by_name", "serialise_term", "tag_of", "tags_of"]

_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS = "Anatomic codes - DICOM master list"
_GOLDEN = 0.618033988749895
# "~" and "^" part a serialised term, "|" parts tags in a .seg.nrrd; no part of a code may contain them.
_PLAIN = str.maketrans({"~": "-", "^": "-", "|": "-", "\n": " ", "\r": " ", "\t": " "})


def entries_by_name(entries: Any) -> dict[str, Mapping[str, Any]]:
    """Return the entries by the label's name, in their order."""
    return {str(entry["name"]): entry for entry in entries}


def colour_of(entry: Mapping[str, Any] | None, value: int) -> tuple[float, float, float]:
    """Return the colour of a label, each part 0..1; one that depends on its value only where the server gives none."""
    given = entry.get("colour") if entry else None
    if given is not None:
        red, green, blue = (min(max(float(part) / 255.0, 0.0), 1.0) for part in given)
        return red, green, blue
    # Steps of the golden ratio spread hues evenly for any number of labels; brightness parts those that come close.
    return colorsys.hsv_to_rgb(value * _GOLDEN % 1.0, 0.55 + 0.35 * (value % 2), 1.0 - 0.15 * (value // 2 % 3))


def serialise_term(term: Mapping[str, Any] | None) -> str:
    """Return a term as Slicer keeps it in a segment's tag, "" where there is none.

    Without a category or a type it is no term to Slicer either.
    """
    if not term or not term.get("category") or not term.get("type"):
        return ""
    codes = [_code(term.get(part)) for part in ("category", "type", "modifier")]
    return "~".join([_CONTEXT, *codes, _REGIONS, _code(term.get("region")), "^^"])


def _code(part: Mapping[str, Any] | None) -> str:
    part = part or {}
    return "^".join(str(part.get(key) or "").translate(_PLAIN) for key in ("scheme", "value", "meaning"))


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
