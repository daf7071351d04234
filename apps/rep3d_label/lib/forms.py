"""What comes in forms and uploads, read and checked."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints.user.auth import User

__all__ = ["json_object", "upload_name", "with_user"]


def json_object(name: str, text: str) -> dict[str, Any]:
    """A JSON object out of a form field; 422 for anything else."""
    try:
        value = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise HTTPException(422, f"{name}: expected a JSON object, got text that is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise HTTPException(422, f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def with_user(values: dict[str, Any], user: User) -> str:
    """The fields with the annotator's name: as authenticated, else as the client gave it."""
    if settings.MONAI_LABEL_AUTH_ENABLE:
        values["user"] = user.username
    return json.dumps(values)


def upload_name(file: UploadFile) -> str:
    return os.path.basename((file.filename or "").replace("\\", "/"))
