"""Connections keep moving, or are closed: who sends or reads almost nothing holds memory, a file and a handle.

uvicorn, which serves the app, has no such limits but one: five seconds between two requests of a connection.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from lib.access.guard import InWords
from lib.errors import SlowClientError

__all__ = ["Limits", "Pace", "close_silent_connections"]


_PART = 1 << 16  # bytes of an answer that are sent at a time; uvicorn keeps about as many


@dataclass(frozen=True)
class Limits:
    """How slow a client may be.

    Attributes:
        seconds: for the head of a request, and between two parts of its body, or of an answer.
        rate: bytes a second, over all the time that was waited for a client, once that is more than ``seconds``.
    """

    seconds: float
    rate: float


class Pace:
    """Ends requests whose body, and answers whose reader, is too slow. To be given the server's own ``receive``.

    Only time that is spent waiting for the client counts.

    Args:
        app: what answers.
        limits: how slow a client may be.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, limits: Limits, in_words: InWords) -> None:
        self._app = app
        self._limits = limits
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(self._limits, receive, send)
        try:
            await self._app(scope, request.receive, request.send)
        except Exception:
            if request.error is None:
                raise
        if request.error is not None and not request.answered:
            answer = self._in_words(Request(scope), request.error)
            answer.headers["Connection"] = "close"
            await answer(scope, receive, send)


class _Request:
    """One request, with the time spent waiting for its client."""

    def __init__(self, limits: Limits, receive: Receive, send: Send) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        # uvicorn's own, by which a connection ends although its reader has not taken all that is meant for it.
        self._transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
        self._complete = False
        self._seconds = 0.0
        self._bytes = 0
        self.error: SlowClientError | None = None
        self.answered = False

    async def receive(self) -> Message:
        """As the server's own, but it raises SlowClientError if the body comes too slowly."""
        if self._complete:  # what comes is that the client goes away
            return await self._receive()
        if self.error is not None:
            raise self.error
        message: Message | None = None
        began = anyio.current_time()
        with anyio.move_on_after(self._limits.seconds):
            message = await self._receive()
        self._seconds += anyio.current_time() - began
        if message is not None:
            self._bytes += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        late = self._seconds > self._limits.seconds and self._bytes < self._limits.rate * self._seconds
        if message is None or (late and not self._complete):
            self.error = SlowClientError(
                f"The request came too slowly: {self._bytes} bytes of its body in {self._seconds:.0f} s. Nothing was "
                f"changed. Send it again over a faster connection."
            )
            raise self.error
        return message

    async def send(self, message: Message) -> None:
        """As the server's own, but a connection ends that takes no more of its answer."""
        if self.error is not None and not self.answered:
            return  # whatever the application made of the error: the client is told the error itself
        self.answered = True
        for part in _parts(message):
            # It waits until the parts before, all but a little, are taken.
            with anyio.move_on_after(self._limits.seconds + _PART / self._limits.rate) as limit:
                await self._send(part)
            if limit.cancelled_caught:
                if self._transport is not None:
                    self._transport.abort()  # what is sent from now on goes nowhere
                return


def _parts(message: Message) -> Iterator[Message]:
    """Yield a part of an answer in parts so small that each shows whether its reader goes on."""
    body = memoryview(message.get("body", b""))
    if len(body) <= _PART:
        yield message
        return
    for start in range(0, len(body), _PART):
        more = message.get("more_body", False) or start + _PART < len(body)
        yield {**message, "body": bytes(body[start : start + _PART]), "more_body": more}


def close_silent_connections(seconds: float) -> None:
    """Let uvicorn close each connection that has brought no whole head of a request for so long, or up to twice that.

    It has no setting for that, and no other place where connections without a request can be seen.
    """
    made = AutoHTTPProtocol.connection_made

    @functools.wraps(made)
    def connection_made(protocol: Any, transport: asyncio.Transport) -> None:
        made(protocol, transport)
        _look(protocol, transport, seconds, None)

    AutoHTTPProtocol.connection_made = connection_made  # type: ignore[method-assign, assignment]


def _look(protocol: Any, transport: asyncio.Transport, seconds: float, before: tuple[Any] | None) -> None:
    """Look at a connection, and again later; ``before`` is its last request, if that had been answered by then."""
    if transport.is_closing():
        return
    idle = protocol.cycle is None or protocol.cycle.response_complete
    if idle and before == (protocol.cycle,):
        transport.abort()
        return
    now = (protocol.cycle,) if idle else None
    asyncio.get_running_loop().call_later(seconds, _look, protocol, transport, seconds, now)
