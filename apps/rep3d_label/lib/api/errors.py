"""Errors as clients see them: a status that says whose fault it is, and one sentence of detail. Never a bare 500."""

from __future__ import annotations

import json
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from rep3d.errors import (
    CheckpointError,
    InferenceCancelled,
    NoCasesError,
    Rep3DError,
    UnknownVersionError,
    VersionError,
)

__all__ = ["register_error_handlers"]

logger = logging.getLogger(__name__)


def _answer(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)


def _rep3d_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, UnknownVersionError):
        return _answer(404, str(error))
    # The state of the server forbids it (409), or what was sent is not usable (422).
    forbidden = isinstance(error, (CheckpointError, InferenceCancelled, NoCasesError, VersionError))
    return _answer(409 if forbidden else 422, str(error))


def _monailabel_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MONAILabelException)
    unknown = isinstance(error, (ImageNotFoundException, LabelNotFoundException))
    return _answer(404 if unknown else 422, str(error.msg))


def _json_error(request: Request, error: Exception) -> JSONResponse:
    return _answer(422, f"expected JSON, got text that is none ({error})")


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer(422, "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()))


def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(500, f"internal error, see the server's log: {type(error).__name__}: {error}")


def register_error_handlers(app: FastAPI) -> None:
    """Makes the application answer every error as JSON with a ``detail`` in words."""
    app.add_exception_handler(Rep3DError, _rep3d_error)
    app.add_exception_handler(MONAILabelException, _monailabel_error)
    app.add_exception_handler(json.JSONDecodeError, _json_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected_error)
    app.middleware_stack = None  # built before this, for the start-up event; the first request builds it anew
