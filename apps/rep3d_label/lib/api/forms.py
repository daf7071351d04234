"""What comes in forms and uploads, read and checked."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import Request, Response, UploadFile
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile as FormFile

from lib.access.bodies import Promised
from lib.errors import RequestError
from lib.names import split_suffix
from rep3d.json_text import parse_json

__all__ = ["BINARY_BODY", "FORM_LIMITS", "FileRoute", "flag", "is_text", "json_object", "on_disk", "upload_name"]

BINARY_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What the list of addresses says of one that takes bytes as they are."""
FORM_LIMITS = {"max_files": 4, "max_fields": 16}  # of a form: what is no file is held in memory, up to 1 MiB each
_BLOCK = 1 << 20


class FileRoute(APIRoute):
    """A route whose form has few parts, and whose file is what the request's ``Repr-Digest`` says."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which finds the form read and checked."""
        handle = super().get_route_handler()

        async def handle_checked(request: Request) -> Response:
            if request.headers.get("content-type", "").lower().startswith("multipart/"):
                async with request.form(**FORM_LIMITS) as form:
                    files = [part for part in form.values() if isinstance(part, FormFile)]
                    promised = request.headers.getlist("repr-digest")
                    if promised and len(files) != 1:
                        raise RequestError("Repr-Digest is the checksum of one file; send Content-Digest for several.")
                    if promised:
                        await run_in_threadpool(_check, files[0], Promised(promised))
                    return await handle(request)
            return await handle(request)

        return handle_checked


def _check(file: FormFile, promised: Promised) -> None:
    while block := file.file.read(_BLOCK):
        promised.update(block)
    file.file.seek(0)
    promised.check(f"The file {os.path.basename(file.filename or '')[:200]!r}")


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


@contextmanager
def on_disk(file: UploadFile, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Yield an uploaded file on the disk, for as long as it is needed, under a name of ours with the client's ending.

    Args:
        file: what was sent.
        suffixes: the endings that it may have.

    Raises:
        RequestError: for another one.
    """
    name, suffix = split_suffix(upload_name(file), suffixes)
    if not suffix:
        raise RequestError(f"An image must be a file of type {' or '.join(suffixes)}; {name[:200]!r} is none.")
    handle, place = tempfile.mkstemp(suffix=suffix)
    try:
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(file.file, target)
        yield Path(place)
    finally:
        Path(place).unlink(missing_ok=True)
