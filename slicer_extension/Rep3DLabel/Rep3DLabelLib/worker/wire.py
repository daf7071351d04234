"""How values go from the helper process to Slicer: as JSON that is decoded to what was encoded.

A list begins with a word: the name of a dataclass, followed by its fields; "dict", followed by keys and values in turn;
or "", followed by the items of a tuple. Both ends are the same Python with the same files, so nothing is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from .. import connection, labels
from ..client import answers, answers_cases, answers_status, answers_train, answers_versions
from ..images import compose, files, peaks
from . import results

__all__ = ["decode", "encode"]

_MODULES = (
    *(answers, answers_cases, answers_status, answers_train, answers_versions),
    *(compose, connection, files, labels, peaks, results),
)
_KINDS: dict[str, Any] = {
    name: kind for module in _MODULES for name, kind in vars(module).items() if is_dataclass(kind)
}


def encode(value: Any) -> Any:
    """Return a value as JSON has it.

    Raises:
        TypeError: It is none of the kinds that are decoded again.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if type(value).__name__ in _KINDS and is_dataclass(value):
        return [type(value).__name__, *(encode(getattr(value, item.name)) for item in fields(value))]
    if isinstance(value, Mapping):
        return ["dict", *(encode(part) for item in value.items() for part in item)]
    if isinstance(value, (tuple, list)):
        return ["", *map(encode, value)]
    raise TypeError(f"Expected a value that Slicer's side can decode, got {type(value).__name__}.")


def decode(value: Any) -> Any:
    """Return what was encoded; a list comes back as a tuple."""
    if type(value) is not list:
        return value
    kind = value[0]
    parts = [decode(part) if type(part) is list else part for part in value[1:]]
    if kind == "dict":
        return dict(zip(parts[::2], parts[1::2]))
    return _KINDS[kind](*parts) if kind else tuple(parts)
