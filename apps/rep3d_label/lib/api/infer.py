"""Addresses for segmenting images, and for what runs.

What computes runs in a thread, so that the server still answers ``/info/`` meanwhile.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, File, Form, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints import infer, session
from monailabel.endpoints.infer import ResultType
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance

from lib.api.access import AS_USER, name_of
from lib.api.forms import json_object, upload_name
from lib.errors import NotFoundError, RequestError
from lib.inference.request import InferRequest
from lib.names import split_suffix
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["router"]

router = APIRouter()


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
    user: User = AS_USER,
) -> Any:
    """Segment an image of the studies folder, of a session, or one that comes with the request."""
    app = app_instance()
    app.check_model(model)
    values = json_object("params", params)
    if {"image", "model"} & set(values):
        raise RequestError("params must be settings only: 'image' and 'model' belong into the address.")
    if not (file or image or session_id):
        raise RequestError("Say what to segment: image=, session_id= or a file.")
    if session_id and not app.has_session(session_id):
        raise NotFoundError(f"There is no open session {session_id[:200]!r}.")
    if output == ResultType.dicom_seg:
        raise RequestError("output=dicom_seg needs images from a DICOM server. Choose all, image or json.")
    if file and not split_suffix(upload_name(file), IMAGE_SUFFIXES)[1]:
        raise RequestError(
            f"An image must be a file of type {' or '.join(IMAGE_SUFFIXES)}; {upload_name(file)!r} is none."
        )
    InferRequest.parse(values)
    request = {**values, "model": model, "image": image}
    if (name := name_of(user)) is not None:
        request["user"] = name
    if session_id:
        request["image"] = app.sessions().get_session(session_id).image
    with _received(file) as upload:
        if upload and not session_id:
            request["image"] = str(upload)
        result = app.infer(request)
    return infer.send_response(app.datastore(), result, output, background_tasks)


@router.get("/session/{session_id}")
def get_session(session_id: str, update_ts: bool = False, image: bool = False, user: User = AS_USER) -> Any:
    """Return what a session is, or its image."""
    found = app_instance().sessions().get_session(session_id, update_ts=False)
    if image and found and Path(found.image).is_dir():
        raise RequestError(
            "The session was made of several files, which cannot be sent as one. Ask without image=true."
        )
    return session.get_session(session_id, update_ts, image)


@contextmanager
def _received(file: UploadFile | None) -> Iterator[Path | None]:
    """Yield an uploaded file on the disk, for as long as it is needed."""
    if not file:
        yield None
        return
    handle, name = tempfile.mkstemp(suffix=split_suffix(upload_name(file), IMAGE_SUFFIXES)[1])
    try:
        with os.fdopen(handle, "wb") as target:
            shutil.copyfileobj(file.file, target)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@router.post("/infer/wsi/{model}")
@router.post("/infer/wsi_v2/{model}")
def refuse_whole_slides(model: str, user: User = AS_USER) -> None:
    """Whole-slide images are not what this app is for."""
    raise NotFoundError("This server segments volumes, not whole-slide images. Use /infer/.")


@router.get("/rep3d/requests")
def running_requests(user: User = AS_USER) -> Any:
    """Return the segmentations that run now."""
    return app_instance().requests.all()


@router.delete("/rep3d/requests/{request_id}")
def cancel_request(request_id: str, user: User = AS_USER) -> Any:
    """Cancel one; the client that waits for it gets 409."""
    return app_instance().requests.cancel(request_id)


@router.get("/rep3d/requests/{request_id}/uncertainty")
def uncertainty_map(request_id: str, user: User = AS_USER) -> Any:
    """Return the second volume of a request that asked for it, as NIfTI."""
    file = app_instance().requests.map_file(request_id)
    return FileResponse(file, media_type="application/gzip", filename=f"uncertainty-{request_id}.nii.gz")
