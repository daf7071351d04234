"""Addresses of batch inference: ours, and MONAI Label's own, which do the same.

MONAI Label's would write the datastore from a second process, and over other predictions.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_ADMIN, AS_USER, name_of
from lib.errors import NotFoundError, RequestError
from lib.inference.batch import BatchRequest

__all__ = ["router"]

router = APIRouter()

# MONAI Label's words for the state of a task.
_TASK_STATUS = {"running": "RUNNING", "stopping": "RUNNING", "done": "DONE", "stopped": "STOPPED", "error": "ERROR"}


def _start(model: str, images: str | None, params: dict[str, Any] | None, user: User) -> dict[str, Any]:
    app = app_instance()
    app.check_model(model)
    state: dict[str, Any] = app.batch.start(model, BatchRequest.parse(params or {}, model, images), name_of(user))
    return state


@router.post("/rep3d/models/{model}/batch")
def start_batch(model: str, params: dict | None = None, images: str | None = None, user: User = AS_ADMIN) -> Any:
    """Start a batch inference, or resume one that was stopped."""
    return _start(model, images, params, user)


@router.get("/rep3d/models/{model}/batch")
def batch_state(model: str, user: User = AS_USER) -> Any:
    """Return what it does or did last."""
    return app_instance().batch.status(model)


@router.delete("/rep3d/models/{model}/batch")
def stop_batch(model: str, user: User = AS_ADMIN) -> Any:
    """Stop it; nothing happens where none runs for this model."""
    batch = app_instance().batch
    batch.status(model)  # 404 for an unknown model
    if batch.running == model:
        batch.stop()
    return batch.status(model)


def _as_task(state: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": state["id"],
        "status": _TASK_STATUS[state["phase"]],
        "request": {key: state[key] for key in ("model", "images", "views")},
        "start_ts": state["started"],
        "end_ts": None if state["phase"] in ("running", "stopping") else state["updated"],
        "details": [f"{state['done']} of {state['total']} done, {len(state['failed'])} failed"],
        "rep3d": state,
    }


@router.post("/batch/infer/{model}")
def start_task(
    model: str,
    images: str | None = None,
    params: dict | None = None,
    run_sync: bool = False,
    user: User = AS_ADMIN,
) -> Any:
    """Start a batch inference as MONAI Label's clients ask for it. Without ``images``: those without a label."""
    if run_sync:
        raise RequestError("run_sync is not offered. Ask GET /batch/infer for the progress instead.")
    return _as_task(_start(model, images, params, user))


@router.get("/batch/infer")
@router.get("/batch/infer/")
def task_state(all: bool = False, check_if_running: bool = False, user: User = AS_USER) -> Any:
    """Return the newest batch inference since the server is up, in MONAI Label's form; 404 where there is none."""
    batch = app_instance().batch
    last = batch.last()
    if last is None or (check_if_running and batch.running is None):
        raise NotFoundError("No batch inference is running." if check_if_running else "No batch inference has run yet.")
    return [_as_task(last)] if all else _as_task(last)


@router.delete("/batch/infer")
@router.delete("/batch/infer/")
def stop_task(user: User = AS_ADMIN) -> Any:
    """Stop the batch inference that runs, of whichever model; null where none runs, as MONAI Label says it."""
    batch = app_instance().batch
    if batch.running is None:
        return None
    batch.stop()
    return _as_task(batch.last())
