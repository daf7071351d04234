"""Addresses for segmenting images, and for what runs.

What computes runs in a thread, so that the server still answers ``/info/`` meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints import infer
from monailabel.endpoints.infer import ResultType
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file

from lib.api.access import AS_USER, is_admin, name_of
from lib.api.forms import FileRoute, json_object, on_disk
from lib.errors import NotFoundError, RequestError
from lib.inference.dicom_seg import make_segmentation, source_series
from lib.inference.request import InferRequest
from lib.lanes.inference import Turn
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["in_turn", "router"]

router = APIRouter(route_class=FileRoute)


async def in_turn(request: Request, user: User, model: str, image: str, values: Mapping[str, Any]) -> Turn:
    """Wait, without a thread, until a request for inference may run; meanwhile it is listed, and can be cancelled.

    Args:
        request, user: who asks.
        model: name of the model.
        image: id of the image, or what else to show for it.
        values: the settings that it came with.
    """
    turn: Turn = request.state.turn  # set by `InferenceLane`; a request that did not pass it fails here
    asked = InferRequest.parse(values)
    with app_instance().requests.waiting(asked.id, model, image, name_of(user), turn):
        await turn.come()
    return turn


async def _turn(request: Request, model: str, image: str = "", params: str = Form("{}"), user: User = AS_USER) -> Turn:
    return await in_turn(request, user, model, image or "upload", json_object("params", params))


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
    turn: Turn = Depends(_turn),  # noqa: B008  (as FastAPI wants it)
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
    series = None
    if output == ResultType.dicom_seg:
        series = source_series(app.dicom, image if not (file or session_id) else "")
    request = {**values, "model": model, "image": image, "gone": turn.gone}
    if (name := name_of(user)) is not None:
        request["user"] = name
    if session_id:
        request["image"] = app.sessions().get_session(session_id).image
    with on_disk(file, IMAGE_SUFFIXES) if file else nullcontext() as upload:
        if upload and not session_id:
            request["image"] = str(upload)
        result = app.infer(request)
    if series is not None:
        published = app.served[model].published
        result["dicom_seg"] = make_segmentation(
            app.privacy, series, app.datastore().image_file(image), result, published
        )
        background_tasks.add_task(remove_file, result["dicom_seg"])
    return infer.send_response(app.datastore(), result, output, background_tasks)


@router.post("/infer/wsi/{model}")
@router.post("/infer/wsi_v2/{model}")
def refuse_whole_slides(model: str, user: User = AS_USER) -> None:
    """Whole-slide images are not what this app is for."""
    raise NotFoundError("This server segments volumes, not whole-slide images. Use /infer/.")


@router.get("/rep3d/requests")
def running_requests(user: User = AS_USER) -> Any:
    """Return the segmentations that run or wait now."""
    return app_instance().requests.all()


@router.delete("/rep3d/requests/{request_id}")
def cancel_request(request_id: str, user: User = AS_USER) -> Any:
    """Cancel one of one's own, or as an administrator anybody's; the client that waits for it gets 409."""
    return app_instance().requests.cancel(request_id, None if is_admin(user) else name_of(user))


@router.get("/rep3d/requests/{request_id}/uncertainty")
def uncertainty_map(request_id: str, user: User = AS_USER) -> Any:
    """Return the second volume of a request that asked for it, as NIfTI."""
    file = app_instance().requests.map_file(request_id)
    return FileResponse(file, media_type="application/gzip", filename=f"uncertainty-{request_id}.nii.gz")
