"""Addresses of the dashboard page: its few files, and the state that it asks for again and again.

The files hold no data, so they are given to everybody; what they show is behind MONAI Label's roles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_USER, name_of
from lib.api.pages import PAGE_HEADERS

__all__ = ["router"]

router = APIRouter()

_FOLDER = Path(__file__).resolve().parents[2] / "dashboard"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {**PAGE_HEADERS, "Cache-Control": "no-cache"}  # asked for again each time: an update shows at once


@router.get("/rep3d", include_in_schema=False)
def redirect_to_page() -> RedirectResponse:
    """Return the address without its last slash, which people type."""
    return RedirectResponse("rep3d/")


@router.get("/rep3d/status")
def status(user: User = AS_USER) -> Any:
    """Return all that is live on the page, see :meth:`lib.api.dashboard_status.Dashboard.status`, and who asks."""
    return {**app_instance().dashboard.status(), "user": name_of(user)}


def _file_route(file: Path) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        content = file.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {**_HEADERS, "ETag": tag}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_TYPES[file.suffix], headers=headers)

    return answer


for _file in sorted(_FOLDER.iterdir()):
    if _file.suffix in _TYPES:
        router.add_api_route(
            "/rep3d/" if _file.name == "index.html" else f"/rep3d/{_file.name}",
            _file_route(_file),
            methods=["GET", "HEAD"],
            include_in_schema=False,
        )
