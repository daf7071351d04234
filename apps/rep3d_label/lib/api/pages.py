"""Pages in place of MONAI Label's, which load scripts from other sites: the start, the list of addresses, the log."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from monailabel.config import settings
from monailabel.endpoints.logs import get_logs
from monailabel.endpoints.user.auth import User

from lib.access.roles import ROUTES
from lib.api.access import AS_ADMIN, AS_USER
from lib.errors import NotFoundError

__all__ = ["PAGE_HEADERS", "page", "router"]

router = APIRouter(include_in_schema=False)

# Nothing is loaded from elsewhere, and no text from the server can become code.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}
_FOLDER = Path(__file__).resolve().parents[2] / "pages"


@cache
def _templates() -> Environment:
    return Environment(loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page from a template; every value is escaped."""
    return HTMLResponse(_templates().get_template(template).render(values), status, PAGE_HEADERS)


@router.get("/")
def start(user: User = AS_USER) -> RedirectResponse:
    """Return where the dashboard is."""
    return RedirectResponse("rep3d/")


@router.get("/docs")
def addresses(user: User = AS_USER) -> HTMLResponse:
    """Return the list of all addresses, with the role that each needs."""
    rows = [(*row.split(" "), role.name) for role, rows in ROUTES.items() for row in rows]
    return page("addresses.html", rows=sorted(rows, key=lambda row: (row[1], row[0])))


@router.get("/logs/")
def log(lines: Annotated[int, Query(ge=0, le=1_000_000)] = 300, user: User = AS_ADMIN) -> Response:
    """Return the end of the server's log as plain text, whatever form was asked for; all of it with ``lines=0``."""
    file = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    if not file.is_file():
        raise NotFoundError("The server keeps no log in a file.")
    answer: Response = get_logs(str(file), lines, html=False, text=True, refresh=0)
    return answer


@router.get("/logs/gpu")
def gpu(user: User = AS_ADMIN) -> Response:
    """Return what the driver of NVIDIA's cards says of them."""
    if shutil.which("nvidia-smi") is None:
        raise NotFoundError("The server's computer has no NVIDIA driver (nvidia-smi) that could be asked.")
    told = subprocess.run(["nvidia-smi"], capture_output=True, check=False, timeout=30).stdout
    return Response(told.decode(errors="replace"), media_type="text/plain")
