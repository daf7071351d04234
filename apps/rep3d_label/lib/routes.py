"""HTTP routes that are put ahead of MONAI Label's own, where those start work, or touch files, before they look.

Each checks what came, then hands over to the stock function. Stock routes run on the event loop; those here that
compute run in a thread, so that the server still answers ``/info/`` while it segments.
"""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, File, Form, HTTPException, UploadFile
from monailabel.config import settings
from monailabel.endpoints import datastore, infer, scoring, train
from monailabel.endpoints.infer import ResultType
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.utils import tasks

from lib.names import split_suffix
from lib.train_status import ALIVE, FINISHED_PHASES
from rep3d.volumes import IMAGE_SUFFIXES

__all__ = ["add_routes"]

router = APIRouter(include_in_schema=False)

_as_user = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
_as_annotator = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
_as_admin = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


def add_routes(app: FastAPI) -> None:
    """Puts these routes ahead of the application's own."""
    before = len(app.router.routes)
    app.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    ours = app.router.routes[before:]
    del app.router.routes[before:]
    app.router.routes[:0] = ours


def _json_object(name: str, text: str) -> dict[str, Any]:
    """A JSON object out of a form field; 422 for anything else."""
    try:
        value = json.loads(text) if text else {}
    except json.JSONDecodeError as error:
        raise HTTPException(422, f"{name}: expected a JSON object, got text that is no JSON ({error})") from error
    if not isinstance(value, dict):
        raise HTTPException(422, f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def _with_user(values: dict[str, Any], user: User) -> str:
    """The fields with the annotator's name: as authenticated, else as the client gave it."""
    if settings.MONAI_LABEL_AUTH_ENABLE:
        values["user"] = user.username
    return json.dumps(values)


def _upload_name(file: UploadFile) -> str:
    return os.path.basename((file.filename or "").replace("\\", "/"))


# Computing -------------------------------------------------------------------------------------------------


@router.post("/infer/{model}")
def run_inference(
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: Annotated[UploadFile | None, File()] = None,
    label: Annotated[UploadFile | None, File()] = None,
    output: ResultType | None = None,
    user: User = _as_user,
) -> Any:
    """Segments an image of the studies folder, of a session, or one that comes with the request."""
    app = app_instance()
    app.check_model(model)
    values = _json_object("params", params)
    if {"image", "model"} & set(values):
        raise HTTPException(422, "params: expected settings, got 'image' or 'model', which belong into the address")
    if not (file or image or session_id):
        raise HTTPException(422, "infer: expected image=, session_id= or a file, got none of them")
    if session_id and not app.has_session(session_id):
        raise HTTPException(404, f"session: expected the id of an open session, got {session_id[:200]!r}")
    if output == ResultType.dicom_seg:
        raise HTTPException(
            422, "output: expected all, image or json, got dicom_seg, which needs images from a DICOM server"
        )
    if file and not split_suffix(_upload_name(file), IMAGE_SUFFIXES)[1]:
        raise HTTPException(422, f"file: expected {' or '.join(IMAGE_SUFFIXES)}, got {_upload_name(file)!r}")
    return infer.run_inference(background_tasks, model, image, session_id, params, file, None, output)


@router.post("/infer/wsi/{model}")
@router.post("/infer/wsi_v2/{model}")
def refuse_whole_slides(model: str, user: User = _as_user) -> None:
    """Whole-slide images are not what this app is for."""
    raise HTTPException(404, "this server segments volumes, not whole-slide images: use /infer/")


@router.post("/batch/infer/{model}")
def refuse_batch(model: str, user: User = _as_admin) -> None:
    """MONAI Label's batch inference would write the datastore from a second process."""
    raise HTTPException(404, "this server offers no batch inference: use /infer/ for each image")


@router.post("/train/")
@router.post("/train/{model}")
async def run_training(
    model: str = "rep3d",
    params: dict | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
    user: User = _as_admin,
) -> Any:
    """Starts a training in a child process, after everything that can be refused at once has been."""
    app = app_instance()
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


@router.post("/scoring/")
@router.post("/scoring/{method}")
async def run_scoring(method: str = "uncertainty", params: dict | None = None, user: User = _as_annotator) -> Any:
    """Starts a scoring in a child process."""
    app_instance().check_scoring(method)
    return scoring.run_method(method, params)


# Images and labels -----------------------------------------------------------------------------------------


@router.put("/datastore/")
@router.put("/datastore/image")
def add_image(
    background_tasks: BackgroundTasks,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: str = Form("{}"),
    user: User = _as_annotator,
) -> Any:
    """Adds an image under the id ``image``, else the file's name (which the stock route cuts at the first dot)."""
    _json_object("params", params)
    name, suffix = split_suffix(_upload_name(file), IMAGE_SUFFIXES)
    if not suffix:
        raise HTTPException(422, f"file: expected {' or '.join(IMAGE_SUFFIXES)}, got {name!r}")
    return datastore.add_image(background_tasks, image or name, params, file, user.username)


@router.put("/datastore/label")
def save_label(
    background_tasks: BackgroundTasks,
    image: str,
    label: Annotated[UploadFile, File()],
    params: str = Form("{}"),
    tag: str = DefaultLabelTag.FINAL.value,
    user: User = _as_annotator,
) -> Any:
    """Submits a label."""
    values = _with_user(_json_object("params", params), user)
    return datastore.save_label(background_tasks, image, values, tag, label, user.username)


@router.put("/datastore/image/info")
def update_image_info(image: str, info: str = Form("{}"), user: User = _as_annotator) -> Any:
    """Adds facts to an image."""
    _json_object("info", info)
    return datastore.update_image_info(image, info, user.username)


@router.put("/datastore/label/info")
def update_label_info(label: str, tag: str, info: str = Form("{}"), user: User = _as_annotator) -> Any:
    """Adds facts to a label."""
    _json_object("info", info)
    return datastore.update_label_info(label, tag, info, user.username)


# The model file --------------------------------------------------------------------------------------------


@router.put("/model/{model}")
@router.delete("/model/{model}")
def refuse_model_change(model: str, user: User = _as_admin) -> None:
    """A model file from elsewhere may belong to another task, and half a file would answer every request."""
    app_instance().check_model(model)
    raise HTTPException(
        403,
        "the published model changes by training only. To use another one, stop the server and put its "
        "checkpoint at rep3d/published.pt in the studies folder.",
    )
