"""HTTP routes that are put ahead of MONAI Label's own, where those start work, or touch files, before they look.

Each checks what came, then hands over to the stock function; what MONAI Label has no address for is below ``/rep3d/``.
"""

from __future__ import annotations

from fastapi import FastAPI
from monailabel.config import settings

from lib import (
    routes_batch,
    routes_cases,
    routes_dashboard,
    routes_data,
    routes_dicom,
    routes_infer,
    routes_scoring,
    routes_train,
    routes_versions,
)

__all__ = ["add_routes"]

_PARTS = (
    routes_infer,
    routes_batch,
    routes_train,
    routes_scoring,
    routes_data,
    routes_dicom,
    routes_cases,
    routes_dashboard,
    routes_versions,
)


def add_routes(app: FastAPI) -> None:
    """Puts our routes ahead of the application's own."""
    before = len(app.router.routes)
    for part in _PARTS:
        app.include_router(part.router, prefix=settings.MONAI_LABEL_API_STR)
    ours = app.router.routes[before:]
    del app.router.routes[before:]
    app.router.routes[:0] = ours
