"""The address of the state that the pages show live, and ask for again and again."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_USER, name_of

__all__ = ["router"]

router = APIRouter()


@router.get("/rep3d/status")
def status(user: User = AS_USER) -> Any:
    """Return all that is live on the pages, see :meth:`lib.api.dashboard_status.Dashboard.status`, and who asks."""
    return {**app_instance().dashboard.status(), "user": name_of(user)}
