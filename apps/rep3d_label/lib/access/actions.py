"""What the audit log calls each request: one table of the addresses that change something or hand something out.

Those that are in neither are written only where they are refused; a test names what changes something and has no row.
"""

from __future__ import annotations

from collections.abc import Mapping

from lib.access.roles import Rows

__all__ = ["CHANGING", "READING", "SAFE", "action_of", "stated_change"]

CHANGING: Mapping[str, tuple[str, ...]] = {
    "log in": ("POST /rep3d/login", "POST /auth/token"),
    "log out": ("POST /rep3d/logout",),
    "add image": ("PUT /datastore/", "PUT /datastore/image", "PUT /rep3d/voxels/images/{image}"),
    "add DICOM": ("PUT /rep3d/dicom", "POST /rep3d/dicom/import"),
    "remove image": ("DELETE /datastore/", "DELETE /datastore/image"),
    "submit label": ("PUT /datastore/label", "PUT /rep3d/voxels/labels/{image}"),
    "restore label": ("POST /rep3d/cases/{image}/history/{entry}/restore",),
    "remove label": ("DELETE /datastore/label",),
    "change facts": ("PUT /datastore/image/info", "PUT /datastore/label/info", "PUT /datastore/updatelabelinfo"),
    "review": ("POST /rep3d/cases/{image}/review",),
    "take review back": ("DELETE /rep3d/cases/{image}/review",),
    "next sample": ("POST /activelearning/{strategy}",),
    "reserve": ("POST /rep3d/leases/{image}",),
    "end reservation": ("DELETE /rep3d/leases/{image}",),
    "open session": ("PUT /session/",),
    "end session": ("DELETE /session/{session_id}",),
    "cancel segmentation": ("DELETE /rep3d/requests/{request_id}",),
    "start scoring": ("POST /scoring/", "POST /scoring/{method}"),
    "stop scoring": ("DELETE /scoring/",),
    "start training": ("POST /train/", "POST /train/{model}"),
    "stop training": ("DELETE /train/",),
    "start batch": ("POST /batch/infer/{model}", "POST /rep3d/models/{model}/batch"),
    "stop batch": ("DELETE /batch/infer/", "DELETE /rep3d/models/{model}/batch"),
    "publish": ("POST /rep3d/models/{model}/versions/{version}/publish",),
    "roll back": ("POST /rep3d/models/{model}/rollback",),
    "delete version": ("DELETE /rep3d/models/{model}/versions/{version}",),
    "change model": ("PUT /model/{model}", "DELETE /model/{model}"),
    "look through folder": ("POST /reload",),
    "whole slides, or another server": (  # what is always refused
        "POST /infer/wsi/{model}",
        "POST /infer/wsi_v2/{model}",
        "POST /proxy/dicom/{path:path}",
    ),
}

READING: Mapping[str, tuple[str, ...]] = {
    "read image": ("GET /datastore/image", "GET /rep3d/voxels/images/{image}"),
    "read thumbnail": ("GET /rep3d/cases/{image}/thumbnail.png",),
    "read label": ("GET /datastore/label", "GET /rep3d/voxels/labels/{image}"),
    "read earlier label": ("GET /rep3d/cases/{image}/history/{entry}",),
    "segment": ("POST /infer/{model}", "POST /rep3d/voxels/infer/{model}"),
    "read uncertainty": ("GET /rep3d/requests/{request_id}/uncertainty",),
    "read session": ("GET /session/{session_id}",),
    "read data set": ("GET /datastore/dataset",),
    "read model": (
        "GET /model/{model}",
        "GET /model/info/{model}",
        "GET /rep3d/models/{model}/versions/{version}/checkpoint",
        "GET /rep3d/models/{model}/versions/{version}/onnx",
    ),
    "read log": ("GET /logs/", "GET /logs/gpu"),
}

SAFE = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing."""
_CHANGING, _READING = Rows(CHANGING), Rows(READING)


def stated_change(method: str, path: str) -> str | None:
    """Return what the table calls a request that changes something; None without a row."""
    return next(_CHANGING.matching(method, path), None)


def action_of(method: str, path: str) -> tuple[str | None, bool]:
    """Return what the log calls a request, None where it is not worth a line, and whether it is one that changes."""
    read = next(_READING.matching(method, path), None)
    if read is not None or method in SAFE:
        return read, False
    return stated_change(method, path) or "other change", True
