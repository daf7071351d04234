"""The one table of who may ask for what. An address that is not in it is the administrator's; a test names it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Generic, TypeVar

from starlette.routing import compile_path

__all__ = ["ROUTES", "Role", "Rows", "plain", "role_of", "stated_role"]

T = TypeVar("T")


class Role(IntEnum):
    """What an address asks for; each role may do all that those below it may."""

    open = 0  # anybody, without a key: nothing here is about images or people
    user = 1  # reading; MONAI Label's name of the least of its roles. Every key is at least an annotator's
    annotator = 2
    reviewer = 3
    admin = 4
    nobody = 5  # what MONAI Label has and this server does not offer


ROUTES: Mapping[Role, tuple[str, ...]] = {
    Role.open: (
        "GET /favicon.ico",
        "GET /auth/",
        "POST /auth/token",
        "GET /rep3d/login",
        "POST /rep3d/login",
        "GET /rep3d/{file}.css",
        "GET /rep3d/{file}.js",
        "GET /rep3d/annotate/{file:path}.css",
        "GET /rep3d/annotate/{file:path}.js",
    ),
    Role.user: (
        "GET /",
        "GET /docs",
        "GET /openapi.json",
        "GET /auth/token/valid",
        "GET /info/",
        "GET /rep3d",
        "GET /rep3d/",
        "GET /rep3d/annotate",
        "GET /rep3d/annotate/",
        "GET /rep3d/status",
        "POST /rep3d/logout",
        "GET /datastore/",
        "GET /datastore/image",
        "GET /datastore/image/info",
        "GET /datastore/label",
        "GET /datastore/label/info",
        "POST /activelearning/{strategy}",
        "POST /infer/{model}",
        "POST /infer/wsi/{model}",
        "POST /infer/wsi_v2/{model}",
        "GET /batch/infer/",
        "GET /train/",
        "GET /scoring/",
        "PUT /session/",
        "GET /session/{session_id}",
        "DELETE /session/{session_id}",
        "GET /rep3d/requests",
        "DELETE /rep3d/requests/{request_id}",
        "GET /rep3d/requests/{request_id}/uncertainty",
        "GET /rep3d/leases",
        "GET /rep3d/cases",
        "GET /rep3d/cases/{image}",
        "GET /rep3d/cases/{image}/thumbnail.png",
        "GET /rep3d/cases/{image}/history",
        "GET /rep3d/cases/{image}/history/{entry}",
        "GET /rep3d/models/{model}/batch",
        "GET /rep3d/models/{model}/versions",
        "GET /rep3d/models/{model}/versions/{version}",
        "GET /rep3d/voxels/images/{image}",
        "GET /rep3d/voxels/labels/{image}",
        "POST /rep3d/voxels/infer/{model}",
    ),
    Role.annotator: (
        "PUT /datastore/",
        "PUT /datastore/image",
        "PUT /datastore/image/info",
        "PUT /datastore/label",
        "PUT /datastore/label/info",
        "PUT /datastore/updatelabelinfo",
        "GET /datastore/dataset",
        "POST /scoring/",
        "POST /scoring/{method}",
        "DELETE /scoring/",
        "PUT /rep3d/dicom",
        "POST /rep3d/dicom/import",
        "POST /rep3d/leases/{image}",
        "DELETE /rep3d/leases/{image}",
        "POST /rep3d/cases/{image}/history/{entry}/restore",
        "PUT /rep3d/voxels/images/{image}",
        "PUT /rep3d/voxels/labels/{image}",
    ),
    Role.reviewer: (
        "POST /rep3d/cases/{image}/review",
        "DELETE /rep3d/cases/{image}/review",
    ),
    Role.admin: (
        "DELETE /datastore/",
        "DELETE /datastore/image",
        "DELETE /datastore/label",
        "POST /train/",
        "POST /train/{model}",
        "DELETE /train/",
        "POST /batch/infer/{model}",
        "DELETE /batch/infer/",
        "GET /model/{model}",
        "GET /model/info/{model}",
        "PUT /model/{model}",
        "DELETE /model/{model}",
        "GET /logs/",
        "GET /logs/gpu",
        "POST /reload",
        "POST /rep3d/models/{model}/batch",
        "DELETE /rep3d/models/{model}/batch",
        "POST /rep3d/models/{model}/rollback",
        "POST /rep3d/models/{model}/versions/{version}/publish",
        "DELETE /rep3d/models/{model}/versions/{version}",
        "GET /rep3d/models/{model}/versions/{version}/checkpoint",
        "GET /rep3d/models/{model}/versions/{version}/onnx",
    ),
    # MONAI Label's viewer and its way to another server work only with images from a DICOM server.
    Role.nobody: (
        "GET /static",
        "GET /static/{path:path}",
        "GET /ohif/{path:path}",
        "GET /proxy/dicom/{path:path}",
        "POST /proxy/dicom/{path:path}",
    ),
}


def plain(path: str) -> str:
    """Return a path without its last slash: with it or without, an address is the same or leads to the other."""
    return path.rstrip("/") or "/"


class Rows(Generic[T]):
    """Rows of a table: which addresses something is stated for."""

    def __init__(self, table: Mapping[T, Iterable[str]]) -> None:
        self._rows = [
            (method, compile_path(plain(path))[0], stated)
            for stated, rows in table.items()
            for method, path in (row.split(" ") for row in rows)
        ]

    def matching(self, method: str, path: str) -> Iterator[T]:
        """Yield what is stated for a request; ``HEAD`` is as ``GET``."""
        asked, wanted = "GET" if method == "HEAD" else method, plain(path)
        return (stated for verb, regex, stated in self._rows if verb == asked and regex.match(wanted))


_ROLES = Rows(ROUTES)


def stated_role(method: str, path: str) -> Role | None:
    """Return the role that the table states for a request, the highest where several rows fit; None without a row."""
    return max(_ROLES.matching(method, path), default=None)


def role_of(method: str, path: str) -> Role:
    """Return the role that a request needs."""
    stated = stated_role(method, path)
    return Role.admin if stated is None else stated
