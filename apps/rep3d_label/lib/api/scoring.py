"""Addresses for scoring images by how useful their labels would be."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints import scoring
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_ANNOTATOR

__all__ = ["router"]

router = APIRouter()


@router.post("/scoring/")
@router.post("/scoring/{method}")
async def run_scoring(method: str = "uncertainty", params: dict | None = None, user: User = AS_ANNOTATOR) -> Any:
    """Start a scoring in a child process."""
    app_instance().check_scoring(method)
    return scoring.run_method(method, params)
