"""How much may be sent, and whether it came unharmed: counted and summed while it streams, before anything is kept.

A request that carries no file may be small only: what it says is held in memory. What a client promises of the bytes
in ``Content-Digest`` or ``Repr-Digest`` (RFC 9530) is made sure of; of a form, ``Repr-Digest`` speaks of the file in
it, which :mod:`lib.api.forms` compares.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence

import anyio
from starlette._utils import get_route_path  # what the router itself goes by
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.access.guard import InWords
from lib.access.roles import plain
from lib.errors import RequestError, UploadTooLargeError
from rep3d.errors import Rep3DError
from rep3d.memory import give_back

__all__ = ["Bodies", "Promised"]

_SMALL = 4 << 20  # bytes of a request without a file
_FORMS = ("PUT /datastore/", "PUT /datastore/image", "PUT /datastore/label", "PUT /session/", "POST /infer/{model}")
_RAW = ("PUT /rep3d/voxels/images/{image}", "PUT /rep3d/voxels/labels/{image}", "PUT /rep3d/dicom")
_LARGE = [
    (method, compile_path(plain(path))[0], row in _RAW)
    for row in (*_FORMS, *_RAW)
    for method, path in (row.split(" "),)
]
_DIGEST = re.compile(r"([a-z0-9-]+)=:([A-Za-z0-9+/]+={0,2}):(?:;[^,]*)?")
_ALGORITHMS = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}
# Many clients read no answer before they have sent all: so much, and so long, is still taken from one that is refused.
_LINGER_BYTES, _LINGER_SECONDS = 64 << 20, 5.0


class Promised:
    """The checksums that somebody promises of bytes to come.

    Args:
        texts: headers such as ``sha-256=:BASE64:``.

    Raises:
        RequestError: for one that is none, or of another kind than SHA-256 and SHA-512.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._sums = []
        for text in (part.strip() for each in texts for part in each.split(",")):
            match = _DIGEST.fullmatch(text)
            if not match or match[1] not in _ALGORITHMS:
                raise RequestError(
                    f"A checksum must be such as sha-256=:BASE64: or sha-512=:BASE64: (RFC 9530), not {text[:100]!r}."
                )
            try:
                self._sums.append((match[1], base64.b64decode(match[2], validate=True), _ALGORITHMS[match[1]]()))
            except binascii.Error:
                raise RequestError(f"The checksum {text[:100]!r} is no base64.") from None

    def update(self, block: bytes) -> None:
        """Take the next bytes."""
        for _, _, found in self._sums:
            found.update(block)

    def check(self, what: str) -> None:
        """Refuse other bytes than were promised (RequestError).

        Args:
            what: what the bytes are, for the message.
        """
        for kind, expected, found in self._sums:
            if found.digest() != expected:
                raise RequestError(
                    f"{what} was damaged on its way: its {kind} is {base64.b64encode(found.digest()).decode()}, and "
                    f"{base64.b64encode(expected).decode()} was promised. Nothing was changed. Send it again."
                )


class Bodies:
    """Refuses what is too large or damaged while it comes, whatever the application would make of it.

    Args:
        app: what answers.
        largest: bytes of a request that carries a file.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, largest: int, in_words: InWords) -> None:
        self._app = app
        self._largest = largest
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        carries = _carries_a_file(scope, headers)
        body = _Body(receive, self._largest if carries else min(_SMALL, self._largest))
        try:
            body.expect(headers)
        except Rep3DError as error:
            await self._refuse(scope, body, send, error)
            return
        started = False

        async def send_unless_refused(message: Message) -> None:
            nonlocal started
            if body.refusal is None or started:
                started = True
                await send(message)

        try:
            await self._app(scope, body.receive, send_unless_refused)
        except Exception:
            if body.refusal is None or started:
                raise
        if body.refusal is not None and not started:
            await self._refuse(scope, body, send, body.refusal)
        if carries:
            await run_in_threadpool(give_back)  # what it took to read the file, perhaps a thousand times its size

    async def _refuse(self, scope: Scope, body: _Body, send: Send, error: Rep3DError) -> None:
        async def send_and_linger(message: Message) -> None:
            if message["type"] != "http.response.body" or body.complete or "expect" in Headers(scope=scope):
                await send(message)
                return
            await send({**message, "more_body": True})
            await body.drain()
            await send({"type": "http.response.body", "body": b""})

        answer = self._in_words(Request(scope), error)
        answer.headers["Connection"] = "close"
        await answer(scope, body.receive, send_and_linger)


def _kind(headers: Headers) -> str:
    return headers.get("content-type", "").lower()


def _carries_a_file(scope: Scope, headers: Headers) -> bool:
    form = _kind(headers).startswith("multipart/form-data")
    path = plain(get_route_path(scope))
    return any(method == scope["method"] and regex.match(path) and (raw or form) for method, regex, raw in _LARGE)


class _Body:
    """The body of a request, as it comes."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._came = 0
        self._promised = Promised(())
        self.refusal: Rep3DError | None = None
        self.complete = False

    def expect(self, headers: Headers) -> None:
        """Look at what the headers say of it; refuse what is too large already."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()
        promises = headers.getlist("content-digest")
        if not _kind(headers).startswith("multipart/"):
            promises += headers.getlist("repr-digest")
        self._promised = Promised(promises)

    def _too_large(self) -> UploadTooLargeError:
        return UploadTooLargeError(
            f"That is more than {self._limit / 2**20:g} MiB, the most that one request of this kind may have here. "
            f"Nothing was changed. Compress it or send less at once; --conf max_upload raises the limit for images, "
            f"labels and .zip files."
        )

    async def receive(self) -> Message:
        """Return what comes next; a refusal is raised each time, whatever is made of it."""
        if self.refusal is not None:
            raise self.refusal
        message = await self._receive()
        if message["type"] == "http.request":
            block = message.get("body", b"")
            self.complete = not message.get("more_body", False)
            self._came += len(block)
            self._promised.update(block)
            try:
                if self._came > self._limit:
                    raise self._too_large()
                if self.complete:
                    self._promised.check("What was sent")
            except Rep3DError as error:
                self.refusal = error
                raise
        return message

    async def drain(self) -> None:
        """Take a little more of it, and keep nothing."""
        left = _LINGER_BYTES
        with anyio.move_on_after(_LINGER_SECONDS):
            while left > 0 and not self.complete:
                message = await self._receive()
                self.complete = message["type"] != "http.request" or not message.get("more_body", False)
                left -= len(message.get("body", b""))
