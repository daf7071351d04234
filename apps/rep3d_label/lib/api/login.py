"""Addresses for coming in: the form for people with a browser, and MONAI Label's own for its clients.

Forms are read here up to a few kB, since anybody may send one.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import User

from lib.access.callers import Caller
from lib.access.guard import Door
from lib.api.access import AS_USER
from lib.api.errors import answer_for
from lib.api.pages import page
from lib.errors import BusyError, RequestError, UnknownKeyError, WaitError

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_LONGEST_FORM = 8192  # bytes


@router.get("/rep3d/login")
def login_page(request: Request) -> HTMLResponse:
    """Return the form."""
    return page("login.html", error="", names=_door(request).callers.tokens)


@router.post("/rep3d/login")
async def log_in(request: Request) -> Response:
    """Take a key, or in MONAI Label's OAuth mode a name and a password, and begin a login of this browser."""
    door = _door(request)
    try:
        caller, _ = await _caller(door, request)
    except (UnknownKeyError, WaitError, BusyError) as error:
        answer, words = answer_for(error)
        return page("login.html", answer.status, error=words, names=door.callers.tokens)
    wanted = request.query_params.get("to")
    response = RedirectResponse("annotate/" if wanted == "annotate/" else "./", 303)
    secret, secure = door.callers.begin_session(caller), request.url.scheme == "https"
    response.set_cookie(door.cookie, secret, httponly=True, samesite="strict", secure=secure)
    return response


@router.post("/rep3d/logout")
async def log_out(request: Request, user: User = AS_USER) -> RedirectResponse:
    """End the login of this browser."""
    door = _door(request)
    door.callers.end_session(request.cookies.get(door.cookie, ""))
    answer = RedirectResponse("login", 303)
    answer.delete_cookie(door.cookie, httponly=True, samesite="strict")
    return answer


@router.get("/auth/")
def how_to_come_in(request: Request) -> dict[str, Any]:
    """Tell MONAI Label's clients whether they have to ask for a name and a password."""
    return {
        "enabled": _door(request).asks_for_key(request.scope),
        "client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID,
        "realm": settings.MONAI_LABEL_AUTH_REALM_URI if _door(request).callers.tokens else "",
    }


@router.post("/auth/token")
async def token(request: Request) -> dict[str, Any]:
    """Return what MONAI Label's clients then send with each request: the key, which is their password, or a token."""
    door = _door(request)
    if not door.asks_for_key(request.scope):
        return {"access_token": None, "token_type": None}
    _, text = await _caller(door, request)
    return {"access_token": text, "token_type": "bearer"}


@router.get("/auth/token/valid")
def whose_token(user: User = AS_USER) -> dict[str, Any]:
    """Return who asks, as MONAI Label's clients want to know it."""
    return user.model_dump()


def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


async def _caller(door: Door, request: Request) -> tuple[Caller, str]:
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > _LONGEST_FORM:
            raise RequestError("The form is too long.")
    fields = dict(parse_qsl(content.decode("utf-8", "replace")))
    address = request.client.host if request.client else "unknown"
    caller, text = await door.callers.by_password(fields.get("username", ""), fields.get("password", ""), address)
    request.state.caller = caller  # for the audit log
    return caller, text
