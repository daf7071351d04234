"""Who asks for what: MONAI Label's roles as dependencies of routes, and the caller that was let in as its user.

Who is let in at all says :mod:`lib.access`, before a route is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from monailabel.config import settings
from monailabel.endpoints.user.auth import DEFAULT_USER, RBAC, User, get_current_user
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from lib.access import oauth
from lib.access.audit import Audit, Auditor
from lib.access.bodies import Bodies
from lib.access.callers import Caller
from lib.access.guard import Access, Door, Guard, WithRoom
from lib.access.paths import WithoutPaths
from lib.api.errors import error_response
from lib.lanes.inference import InferenceLane, Lane
from lib.lanes.pace import Limits, Pace

__all__ = ["AS_ADMIN", "AS_ANNOTATOR", "AS_REVIEWER", "AS_USER", "Bounds", "close_door", "is_admin", "name_of"]

AS_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
AS_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
AS_REVIEWER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_REVIEWER))
AS_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))


_INFERENCE = ("/infer/{model}", "/rep3d/voxels/infer/{model}")


def name_of(user: User) -> str | None:
    """Return the name that came with a key or token; None where nobody was asked for one."""
    return None if user is DEFAULT_USER else user.username


def is_admin(user: User) -> bool:
    """Return whether somebody may do what administrators may."""
    return settings.MONAI_LABEL_AUTH_ROLE_ADMIN in user.roles


def current_user(request: Request) -> User:
    """Return the caller as MONAI Label's own routes want to know it."""
    caller: Caller | None = request.state.caller  # set by `Access`; a request that did not pass it fails here
    if caller is None:
        return DEFAULT_USER
    return User(username=caller.name, name=caller.name, roles=oauth.roles_of(caller.role))


@dataclass(frozen=True)
class Bounds:
    """What is bounded before the application sees a request.

    Attributes:
        lane: where those wait who want something segmented.
        pace: how slow a client may be.
        max_upload: bytes that may be sent at once.
        check_room: raises while the disk has no room to change anything.
    """

    lane: Lane
    pace: Limits
    max_upload: int
    check_room: Callable[[], None]


def close_door(app: FastAPI, door: Door, auditor: Auditor, bounds: Bounds, folders: Iterable[Path]) -> None:
    """Put the door before the whole application, in place of MONAI Label's checks and of its leave for every site.

    Args:
        app: the application.
        door: who may come in.
        auditor: writes what came, and what became of it, into the audit log.
        bounds: what is too much.
        folders: places on this computer that no answer names.
    """
    prefix = settings.MONAI_LABEL_API_STR
    app.state.door = door
    app.dependency_overrides[get_current_user] = current_user
    others = [each for each in app.user_middleware if each.cls is not CORSMiddleware]
    app.user_middleware[:] = [
        Middleware(Access, door, error_response),
        Middleware(WithRoom, bounds.check_room, error_response),
        Middleware(InferenceLane, bounds.lane, tuple(f"{prefix}{path}" for path in _INFERENCE), error_response),
        Middleware(Bodies, bounds.max_upload, error_response),
        *others,
    ]
    if door.origins:
        opened = Middleware(CORSMiddleware, allow_origins=door.origins, allow_methods=["*"], allow_headers=["*"])
        app.user_middleware.insert(0, opened)
    paced = Pace(app.build_middleware_stack(), bounds.pace, error_response)
    app.middleware_stack = Audit(WithoutPaths(Guard(paced, door, error_response), folders), auditor)
