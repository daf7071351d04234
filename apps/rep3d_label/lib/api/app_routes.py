"""HTTP routes that are put ahead of MONAI Label's own, where those start work, or touch files, before they look.

Each checks what came, then hands over to the stock function; what MONAI Label has no address for is below ``/rep3d/``.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, FastAPI
from monailabel.config import settings
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api import (
    batch,
    cases,
    dashboard,
    data,
    dicom,
    infer,
    login,
    page_files,
    pages,
    scoring,
    sessions,
    train,
    versions,
    voxels,
)
from lib.api.access import AS_ADMIN

__all__ = ["add_routes"]

_stock = APIRouter()  # addresses that MONAI Label has outside of its prefix


@_stock.post("/reload")
def reload(user: User = AS_ADMIN) -> dict[str, Any]:
    """Look through the studies folder anew.

    The stock route throws the app away, and the next request builds a second one while the first one's threads, batch
    inference and requests go on: two lists of the same folder, of which the older overwrites the newer.
    """
    app_instance().datastore().refresh()
    return {}


_PARTS = (login, infer, sessions, batch, train, scoring, data, dicom, cases, dashboard, page_files, versions, voxels)


def add_routes(app: FastAPI) -> None:
    """Put our routes ahead of the application's own."""
    for stock in ("datastore", "session"):  # they log the names of the files that are sent, which may be patients'
        logging.getLogger(f"monailabel.endpoints.{stock}").setLevel(logging.WARNING)
    before = len(app.router.routes)
    for part in _PARTS:
        app.include_router(part.router, prefix=settings.MONAI_LABEL_API_STR)
    app.include_router(_stock)
    app.include_router(pages.router)
    ours = app.router.routes[before:]
    del app.router.routes[before:]
    app.router.routes[:0] = ours
