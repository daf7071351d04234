"""Addresses for training."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException
from monailabel.endpoints import train
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import tasks

from lib.access import AS_ADMIN
from lib.train_status import ALIVE, FINISHED_PHASES

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/train/")
@router.post("/train/{model}")
async def run_training(
    model: str = "",
    params: dict | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = AS_ADMIN,
) -> Any:
    """Starts a training in a child process, after everything that can be refused at once has been."""
    app = app_instance()
    model = model or app.default_model
    task = app.check_trainer(model)
    if run_sync:
        raise HTTPException(
            422, "run_sync: expected false, got true: training inside the server would stop it answering"
        )
    if task.stats().get("phase") not in FINISHED_PHASES and any(known["status"] in ALIVE for known in tasks("train")):
        raise HTTPException(409, "a training is running already: wait for its end, or stop it with DELETE /train/")
    request = task.check(params or {}, app.datastore())
    task.announce(request, app.datastore())
    # The process of a training that is done takes a moment to go; the new one then waits for it.
    return train.run_model(model, params, enqueue=True)


@router.put("/model/{model}")
@router.delete("/model/{model}")
def refuse_model_change(model: str, user: User = AS_ADMIN) -> None:
    """A model file from elsewhere may belong to another task, and half a file would answer every request."""
    app_instance().check_model(model)
    raise HTTPException(
        403,
        "the published model changes by training only. To use another one, stop the server and put its "
        "checkpoint at rep3d/published.pt in the studies folder.",
    )
