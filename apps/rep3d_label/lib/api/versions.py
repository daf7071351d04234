"""Addresses for the versions of a model: list, inspect, publish, roll back, delete, export."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.background import BackgroundTask

from lib.api.access import AS_ADMIN, AS_USER, name_of
from lib.api.forms import is_text
from lib.errors import RequestError
from lib.models.served import ServedModel
from rep3d.checkpoint import load_checkpoint
from rep3d.errors import CheckpointError
from rep3d.inference.export import export_onnx
from rep3d.starter.facts import starter_words
from rep3d.versions.record import VersionRecord

__all__ = ["router"]

router = APIRouter(prefix="/rep3d/models/{model}")

_LONGEST = 500  # characters of a reason or a name


@router.get("/versions")
def list_versions(model: str, user: User = AS_USER) -> dict[str, Any]:
    """Return all versions, oldest first, without their scores of single cases; and what was published when."""
    served = _served(model)
    try:
        now, error, log = served.versions.published(), None, served.versions.publications()
    except CheckpointError as damage:
        now, error, log = None, str(damage), []
    return {
        "model": model,
        "published": now,
        "error": error,
        "versions": [_shown(served, record, now) for record in served.versions.list()],
        "publications": log,
    }


@router.get("/versions/{version}")
def show_version(model: str, version: str, user: User = AS_USER) -> dict[str, Any]:
    """Return one version in full; also one whose weights were deleted."""
    served = _served(model)
    record = served.versions.get(version)
    return {**_shown(served, record, _published(served)), **record.to_dict()}


@router.post("/versions/{version}/publish")
def publish_version(model: str, version: str, params: dict | None = None, user: User = AS_ADMIN) -> dict[str, Any]:
    """Publish a version by hand; ``params`` may say ``by`` and ``reason``."""
    served = _served(model)
    by, reason = _words(params, user)
    served.published.check(served.versions.checkpoint(version))
    record = served.versions.publish(version, by, reason or "published by hand")
    return _shown(served, record, _published(served))


@router.post("/rollback")
def roll_back(model: str, params: dict | None = None, user: User = AS_ADMIN) -> dict[str, Any]:
    """Publish the version that was published before the present one; ``params`` as for publishing."""
    served = _served(model)
    by, reason = _words(params, user)
    record = served.versions.rollback(by, reason)
    return _shown(served, record, _published(served))


@router.delete("/versions/{version}")
def delete_version(model: str, version: str, user: User = AS_ADMIN) -> dict[str, Any]:
    """Delete the weights of a version that is not published; its record stays."""
    served = _served(model)
    record = served.versions.delete(version, _words(None, user)[0])
    return _shown(served, record, _published(served))


@router.get("/versions/{version}/checkpoint")
def download_checkpoint(model: str, version: str, user: User = AS_ADMIN) -> FileResponse:
    """Return the weights of a version, as a Rep3D checkpoint."""
    file = _served(model).versions.checkpoint(version)
    return FileResponse(file, media_type="application/octet-stream", filename=f"{model}-{version}.pt")


@router.get("/versions/{version}/onnx")
def download_onnx(model: str, version: str, user: User = AS_ADMIN) -> FileResponse:
    """Return the folded network of a version for other programs; made on request, which takes seconds."""
    file = _served(model).versions.checkpoint(version)
    folder = Path(tempfile.mkdtemp(prefix="rep3d-onnx-"))
    try:
        exported = export_onnx(load_checkpoint(file), folder / f"{model}-{version}.onnx")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    clean_up = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
    return FileResponse(exported.path, media_type="application/octet-stream", filename=exported.path.name,
                        background=clean_up)  # fmt: skip


def _served(model: str) -> ServedModel:
    app = app_instance()
    app.check_model(model)
    served: ServedModel = app.served[model]
    return served


def _published(served: ServedModel) -> str | None:
    try:
        return served.versions.published()
    except CheckpointError:
        return None


def _shown(served: ServedModel, record: VersionRecord, published: str | None) -> dict[str, Any]:
    """Return a version as the list shows it."""
    facts = record.to_dict()
    for large in ("case_scores", "compared", "label_hashes"):
        del facts[large]
    return {
        **facts,
        "published": record.version == published,
        "attribution": starter_words(facts),
        "mean_score": record.mean_score,
        "bytes": served.versions.size(record.version),
    }


def _words(params: dict | None, user: User) -> tuple[str, str]:
    """Return who wants it, as authenticated or else as the client says, and why."""
    values = params or {}
    for name in ("by", "reason"):
        if not is_text(values.get(name, "")) or len(values.get(name, "")) > _LONGEST:
            raise RequestError(f"{name} must be a text of at most {_LONGEST} characters.")
    by = name_of(user) or values.get("by")
    return by or "unknown", values.get("reason", "")
