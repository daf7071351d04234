"""Addresses of the dashboard page: its few files, and the state that it asks for again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_USER, name_of
from lib.api.page_files import add_files

__all__ = ["router"]

router = APIRouter()

_FOLDER = Path(__file__).resolve().parents[2] / "dashboard"


@router.get("/rep3d", include_in_schema=False)
def redirect_to_page() -> RedirectResponse:
    """Return the address without its last slash, which people type."""
    return RedirectResponse("rep3d/")


@router.get("/rep3d/status")
def status(user: User = AS_USER) -> Any:
    """Return all that is live on the page, see :meth:`lib.api.dashboard_status.Dashboard.status`, and who asks."""
    return {**app_instance().dashboard.status(), "user": name_of(user)}


add_files(router, "/rep3d/", {file.name: file for file in sorted(_FOLDER.iterdir())}, {})
