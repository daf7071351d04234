"""Addresses for images and labels."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, File, Form, HTTPException, UploadFile
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.access import AS_ANNOTATOR
from lib.forms import json_object, upload_name, with_user
from lib.names import split_suffix
from rep3d.volumes import IMAGE_SUFFIXES

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.put("/datastore/")
@router.put("/datastore/image")
def add_image(
    background_tasks: BackgroundTasks,
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: str = Form("{}"),
    user: User = AS_ANNOTATOR,
) -> Any:
    """Adds an image under the id ``image``, else the file's name (which the stock route cuts at the first dot)."""
    json_object("params", params)
    name, suffix = split_suffix(upload_name(file), IMAGE_SUFFIXES)
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
    user: User = AS_ANNOTATOR,
) -> Any:
    """Submits a label."""
    values = with_user(json_object("params", params), user)
    return datastore.save_label(background_tasks, image, values, tag, label, user.username)


@router.put("/datastore/image/info")
def update_image_info(image: str, info: str = Form("{}"), user: User = AS_ANNOTATOR) -> Any:
    """Adds facts to an image."""
    json_object("info", info)
    return datastore.update_image_info(image, info, user.username)


@router.put("/datastore/label/info")
def update_label_info(label: str, tag: str, info: str = Form("{}"), user: User = AS_ANNOTATOR) -> Any:
    """Adds facts to a label."""
    json_object("info", info)
    return datastore.update_label_info(label, tag, info, user.username)
