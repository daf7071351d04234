"""MONAI Label's sessions (an image uploaded once and segmented several times) without its ways out of their folder."""

from __future__ import annotations

import os
import re
import time
from typing import Annotated, Any

from fastapi import APIRouter, File, Request, UploadFile
from fastapi.responses import FileResponse
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.sessions import SessionInfo, Sessions

from lib.api.access import AS_USER, name_of
from lib.api.forms import FileRoute, on_disk
from lib.errors import BusyError, NotFoundError, RequestError, TooManySessionsError
from rep3d.errors import ImageError
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["SafeSessions", "router"]

router = APIRouter(route_class=FileRoute)

_ID = re.compile(r"[0-9a-f-]{8,64}")
_YOUNG_SECONDS = 600.0
_MOST, _MOST_EACH = 100, 20  # open at a time, of all and of one user


class SafeSessions(Sessions):
    """Sessions whose ids cannot be paths, and which unpack no archives."""

    def __init__(self, store_path: str, expiry: int) -> None:
        self._owners: dict[str, str] = {}  # of those that were opened since the start
        super().__init__(store_path, expiry)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """Return the session of that id, or None (the stock method takes any path for an id, and may delete it)."""
        if not _ID.fullmatch(session_id):
            return None
        return super().get_session(session_id, update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Remove a session; ids that are none are ignored."""
        if _ID.fullmatch(session_id):
            super().remove_session(session_id)

    def add_session(
        self,
        data_file: str,
        expiry: int = 0,
        uncompress: bool = False,
        session_id: str | None = None,
        owner: str = "",
    ) -> tuple[str, SessionInfo]:
        """Add a session for one image file; ``owner`` is whose it is.

        Raises:
            RequestError: for archives, whose members could be written anywhere.
            TooManySessionsError: if this owner has too many open.
            BusyError: if all have.
        """
        if uncompress:
            raise RequestError("A session takes an image, not an archive to unpack. Upload the image itself.")
        open_now = set(self._names())
        self._owners = {name: whose for name, whose in list(self._owners.items()) if name in open_now}
        if list(self._owners.values()).count(owner) >= _MOST_EACH and not self.remove_expired():
            raise TooManySessionsError(f"You have {_MOST_EACH} sessions open, which is as many as may be. End some.")
        if len(open_now) >= _MOST and not self.remove_expired():
            raise BusyError(f"{_MOST} sessions are open, which is as many as may be. End some, or try again later.")
        added, session = super().add_session(data_file, expiry, uncompress, session_id)
        self._owners[added] = owner
        return added, session

    def remove_expired(self) -> int:
        """Remove old sessions, and damaged ones (on which the stock method fails, and with it the server's start)."""
        removed = 0
        for name in filter(_ID.fullmatch, self._names()):
            try:
                session = self.get_session(name, update_ts=False, fetch_cache=False)
            except ValueError:
                session = None
            if session is None and self._is_young(name):
                continue  # its image is being written right now
            if session is None or 0 < session.expiry < time.time() - session.last_access_ts:
                self.remove_session(name)
                removed += 1
        return removed

    def _names(self) -> list[str]:
        return os.listdir(self.store_path) if os.path.isdir(self.store_path) else []

    def _is_young(self, name: str) -> bool:
        try:
            return time.time() - os.stat(os.path.join(self.store_path, name)).st_mtime < _YOUNG_SECONDS
        except FileNotFoundError:
            return False

    def owns(self, path: str) -> bool:
        """Return whether a file lies below the sessions' folder."""
        root = os.path.realpath(self.store_path)
        return os.path.commonpath([root, os.path.realpath(path)]) == root


def _sessions() -> SafeSessions:
    sessions: SafeSessions = app_instance().sessions()
    return sessions


def _shown(session: SessionInfo) -> dict[str, Any]:
    """Return what is told of a session: the name of its image, and no place on the disk."""
    told = {key: value for key, value in session.to_json().items() if key != "path"}
    return {**told, "image": os.path.basename(session.image)}


@router.put("/session/")
def begin_session(
    request: Request,
    files: Annotated[list[UploadFile], File()],
    uncompress: bool = False,
    expiry: int = 0,
    user: User = AS_USER,
) -> dict[str, Any]:
    """Keep an image for a while, to segment it several times (the stock route keeps whatever comes)."""
    if len(files) != 1:
        raise RequestError(f"A session takes one image, not {len(files)} files.")
    with on_disk(files[0], IMAGE_SUFFIXES) as received:
        if not uncompress:
            try:
                app_instance().datastore().channels.read(received)
            except ImageError as error:
                raise ImageError(str(error).replace(received.name, "the image")) from error
            app_instance().privacy.receive_file(received)
        owner = name_of(user) or f"address {request.client.host if request.client else ''}"
        id_, session = _sessions().add_session(str(received), expiry, uncompress, owner=owner)
    return {"session_id": id_, "session_info": _shown(session)}


def _found(session_id: str, update_ts: bool) -> SessionInfo:
    session = _sessions().get_session(session_id, update_ts=update_ts)
    if session is None:
        raise NotFoundError(f"There is no open session {session_id[:200]!r}.")
    return session


@router.get("/session/{session_id}")
def get_session(session_id: str, update_ts: bool = False, image: bool = False, user: User = AS_USER) -> Any:
    """Return what is known of a session, or its image."""
    session = _found(session_id, update_ts)
    if image and not os.path.isfile(session.image):
        raise RequestError("This session has the files of a series. It can be segmented, but not downloaded as one.")
    return FileResponse(session.image, filename=os.path.basename(session.image)) if image else _shown(session)


@router.delete("/session/{session_id}")
def end_session(session_id: str, user: User = AS_USER) -> dict[str, Any]:
    """End a session and remove its image."""
    session = _found(session_id, False)
    _sessions().remove_session(session_id)
    return _shown(session)
