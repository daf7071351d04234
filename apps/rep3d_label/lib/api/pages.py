"""Pages in place of MONAI Label's, which load scripts from other sites: the start, the list of addresses, the log."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from monailabel.config import settings
from monailabel.endpoints.user.auth import User

from lib.access.roles import ROUTES
from lib.api.access import AS_ADMIN, AS_USER
from lib.errors import NotFoundError
from rep3d.errors import MissingComponentError

__all__ = ["PAGE_HEADERS", "page", "router"]

router = APIRouter(include_in_schema=False)

# Nothing is loaded from elsewhere, and no text from the server can become code.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}
_TOOL_SECONDS = 30.0
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
    with file.open(encoding="utf-8", errors="replace") as log:
        return PlainTextResponse("".join(deque(log, lines) if lines > 0 else log))


@router.get("/logs/gpu")
def gpus(user: User = AS_ADMIN) -> Response:
    """Return what NVIDIA's own tool says of the GPUs."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        raise MissingComponentError("This computer has no nvidia-smi, so it has no NVIDIA GPU that it knows of.")
    said = subprocess.run([tool], capture_output=True, timeout=_TOOL_SECONDS, check=False)
    return PlainTextResponse(said.stdout + said.stderr)
