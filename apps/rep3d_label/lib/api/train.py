"""Addresses for training."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_ADMIN
from lib.errors import ForbiddenError, RequestError

__all__ = ["router"]

router = APIRouter()


@router.post("/train/")
@router.post("/train/{model}")
def run_training(
    model: str = "",
    params: dict | None = None,
    run_sync: bool = False,
    user: User = AS_ADMIN,
) -> Any:
    """Start a training in a child process."""
    if run_sync:
        raise RequestError("run_sync is not offered: the server could answer nobody meanwhile.")
    app = app_instance()
    return app.training.start(model or app.default_model, params or {})


@router.delete("/train/")
def end_training(user: User = AS_ADMIN) -> Any:
    """Stop the training that runs, at once; it can be resumed. Answers null where none runs."""
    return app_instance().training.stop()


@router.put("/model/{model}")
@router.delete("/model/{model}")
def refuse_model_change(model: str, user: User = AS_ADMIN) -> None:
    """Refuse it: a model file from elsewhere may belong to another task, and half a file would answer every request."""
    app_instance().check_model(model)
    raise ForbiddenError(
        "The published model changes by training, or by publishing another version (/rep3d/models/MODEL/versions). To "
        "use a model from elsewhere, stop the server and put its checkpoint at rep3d/published.pt in the studies "
        "folder."
    )
