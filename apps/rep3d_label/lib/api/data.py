"""Addresses for images and labels."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.background import BackgroundTask

from lib.access.audit import note
from lib.api.access import AS_ANNOTATOR, AS_USER, name_of
from lib.api.annotators import Annotator
from lib.api.forms import FileRoute, flag, json_object, on_disk, upload_name
from lib.labels.expected import Expected
from lib.labels.formats import LABEL_SUFFIXES
from lib.labels.submission import SubmitOptions
from lib.names import split_suffix
from lib.storage.datastore import Submission
from lib.storage.entries import FINAL
from rep3d.imaging.nifti import IMAGE_SUFFIXES, join_channels

__all__ = ["router", "take_label"]

router = APIRouter(route_class=FileRoute)


@router.put("/datastore/")
@router.put("/datastore/image")
def add_image(
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: str = Form("{}"),
    user: User = AS_ANNOTATOR,
) -> dict[str, str]:
    """Add an image under the id ``image``, else the file's name.

    The stock route cuts that at the first dot, and leaves a refused file in the temporary folder.
    """
    info = json_object("params", params)
    if (adder := name_of(user)) is not None:
        info["user"] = adder
    name = image or split_suffix(upload_name(file), IMAGE_SUFFIXES)[0]
    note(case=name)
    with on_disk(file, IMAGE_SUFFIXES) as received:
        return {"image": app_instance().datastore().add_image(name, str(received), info)}


@router.get("/datastore/image")
def get_image(image: str, user: User = AS_USER) -> FileResponse:
    """Return an image's file; where it has a file for each channel, one 4D file made of them."""
    store = app_instance().datastore()
    channels = store.channels.files(store.image_file(image))
    if len(channels) == 1:
        return datastore.download_image(image)
    store.channels.grid(channels[0])  # they fit together
    handle, name = tempfile.mkstemp(suffix=".nii.gz")
    os.close(handle)
    try:
        join_channels(channels, Path(name))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    clean_up = BackgroundTask(Path(name).unlink, missing_ok=True)
    return FileResponse(name, filename=f"{image}.nii.gz", background=clean_up)


@router.put("/datastore/label")
def save_label(
    request: Request,
    image: str,
    label: Annotated[UploadFile, File()],
    params: str = Form("{}"),
    tag: str = FINAL,
    user: User = AS_ANNOTATOR,
) -> Any:
    """Submit a label.

    ``params`` may have, besides facts to keep with it: ``label_info`` (see ``described_values``), ``model_version``,
    ``empty`` and ``resample`` (see :class:`lib.labels.submission.SubmitOptions`), ``override_lease``, ``drawn_on`` and
    ``replaces`` (see :class:`lib.labels.expected.Expected`).
    """

    def write(folder: Path) -> Path:
        file = folder / f"submission{_suffix(upload_name(label))}"
        with file.open("wb") as out:
            shutil.copyfileobj(label.file, out)
        return file

    return take_label(request, user, image, tag, json_object("params", params), write)


def take_label(
    request: Request, user: User, image: str, tag: str, values: dict[str, Any], write: Callable[[Path], Path]
) -> dict[str, Any]:
    """Submit a label, in whatever form it came.

    Args:
        request, user: who sends it.
        image, tag: what it is a label of, and its tag.
        values: what came with it, see :func:`save_label`.
        write: makes the file of the label in a folder; called when everything else is in order.
    """
    app = app_instance()
    options = SubmitOptions(flag(values, "empty"), flag(values, "resample"), Expected.taken(values))
    override = flag(values, "override_lease")
    annotator = Annotator.of(user, values, request)
    store = app.datastore()
    store.image_file(image)
    tag = tag or FINAL
    if annotator.name is not None:
        values["user"] = annotator.name

    def received() -> Submission:
        with tempfile.TemporaryDirectory() as folder:
            file = write(Path(folder))
            app.privacy.receive_file(file)
            return store.submit_label(image, file, tag, values, options)

    accepted = app.intake.take(image, tag, annotator.names, override, received)
    note(case=image, tag=tag, label=accepted.info.get("time"))
    changes = {key: accepted.info[key] for key in ("remapped", "resampled", "converted") if key in accepted.info}
    if accepted.duplicate:
        changes["duplicate"] = True
    return {"image": image, "label": accepted.id, **changes}


def _suffix(name: str) -> str:
    """Return what a file name says of the file's format; the rest of it is the client's own."""
    suffix = split_suffix(name.lower(), LABEL_SUFFIXES)[1] or Path(name).suffix[:20]
    return suffix if suffix.replace(".", "").isalnum() else ""


@router.put("/datastore/image/info")
def update_image_info(image: str, info: str = Form("{}"), user: User = AS_ANNOTATOR) -> Any:
    """Add facts to an image."""
    json_object("info", info)
    return datastore.update_image_info(image, info, name_of(user))


@router.put("/datastore/label/info")
def update_label_info(label: str, tag: str, info: str = Form("{}"), user: User = AS_ANNOTATOR) -> Any:
    """Add facts to a label."""
    json_object("info", info)
    return datastore.update_label_info(label, tag, info, name_of(user))


@router.put("/datastore/updatelabelinfo")
def update_label_info_as_before(label: str, tag: str, params: str = Form("{}"), user: User = AS_ANNOTATOR) -> Any:
    """MONAI Label's older name for the same."""
    return update_label_info(label, tag, params, user)


@router.get("/datastore/dataset")
def download_dataset(limit_cases: int | None = None, user: User = AS_ANNOTATOR) -> FileResponse:
    """Return the labelled cases as a ZIP file, which is removed when it was sent (the stock route keeps each)."""
    file = Path(app_instance().datastore().get_dataset_archive(limit_cases))
    clean_up = BackgroundTask(file.unlink, missing_ok=True)
    return FileResponse(file, media_type="application/zip", filename="dataset.zip", background=clean_up)
