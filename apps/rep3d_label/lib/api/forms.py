"""What comes in forms and uploads, read and checked."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import HTTPException, UploadFile

__all__ = ["flag", "is_text", "json_object", "upload_name"]


def json_object(name: str, text: str) -> dict[str, Any]:
    """A JSON object out of a form field; 422 for anything else."""
    try:
        value = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise HTTPException(422, f"{name}: expected a JSON object, got text that is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise HTTPException(422, f"{name}: expected a JSON object, got {type(value).__name__}")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:  # Python reads them, but no answer could ever show them
        raise HTTPException(422, f"{name}: expected finite numbers and whole characters, got others") from error
    return value


def is_text(value: Any) -> bool:
    """Whether a value is a text of whole characters; half of a pair of surrogates could be stored, but not shown."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def flag(values: dict[str, Any], name: str) -> bool:
    """Takes a switch out of the fields; 422 if it is neither true nor false."""
    value = values.pop(name, False)
    if not isinstance(value, bool):
        raise HTTPException(422, f"{name}: expected true or false, got {str(value)[:200]!r}")
    return value


def upload_name(file: UploadFile) -> str:
    return os.path.basename((file.filename or "").replace("\\", "/"))
