"""Which studies folder this is, whatever it is called and wherever it lies."""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from rep3d.json_file import JsonFile, json_object

__all__ = ["folder_id"]


@cache
def folder_id(file: Path) -> str:
    """Return the id of a studies folder: a random text, made once.

    A page keeps unsent work under it, so that work is never offered for another folder whose names are the same.

    Args:
        file: where it is kept.
    """
    lost = "by which id browsers know the folder; they no longer offer unsent work on it"
    kept = JsonFile(file, _parsed, lost, str, begins_anew=True)
    made = secrets.token_hex(16)
    with suppress(OSError), kept.locked():  # where nothing can be written, it holds until the server ends
        if known := kept.read():
            return known
        kept.write({"id": made})
    return made


def _parsed(content: Any) -> str:
    return str(json_object(content, id=str)["id"])
