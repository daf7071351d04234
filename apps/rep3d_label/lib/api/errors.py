"""Errors as clients see them: one table from kinds of error to a status, and a sentence in words. Never a bare 500.

Nothing below ``lib.api`` knows HTTP: it raises errors of :mod:`lib.errors` and :mod:`rep3d.errors`.
"""

from __future__ import annotations

import inspect
import json
import logging
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from lib.access.callers import WAIT_SECONDS
from lib.errors import (
    OUT_OF_MEMORY,
    BusyError,
    ConflictError,
    DiskFullError,
    ForbiddenError,
    NotFoundError,
    SlowClientError,
    TooManySessionsError,
    TooManyWaitingError,
    UnknownKeyError,
    UploadTooLargeError,
    WaitError,
    WrongHostError,
    is_out_of_memory,
)
from rep3d.errors import (
    CheckpointError,
    DamagedFileError,
    ExportError,
    InferenceCancelled,
    MissingComponentError,
    NoCasesError,
    OutOfMemoryError,
    Rep3DError,
    TooLargeError,
    TrainingError,
    UnknownVersionError,
    VersionError,
    causes,
    machine_error,
)

__all__ = ["ANSWERS", "Answer", "answer_for", "error_response", "register_error_handlers"]

logger = logging.getLogger(__name__)

# Of functions that may be waiting, and would be ended.
_WAITS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


@dataclass(frozen=True)
class Answer:
    """How an error is answered.

    Attributes:
        status: the HTTP status.
        words: what is said; None where the error's own message is for people.
        retry_after: seconds after which the same request may succeed; None where waiting alone does not help.
    """

    status: int
    words: str | None = None
    retry_after: int | None = None


_NO_MEMORY = Answer(503, OUT_OF_MEMORY, 60)

# The closest base class counts.
ANSWERS: Mapping[type[BaseException], Answer] = {
    # What was sent is not usable ...
    Rep3DError: Answer(422),
    MONAILabelException: Answer(422),
    TooLargeError: Answer(422),
    UploadTooLargeError: Answer(413),
    json.JSONDecodeError: Answer(422, "The request is not valid JSON."),
    # ... is not allowed ...
    UnknownKeyError: Answer(401),
    WaitError: Answer(429, retry_after=WAIT_SECONDS),
    WrongHostError: Answer(421),
    SlowClientError: Answer(408),
    ForbiddenError: Answer(403),
    # ... names nothing that there is ...
    NotFoundError: Answer(404),
    UnknownVersionError: Answer(404),
    ImageNotFoundException: Answer(404),
    LabelNotFoundException: Answer(404),
    # ... or is forbidden by the state of the server.
    ConflictError: Answer(409),
    CheckpointError: Answer(409),
    InferenceCancelled: Answer(409),
    NoCasesError: Answer(409),
    VersionError: Answer(409),
    TrainingError: Answer(409),
    # It is the server's fault, not the request's.
    ExportError: Answer(500),
    DamagedFileError: Answer(500),
    MissingComponentError: Answer(501),
    BusyError: Answer(503, retry_after=5),
    TooManyWaitingError: Answer(429, retry_after=5),
    TooManySessionsError: Answer(429, retry_after=60),
    OutOfMemoryError: Answer(503, retry_after=60),
    MemoryError: _NO_MEMORY,
    torch.OutOfMemoryError: _NO_MEMORY,
    DiskFullError: Answer(507),
    Exception: Answer(500, "Something went wrong in the server; its log says more."),
}


def answer_for(error: BaseException) -> tuple[Answer, str]:
    """Return the row of the table for an error, and what is to be said."""
    if is_out_of_memory(error):
        answer = _NO_MEMORY
    else:
        error = machine_error(error) or error
        answer = next(ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
    if answer == ANSWERS[Exception]:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error  # never a path of the disk
        return answer, f"{answer.words} ({type(error).__name__}: {said})"
    return answer, answer.words or str(getattr(error, "msg", error))


def error_response(request: Request, error: Exception) -> JSONResponse:
    """Return an error as clients see it."""
    answer, words = answer_for(error)
    if answer.status >= 500:
        level = logging.INFO if isinstance(error, BusyError) else logging.ERROR
        unexpected = error if answer.status == 500 else None  # only of these does the log say where they came from
        logger.log(level, "%s %s failed: %s", request.method, request.url.path, words, exc_info=unexpected)
    _let_go(error)
    headers = {"Retry-After": str(answer.retry_after)} if answer.retry_after else {}
    if answer.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Rep3D Label"'
    reason = {"reason": error.reason} if isinstance(error, ConflictError) and error.reason else {}
    return JSONResponse({"detail": words, **reason}, answer.status, headers)


def _let_go(error: BaseException) -> None:
    """Let go of what the functions that failed were about, such as an image's voxels.

    An error holds its functions, and what waits for it holds the error: Python would find out some time later.
    """
    for cause in causes(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if not frame.f_code.co_flags & _WAITS:
                with suppress(RuntimeError):  # of one that has not ended
                    frame.clear()


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """Return what FastAPI found wrong with the parts of a request."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return JSONResponse({"detail": "Request body is not valid JSON."}, 422)
    parts = [
        f"{'.'.join(map(str, one['loc'][1:])) or 'request body'}: "
        f"{'a JSON object is expected' if one['type'] == 'dict_type' else one['msg']}"
        for one in found
    ]
    return JSONResponse({"detail": "; ".join(dict.fromkeys(parts)) + "."}, 422)  # a body may be looked at twice


def register_error_handlers(app: FastAPI) -> None:
    """Make the application answer every error as JSON with a ``detail`` in words."""
    app.add_exception_handler(RequestValidationError, _validation_error)
    for kind in (*ANSWERS, OSError, RuntimeError):  # the last two may stand for want of room
        app.add_exception_handler(kind, error_response)
    app.middleware_stack = None  # built before this, for the start-up event; the first request builds it anew
