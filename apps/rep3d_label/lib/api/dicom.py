"""Addresses for taking in DICOM series: those that were copied into the studies folder, and those that are sent."""

from __future__ import annotations

import shutil
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Depends, Request
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from lib.access.audit import note
from lib.api.access import AS_ANNOTATOR
from lib.api.forms import BINARY_BODY, FORM_LIMITS
from lib.dicom.upload import Limits, unpack_dicom
from lib.errors import RequestError

__all__ = ["router"]

router = APIRouter()

_TOLD = 5  # reasons in one answer
_one_at_a_time = threading.Lock()  # what an upload needs of the disk is checked before it is written


@router.post("/rep3d/dicom/import")
def import_dicom(user: User = AS_ANNOTATOR) -> Any:
    """Convert the series in the studies folder that are new; say what came in and what cannot be used."""
    app = app_instance()
    found = app.dicom.run()
    app.datastore().refresh()
    app.folder.look()  # at what is left out now
    return found


async def _packed(request: Request) -> AsyncIterator[BinaryIO]:
    """Yield the .zip file of a request."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        async with request.form(**FORM_LIMITS) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise RequestError("Send the DICOM files as one .zip file, in the part named file.")
            yield file.file
        return
    with tempfile.TemporaryFile() as packed:
        async for block in request.stream():
            await run_in_threadpool(packed.write, block)
        yield packed


@router.put("/rep3d/dicom", openapi_extra=BINARY_BODY)
def add_dicom(user: Annotated[User, AS_ANNOTATOR], file: Annotated[BinaryIO, Depends(_packed)]) -> dict[str, Any]:
    """Take in the series of a .zip file of DICOM files, which is the body, or the part ``file`` of a form.

    Returns:
        ``images`` (ids that came in), ``known`` (series that were there already: ``series`` and ``image``), ``failed``
        (``source`` and ``error`` of a series, or of files that are part of none), the ``folder`` that keeps the DICOM
        files, None where nothing came in, and ``warnings`` (``image`` and ``reason``: a name may be in its pixels).
    """
    app = app_instance()
    incoming = app.setup.workspace.incoming
    with _one_at_a_time:
        shutil.rmtree(incoming, ignore_errors=True)  # of a process that was killed
        incoming.mkdir(parents=True)
        try:
            unpacked = incoming / uuid.uuid4().hex
            unpack_dicom(file, unpacked, Limits(bytes=app.setup.conf.max_upload * 2**20))
            taken = app.dicom.take_in(unpacked, f"dicom-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}")
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    if not (taken.images or taken.known or taken.failed):  # only what is no image: why, is part of the refusal
        why = " ".join(one["error"] for one in taken.left_out[:_TOLD])
        raise RequestError(f"The .zip file holds DICOM files, but no images among them: {why} Nothing was changed.")
    app.datastore().refresh()
    note(case=", ".join(taken.images))
    failed = taken.failed + taken.left_out
    answer = {"images": taken.images, "known": taken.known, "failed": failed, "folder": taken.folder}
    return {**answer, "warnings": taken.warnings}
