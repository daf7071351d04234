"""The lane of inference: a few run at a time, some wait, and nobody else waits for them.

MONAI Label's addresses are functions that each hold one of 40 threads while they run. Requests for inference, of which
some take minutes, would soon hold them all, and who submits a label would wait for their end. Here they wait without a
thread, so that at most ``at_once`` of the 40 are theirs. Turns go round among the users, and no user takes the last
place: another's first request begins at once. A client that goes away loses its place, or ends its inference.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from contextlib import suppress

from starlette._utils import get_route_path  # what the router itself goes by
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.access.guard import InWords
from lib.errors import BusyError, TooManyWaitingError
from rep3d.errors import InferenceCancelled, Rep3DError

__all__ = ["InferenceLane", "Lane", "Turn"]

_CANCELLED = "The segmentation was cancelled before it began."


class Lane:
    """How many run, who waits, and whose turn is next. Used by one event loop only.

    Args:
        at_once: requests that run at a time.
        waiting: requests that may wait, of all users together.
        waiting_each: requests of one user that may wait.
    """

    def __init__(self, at_once: int, waiting: int, waiting_each: int) -> None:
        self._at_once = at_once
        self._most_each = max(1, at_once - 1)
        self._limits = waiting, waiting_each
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()  # whose turn is next stands first
        self._running: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()  # also those whose body is still on its way

    def enter(self, user: str) -> Turn:
        """Take up a request, before its body is read.

        Raises:
            TooManyWaitingError: if this user has as many waiting as one may have.
            BusyError: if all have.
        """
        most, most_each = self._limits
        if self._waiting[user] >= most_each:
            raise TooManyWaitingError(
                f"{most_each} of your requests wait for inference already, which is as many as may. Try again when "
                f"some are done."
            )
        if self._waiting.total() >= most:
            raise BusyError(f"{most} requests wait for inference already, which is as many as may. Try again later.")
        self._waiting[user] += 1
        return Turn(self, user)

    def queue(self, turn: Turn) -> None:
        """Let a request wait for its turn."""
        self._queues.setdefault(turn.user, deque()).append(turn)
        self._advance()

    def leave(self, turn: Turn) -> None:
        """Take a request out, wherever it is."""
        if turn.running:
            _count_down(self._running, turn.user)
        else:
            _count_down(self._waiting, turn.user)
            queue = self._queues.get(turn.user, deque())
            with suppress(ValueError):
                queue.remove(turn)
            if not queue:
                self._queues.pop(turn.user, None)
        self._advance()

    def _advance(self) -> None:
        while self._running.total() < self._at_once:
            user = next((user for user in self._queues if self._running[user] < self._most_each), None)
            if user is None:
                return
            queue = self._queues[user]
            turn = queue.popleft()
            if queue:
                self._queues.move_to_end(user)
            else:
                del self._queues[user]
            _count_down(self._waiting, user)
            self._running[user] += 1
            turn.begin()


class Turn:
    """One request's way through the lane.

    Attributes:
        user: whose it is.
        running: whether its turn has come.
        gone: set when its client went away; inference asks all the time.
    """

    def __init__(self, lane: Lane, user: str) -> None:
        self.user = user
        self.running = False
        self.gone = threading.Event()
        self._lane = lane
        self._come = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self.client: _Client | None = None

    async def come(self) -> None:
        """Wait until it may run.

        Raises:
            InferenceCancelled: if it is cancelled, or its client goes away, before.
        """
        if self.client is not None:
            await self.client.watch()
        if not self.gone.is_set():
            self._lane.queue(self)
            await self._come.wait()
        if self.gone.is_set():
            raise InferenceCancelled(_CANCELLED)

    def begin(self) -> None:
        """Let it run."""
        self.running = True
        self._come.set()

    def cancel(self) -> None:
        """Give up the place in the lane, or end; from any thread."""
        self._loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.gone.set()
        if not self.running:
            self.end()
            self._come.set()

    def end(self) -> None:
        """Give the place in the lane to the next, once."""
        if not self._ended:
            self._ended = True
            self._lane.leave(self)


class _Client:
    """The one who waits for an answer: the body that it sends, and then whether it is still there."""

    def __init__(self, receive: Receive, turn: Turn) -> None:
        self._receive = receive
        self._turn = turn
        self._complete = False
        self._watcher: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        """Return what the server's own ``receive`` does; the application is given this one."""
        if self._complete:
            assert self._watcher is not None
            await asyncio.shield(self._watcher)
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._turn.leave()
        elif not message.get("more_body", False):
            self._complete = True
            self._watcher = asyncio.create_task(self._watch())
        return message

    async def watch(self) -> None:
        """See to it that the client is watched, also where nothing has read the body."""
        while not self._complete and not self._turn.gone.is_set():
            await self.receive()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._turn.leave()

    def close(self) -> None:
        """End watching."""
        if self._watcher is not None:
            self._watcher.cancel()


class InferenceLane:
    """Takes requests for inference up or refuses them, and frees their place as soon as an answer begins.

    What computes must await ``scope["state"]["turn"].come()`` before.

    Args:
        app: what answers.
        lane: the lane.
        paths: addresses that segment, as routes are written.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, lane: Lane, paths: tuple[str, ...], in_words: InWords) -> None:
        self._app = app
        self._lane = lane
        self._paths = [compile_path(path)[0] for path in paths]
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self._is_inference(get_route_path(scope)):
            await self._app(scope, receive, send)
            return
        try:
            turn = self._lane.enter(_user(scope))
        except Rep3DError as error:
            await self._in_words(Request(scope), error)(scope, receive, send)
            return

        async def send_and_end(message: Message) -> None:
            turn.end()  # the answer is ready: who reads it slowly keeps nobody waiting
            await send(message)

        scope["state"]["turn"] = turn
        client = turn.client = _Client(receive, turn)
        try:
            await self._app(scope, client.receive, send_and_end)
        finally:
            client.close()
            turn.end()

    def _is_inference(self, path: str) -> bool:
        return any(regex.match(path) for regex in self._paths)


def _user(scope: Scope) -> str:
    """Return who asks: by the name of a key, or by address where there are none."""
    caller = scope["state"].get("caller")
    if caller is not None:
        return f"key {caller.name}"
    return f"address {scope['client'][0]}" if scope.get("client") else "unknown"


def _count_down(counter: Counter[str], user: str) -> None:
    counter[user] -= 1
    if not counter[user]:
        del counter[user]
