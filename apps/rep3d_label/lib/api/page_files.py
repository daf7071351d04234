"""The files of the pages: they hold no data, so they are given to everybody; what they show is behind the roles."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import APIRouter, Request, Response

from lib.api.pages import PAGE_HEADERS

__all__ = ["add_files"]

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def add_files(router: APIRouter, address: str, files: Mapping[str, Path], headers: Mapping[str, str]) -> None:
    """Give out files below an address, ``index.html`` at the address itself.

    Args:
        router: Where the addresses are added, one for each file, so that no request can name another file.
        address: Begins and ends with a slash.
        files: By what they are called below the address; those of types that no page uses are left out.
        headers: Sent with each of them, over those of all pages.
    """
    # Asked for again each time: an update shows at once.
    every = {**PAGE_HEADERS, "Cache-Control": "no-cache", **headers}
    for name, file in files.items():
        if file.suffix in _TYPES:
            router.add_api_route(
                address if name == "index.html" else address + name,
                _file_route(file, every),
                methods=["GET", "HEAD"],
                include_in_schema=False,
            )


def _file_route(file: Path, every: Mapping[str, str]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        content = file.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {**every, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_TYPES[file.suffix], headers=headers)

    return answer
