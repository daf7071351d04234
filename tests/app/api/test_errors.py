"""Each kind of error has one status, and a sentence; what is the server's fault is never put on the image."""

from __future__ import annotations

import ast
import errno
import json
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient
from lib import errors as own
from lib.api.errors import ANSWERS, Answer, answer_for, register_error_handlers
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

from rep3d import errors as package
from tests.app.server import APP_DIR

KINDS = [
    kind
    for module in (own, package)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, package.Rep3DError) and kind.__module__ == module.__name__
]


def _made(kind: type[BaseException]) -> BaseException:
    if kind is own.NoModelError:
        return kind()
    if kind is json.JSONDecodeError:
        return json.JSONDecodeError("odd", "{", 1)
    if kind is MONAILabelException:
        return kind(MONAILabelError.APP_ERROR, "odd")
    return kind("odd")


@pytest.fixture(scope="module")
def client() -> TestClient:
    """Return an application that raises what it is asked for."""
    app = FastAPI()
    register_error_handlers(app)
    waiting: list[BaseException] = []

    @app.get("/")
    def fail() -> None:
        raise waiting.pop()

    @app.post("/")
    def take(params: dict) -> None:
        """Take a JSON object."""

    client = TestClient(app, raise_server_exceptions=False)
    client.waiting = waiting  # type: ignore[attr-defined]
    return client


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
def test_the_table_is_what_clients_get(client: TestClient, kind: type[BaseException]) -> None:
    client.waiting.append(_made(kind))  # type: ignore[attr-defined]
    answer = client.get("/")
    row = ANSWERS[kind]
    assert answer.status_code == row.status
    assert answer.headers.get("Retry-After") == (str(row.retry_after) if row.retry_after else None)
    assert (row.words or "") in answer.json()["detail"] and answer.json()["detail"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_of_ours_has_a_status(kind: type[BaseException]) -> None:
    answer, words = answer_for(_made(kind))
    assert 400 <= answer.status < 600 and words
    fault = kind in (own.BusyError, own.DiskFullError, package.ExportError)
    fault = fault or kind in (package.DamagedFileError, package.MissingComponentError, package.OutOfMemoryError)
    assert (answer.status >= 500) == fault


def _wrapped(cause: BaseException) -> BaseException:
    error = RuntimeError("applying a transform failed")
    error.__cause__ = package.ImageError("case.nii.gz cannot be read")
    error.__cause__.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (MemoryError(), 503),
        (torch.OutOfMemoryError("CUDA out of memory"), 503),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 503),
        (OSError(errno.ENOSPC, "No space left on device"), 507),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 507),
        (OSError(errno.EIO, "Input/output error"), 500),
        (ValueError("odd"), 500),
    ],
    ids=str,
)
def test_want_of_room_is_never_the_images_fault(client: TestClient, cause: BaseException, status: int) -> None:
    for error in (cause, _wrapped(cause)):
        client.waiting.append(error)  # type: ignore[attr-defined]
        answer = client.get("/")
        assert answer.status_code == status, answer.text
        assert ("Retry-After" in answer.headers) == (status == 503)


def test_an_unreadable_image_stays_one(client: TestClient) -> None:
    error = package.ImageError("case.nii.gz cannot be read")
    error.__cause__ = EOFError()
    client.waiting.append(error)  # type: ignore[attr-defined]
    answer = client.get("/")
    assert (answer.status_code, answer.json()) == (422, {"detail": "case.nii.gz cannot be read"})


def test_requests_that_cannot_be_read_are_told_in_words(client: TestClient) -> None:
    half = client.post("/", content="{half", headers={"Content-Type": "application/json"})
    assert half.json() == {"detail": "Request body is not valid JSON."}
    assert client.post("/", json=[1]).json()["detail"].startswith("request body: ")
    assert client.post("/").json() == {"detail": "request body: Field required."}


def test_an_error_of_an_unknown_kind_names_itself() -> None:
    assert answer_for(KeyError("odd")) == (
        Answer(500, "Something went wrong in the server; its log says more."),
        "Something went wrong in the server; its log says more. (KeyError: 'odd')",
    )


def test_only_the_api_knows_http_and_only_the_table_knows_what_an_error_is() -> None:
    """As the linter's rule, but also for other ways to get at it (``fastapi.HTTPException`` by attribute)."""
    for file in (APP_DIR / "lib").rglob("*.py"):
        api = file.relative_to(APP_DIR / "lib").parts[0] == "api"
        for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", getattr(node, "name", None)))
            assert name != "HTTPException" and (api or name != "status_code"), f"{file}:{getattr(node, 'lineno', 0)}"
