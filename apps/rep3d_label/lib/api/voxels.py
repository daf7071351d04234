"""Addresses for voxels that numpy alone reads and writes: images, labels, and segmentations.

The form is that of :mod:`lib.storage.voxels`. The file formats, headers and grids are the server's affair: whoever
sends or gets voxels here has them on the image's own grid, voxel by voxel.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import StreamingResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.concurrency import run_in_threadpool

from lib.api.access import AS_ANNOTATOR, AS_USER, name_of
from lib.api.data import take_label
from lib.api.forms import BINARY_BODY, json_object
from lib.api.infer import in_turn
from lib.inference.request import InferRequest
from lib.labels.expected import image_mark
from lib.lanes.inference import Turn
from lib.storage.entries import FINAL
from lib.storage.voxels import MEDIA_TYPE, Received, Receiver, gzipped, label_voxels, pack
from rep3d.errors import ImageError
from rep3d.imaging.grid import Geometry
from rep3d.imaging.nifti import read_image

__all__ = ["router"]

router = APIRouter()


async def _received(request: Request) -> AsyncIterator[Received]:
    """Yield the voxels in a request's body, in a file that goes with the request."""
    with tempfile.TemporaryDirectory() as folder:
        receiver = Receiver(Path(folder) / "voxels", request.headers.get("content-encoding", ""))
        try:
            async for block in request.stream():
                await run_in_threadpool(receiver.feed, block)
            yield receiver.finish()
        finally:
            receiver.close()


_Voxels = Annotated[Received, Depends(_received)]


def _answer(
    request: Request, arrays: Mapping[str, np.ndarray], grid: Geometry, params: Mapping[str, Any] | None = None
) -> StreamingResponse:
    blocks, headers = pack(arrays, grid, params), {}
    if "gzip" in request.headers.get("accept-encoding", ""):
        blocks, headers = gzipped(blocks), {"Content-Encoding": "gzip"}
    return StreamingResponse(blocks, media_type=MEDIA_TYPE, headers=headers)


def _params(voxels: Received) -> dict[str, Any]:
    return json_object("params", json.dumps(voxels.params))


@router.get("/rep3d/voxels/images/{image}")
def get_image(request: Request, image: str, channel: int = 0, user: User = AS_USER) -> StreamingResponse:
    """Return the voxels of an image, of several channels those of one, as the array ``image``.

    ``params`` have the ``mark`` of the image's file, which a label may name as ``drawn_on``. Where there are several
    channels, they say which one it is, ``channel``, counted from 0, and what ``channels`` there are.
    """
    store = app_instance().datastore()
    file = store.image_file(image)
    chosen = store.channels.checked(channel)
    mark = image_mark(file, store.channels)  # before it is read: one that is replaced meanwhile is another
    try:
        read, grid = store.channels.read(file)
    except ImageError as error:
        store.unusable.check(image)  # nobody else should meet it
        raise ImageError(str(error).replace(file.name, f"image {image}")) from error
    names = store.channels.names
    several = {"channel": chosen, "channels": list(names)} if names else {}
    return _answer(request, {"image": read[chosen]}, grid, {"mark": mark, **several})


@router.get("/rep3d/voxels/labels/{image}")
def get_label(
    request: Request, image: str, tag: str = FINAL, entry: str | None = None, user: User = AS_USER
) -> StreamingResponse:
    """Return the voxels of an image's label, or of an earlier one in its history (``entry``), as the array ``label``,
    on the image's own grid."""
    store = app_instance().datastore()
    own = store.image_file(image)
    file = store.label_file(image, tag) if entry is None else store.history.find(image, entry)[0]
    voxels, grid = label_voxels(file, own, store.channels)
    return _answer(request, {"label": voxels}, grid)


@router.put("/rep3d/voxels/images/{image}", openapi_extra=BINARY_BODY)
def put_image(image: str, user: Annotated[User, AS_ANNOTATOR], voxels: _Voxels) -> dict[str, Any]:
    """Add an image under this id."""
    info = _params(voxels)
    if (name := name_of(user)) is not None:
        info["user"] = name
    file = voxels.file.with_name("image.nii.gz")
    voxels.write_image(file)
    return {"image": app_instance().datastore().add_image(image, str(file), info)}


@router.put("/rep3d/voxels/labels/{image}", openapi_extra=BINARY_BODY)
def put_label(
    request: Request, image: str, user: Annotated[User, AS_ANNOTATOR], voxels: _Voxels, tag: str = FINAL
) -> dict[str, Any]:
    """Submit a label; ``params`` of the voxels are as in :func:`lib.api.data.save_label`."""

    def write(folder: Path) -> Path:
        file = folder / "submission.nii.gz"
        store = app_instance().datastore()
        voxels.write_label(store.image_file(image), store.channels, file)
        return file

    return take_label(request, user, image, tag, _params(voxels), write)


_InferParams = Annotated[dict[str, Any] | None, Body()]


async def _turn(
    request: Request, model: str, image: str, user: Annotated[User, AS_USER], params: _InferParams = None
) -> Turn:
    return await in_turn(request, user, model, image, params or {})


@router.post("/rep3d/voxels/infer/{model}")
def segment(
    request: Request,
    model: str,
    image: str,
    user: Annotated[User, AS_USER],
    turn: Annotated[Turn, Depends(_turn)],
    params: _InferParams = None,
) -> StreamingResponse:
    """Segment an image; ``params`` are as for ``/infer/``.

    Returns:
        The array ``label``, and ``uncertainty`` (0 to 1) where that was asked for; ``params`` are the facts about it.
    """
    app = app_instance()
    app.check_model(model)
    asked = {**json_object("params", json.dumps(params or {})), "model": model, "image": image}
    if (name := name_of(user)) is not None:
        asked["user"] = name
    wanted = InferRequest.parse(asked)
    result = app.infer({**asked, "request_id": wanted.id, "gone": turn.gone})
    file = Path(result["file"])
    try:
        voxels, grid = label_voxels(file, app.datastore().image_file(image), app.datastore().channels)
    finally:
        file.unlink(missing_ok=True)
    arrays = {"label": voxels}
    if wanted.uncertainty:
        arrays["uncertainty"], _ = read_image(app.requests.map_file(wanted.id))
    return _answer(request, arrays, grid, result["params"])
