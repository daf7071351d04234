"""What comes in forms and uploads, read and checked."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import UploadFile

from lib.errors import RequestError
from rep3d.json_text import parse_json

__all__ = ["BINARY_BODY", "flag", "is_text", "json_object", "upload_name"]


BINARY_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What the list of addresses says of one that takes bytes as they are."""


def json_object(name: str, text: str) -> dict[str, Any]:
    """Return a JSON object out of a form field; RequestError for anything else."""
    try:
        value = parse_json(text) if text else {}
    except ValueError as error:
        raise RequestError(f"{name} is not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RequestError(f"{name} must be a JSON object, not {type(value).__name__}.")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # Python reads them, but no answer could ever show them
        raise RequestError(f"{name} has a number that is not finite, or half a character.") from error
    return value


def is_text(value: Any) -> bool:
    """Return whether a value is a text of whole characters; half of a pair of surrogates could be stored, but not
    shown."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def flag(values: dict[str, Any], name: str) -> bool:
    """Take a switch out of the fields; RequestError if it is neither true nor false."""
    value = values.pop(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"{name} must be true or false, not {str(value)[:200]!r}.")
    return value


def upload_name(file: UploadFile) -> str:
    return os.path.basename((file.filename or "").replace("\\", "/"))
