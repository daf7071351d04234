"""Writes the audit log: one place that knows of every request who sent it, what it asked for and how it was answered.

A change is in the log before its answer is sent, and also where nobody waits for that any more. What is repeated, such
as refusals of one address or one person's reading of one image, is summed up: a line at once, and one with the count of
the others when some minutes are over. So nobody fills the log alone.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from cachetools import LRUCache
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.access.actions import action_of
from lib.access.callers import Caller, place_of
from rep3d.audit import CHANGES, READS, AuditLog

__all__ = ["AT_THE_DOOR", "SUM_SECONDS", "Audit", "Auditor", "note"]

SUM_SECONDS = 600.0
"""For how long the same is summed up."""
AT_THE_DOOR = (401, 403, 421, 429)
"""The answers to those who may not."""
_SUMS = 10_000  # at a time; of more, the oldest end early
_REFUSALS = 300  # lines in that time, whoever they are about
_CHANGES = 3000  # lines in that time about one caller
_CASE = ("image", "id", "label")  # the names that a case has in addresses
_FACTS = ("tag", "model", "version", "entry", "strategy", "method")

_said: ContextVar[dict[str, Any] | None] = ContextVar("said", default=None)


def note(**facts: str | None) -> None:
    """Add to the event of the request that is being answered, in whatever thread, what only its handler knows."""
    said = _said.get()
    if said is not None:
        said.update(facts)


@dataclass
class _Sum:
    began: float
    event: Mapping[str, Any]
    more: int = 0


class Auditor:
    """Writes events in a thread of its own, in their order.

    Args:
        log: where to.
        label_time: tells when the label of a case with a tag came, which is its version; None where there is none.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        log: AuditLog,
        label_time: Callable[[str, str], str | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.log = log
        self._label_time = label_time
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "audit")
        self._sums: OrderedDict[Hashable, _Sum] = OrderedDict()
        self._lines: LRUCache[Hashable, int] = LRUCache(_SUMS)  # of whom in which span of time

    def write(self, kind: str, event: Mapping[str, Any]) -> asyncio.Future[None]:
        """Write the event of a request; done when it is written, or counted among others."""
        return asyncio.wrap_future(self._thread.submit(self._write, kind, event))

    def server(self, what: str, **facts: str | None) -> None:
        """Write what the server itself did."""
        self.log.write(CHANGES, {"what": what, "who": "server", **facts})

    def close(self) -> None:
        """Write what is still summed up, and that the server stops."""
        self._thread.shutdown()
        self._flush(math.inf)
        self.server("stop server")

    def _write(self, kind: str, event: Mapping[str, Any]) -> None:
        now = self._clock()
        self._flush(now - SUM_SECONDS)
        key, first = self._summed_as(kind, event, int(now // SUM_SECONDS))
        if key in self._sums:
            self._sums[key].more += 1
            return
        if key is not None:
            self._sums[key] = _Sum(now, event, 0 if first else 1)
        if first:
            if event.get("case") and "label" in event["what"] and event["status"] < 400:
                event = {"label": self._label_time(event["case"], event.get("tag", "final")), **event}
            self.log.write(kind, event)

    def _summed_as(self, kind: str, event: Mapping[str, Any], span: int) -> tuple[Hashable, bool]:
        """Return what an event is counted as, None for none, and whether the first of them has a line of its own."""
        place = place_of(str(event["address"]))
        if event["status"] in AT_THE_DOOR:  # whatever was asked for: a client may try as many addresses as it likes
            first = self._has_line_left("refused", span, _REFUSALS)
            return (place if first else "many", event["status"]), first
        if kind == READS:
            names = ("who", "key", "says", "what", "case", "tag", "version", "entry", "status")
            return (place, *(event.get(name) for name in names)), True
        caller = (place, event["who"], event["key"])
        first = self._has_line_left(caller, span, _CHANGES)
        return (None, True) if first else ((caller, event["what"]), False)

    def _has_line_left(self, whose: Hashable, span: int, most: int) -> bool:
        self._lines[whose, span] = self._lines.get((whose, span), 0) + 1
        return bool(self._lines[whose, span] <= most)

    def _flush(self, before: float) -> None:
        """Write the sums that began before a time, and the oldest where there are too many."""
        while self._sums:
            key, oldest = next(iter(self._sums.items()))
            if oldest.began > before and len(self._sums) <= _SUMS:
                return
            del self._sums[key]
            if oldest.more:
                self.log.write(READS, {**oldest.event, "count": oldest.more})


class Audit:
    """Outermost of all that a request passes: also what is refused at the door is an event.

    Args:
        app: what answers.
        auditor: writes the events.
    """

    def __init__(self, app: ASGIApp, auditor: Auditor) -> None:
        self._app = app
        self._auditor = auditor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        action, changes = action_of(scope["method"], get_route_path(scope))
        said: dict[str, Any] = {}
        written = False

        async def write(status: int) -> None:
            nonlocal written
            written = True
            if action is None and status not in AT_THE_DOOR:
                return
            kind = CHANGES if changes and status < 400 else READS
            done = self._auditor.write(kind, _event(scope, action or "request", status, said))
            if kind == CHANGES:
                await asyncio.shield(done)

        async def send_after_writing(message: Message) -> None:
            if message["type"] == "http.response.start" and not written:
                await write(message["status"])
            await send(message)

        token = _said.set(said)
        try:
            await self._app(scope, receive, send_after_writing)
        finally:
            _said.reset(token)
            if not written:  # the server stops, or something went wrong on the way
                await write(500)


def _event(scope: Scope, what: str, status: int, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event of a request; what stands in its body, such as voxels, is no part of it."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    asked = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    if endpoint := scope.get("endpoint"):  # what that does not know it does not go by; who is refused reaches none
        known = inspect.signature(endpoint).parameters
        asked = {key: value for key, value in asked.items() if key in known}
    asked.update({key: str(value) for key, value in scope.get("path_params", {}).items()})
    return {
        "what": what,
        "who": caller.name if caller else None,
        "key": caller.key if caller else None,
        "role": caller.role.name if caller else None,
        "address": scope["client"][0] if scope.get("client") else None,
        "case": next((asked[name] for name in _CASE if asked.get(name)), None),
        **{name: asked[name] for name in _FACTS if asked.get(name)},
        **said,
        "status": status,
    }
