"""The address for taking in DICOM series that were copied into the studies folder."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.access import AS_ANNOTATOR

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/rep3d/dicom/import")
def import_dicom(user: User = AS_ANNOTATOR) -> Any:
    """Converts the series below the studies folder that are new; says what came in and what cannot be used."""
    app = app_instance()
    found = app.dicom.run()
    app.datastore().refresh()
    return found
