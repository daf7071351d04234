"""Which facts that a client sends with a label or an image are kept with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from lib.errors import RequestError

__all__ = ["added_facts", "checked_info", "submitted_facts"]

_LARGEST = 1 << 16  # bytes of JSON that are kept with one label or image
_DEPTH = 10  # levels of the registry's file above facts, and some
# What only the server says of a label; a client that sends such a key is not believed.
_OURS = ("prediction", "remapped", "resampled", "converted", "original", "source", "restored", "empty", "left_out")
# What was recorded when a label came, and is not changed by facts that are added later.
_RECORDED = ("user", "author", "client_id", "time", "ts", "name", "made_by")


def checked_info(info: dict[str, Any] | None) -> dict[str, Any]:
    """Return facts that can be stored.

    Raises:
        RequestError: if they cannot.
    """
    if not isinstance(info or {}, dict):
        raise RequestError(f"params must be a JSON object, not {type(info).__name__}.")
    try:  # as the registry reads its own file, where it lies deeper: what it could not read would make all unreadable
        from_json("[" * _DEPTH + json.dumps(info, default=str) + "]" * _DEPTH)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"params cannot be stored as JSON ({error}).") from error
    return dict(info or {})


def submitted_facts(info: dict[str, Any] | None) -> dict[str, Any]:
    """Return the facts to keep with a label that is submitted.

    A label is not refused for what else came with it: the largest facts are left out where all are too large, and
    ``left_out`` names them.

    Raises:
        RequestError: if they cannot be stored.
    """
    facts = {key: value for key, value in checked_info(info).items() if key not in _OURS}
    sizes = {key: _size({key: value}) for key, value in facts.items()}
    left_out = []
    for key in sorted(sizes, key=lambda key: sizes[key], reverse=True):
        if sum(sizes.values()) <= _LARGEST:
            break
        del sizes[key], facts[key]
        left_out.append(key[:100])
    return {**facts, "left_out": left_out[:20]} if left_out else facts


def added_facts(known: Mapping[str, Any], info: dict[str, Any] | None, of_label: bool) -> dict[str, Any]:
    """Return what is known of a label or an image, with facts that are added to it.

    Raises:
        RequestError: if they cannot be stored, or would be too large together.
    """
    never = (*_OURS, *_RECORDED) if of_label else ()
    facts = {**known, **{key: value for key, value in checked_info(info).items() if key not in never}}
    if _size(facts) > max(_LARGEST, _size(known)):
        raise RequestError(f"At most {_LARGEST >> 10} KiB of facts are kept, so these were not added. Send fewer.")
    return facts


def _size(facts: Mapping[str, Any]) -> int:
    return len(json.dumps(facts, default=str))
