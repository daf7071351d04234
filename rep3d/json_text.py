"""JSON that people wrote, with any editor: read where its meaning is certain, else refused with the place.

Windows' editors put a byte order mark before it or write UTF-16, and Python's own reader keeps the last of two values
of one key without a word.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["parse_json"]


def parse_json(content: bytes | str) -> Any:
    """Return what JSON says.

    Args:
        content: a file's bytes, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark; or text.

    Raises:
        ValueError: if it is no JSON, with line and column where there is one place; or if an object gives one key two
            different values.
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        return json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: the byte 0x{error.object[error.start]:02x} is no text in {error.encoding}; save it as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found and found[key] != value:
            raise ValueError(f"{key!r} is there twice, with {found[key]!r:.100} and with {value!r:.100}")
        found[key] = value
    return found
