"""Reading single values out of a server's JSON: what is not of the kind that is needed counts as not there."""

from __future__ import annotations

import math

__all__ = ["descriptions", "integer", "mapping", "number", "numbers_of", "points", "text", "texts", "words_of"]


def text(value: object) -> str:
    """Return a value as text, "" if there is none."""
    return "" if value is None else str(value)


def texts(value: object) -> tuple[str, ...]:
    """Return a list as texts, none if it is no list."""
    return tuple(map(str, value)) if isinstance(value, list) else ()


def mapping(value: object) -> dict[str, object]:
    """Return a JSON object, an empty one if it is something else."""
    return value if isinstance(value, dict) else {}


def number(value: object) -> float | None:
    """Return a finite number, None if it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def integer(value: object) -> int | None:
    """Return a whole number, None if it is no finite number."""
    found = number(value)
    return None if found is None else int(found)


def descriptions(value: object) -> dict[str, str]:
    """Return the "description" of each object in an object of objects."""
    return {str(name): text(mapping(entry).get("description")) for name, entry in mapping(value).items()}


def words_of(value: object) -> dict[str, str]:
    """Return an object of texts."""
    return {str(name): text(entry) for name, entry in mapping(value).items()}


def numbers_of(value: object) -> dict[str, float]:
    """Return an object of finite numbers; entries that are none are left out."""
    found = {str(name): number(entry) for name, entry in mapping(value).items()}
    return {name: entry for name, entry in found.items() if entry is not None}


def points(value: object) -> tuple[tuple[int, float], ...]:
    """Return the points [iteration, value] of a curve; those that are none are left out."""
    found = []
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, list) and len(entry) == 2:
            step, height = integer(entry[0]), number(entry[1])
            if step is not None and height is not None:
                found.append((step, height))
    return tuple(found)
