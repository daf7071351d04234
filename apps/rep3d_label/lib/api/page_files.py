"""The files of the two pages, the dashboard and the one for annotating, whose viewer (NiiVue) npm installs.

They hold no data, so scripts and styles are given to everybody; what they show is behind the roles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from lib.api.pages import PAGE_HEADERS

__all__ = ["router"]

router = APIRouter()

_APP = Path(__file__).resolve().parents[2]
_PACKAGES = _APP / "annotate" / "node_modules"
_VIEWER = _PACKAGES / "@niivue" / "niivue" / "dist" / "index.js"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def _add_files(address: str, files: Mapping[str, Path]) -> None:
    """Give out files below an address, ``index.html`` at the address itself.

    Args:
        address: Begins and ends with a slash. Each file has one of its own, so that no request can name another file.
        files: By what they are called below the address; those of types that no page uses are left out.
    """
    # Asked for again each time: an update shows at once.
    every = {**PAGE_HEADERS, "Cache-Control": "no-cache"}
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


def _below(folder: Path) -> dict[str, Path]:
    found = (file for file in sorted(folder.rglob("*")) if file.is_file() and _PACKAGES not in file.parents)
    return {file.relative_to(folder).as_posix(): file for file in found}


@router.get("/rep3d", include_in_schema=False)
def redirect_to_dashboard() -> RedirectResponse:
    """Return the address with the slash that people leave out."""
    return RedirectResponse("rep3d/")


@router.get("/rep3d/annotate", include_in_schema=False)
def redirect_to_annotating() -> RedirectResponse:
    """Return the address with the slash that people leave out."""
    return RedirectResponse("annotate/")


_add_files("/rep3d/", _below(_APP / "dashboard"))
_add_files("/rep3d/annotate/", _below(_APP / "annotate"))
if _VIEWER.is_file():  # without it the page says what is missing
    _add_files("/rep3d/annotate/", {"niivue.js": _VIEWER})
