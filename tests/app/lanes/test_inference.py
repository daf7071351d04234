"""The lane of inference: who runs, who waits, who is refused, and that a place is always given back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.errors import BusyError, TooManyWaitingError
from lib.lanes.inference import InferenceLane, Lane, Turn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from rep3d.errors import InferenceCancelled


class _Waiters:
    """Requests that wait in a lane, and the order in which their turns come."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.turns: list[Turn] = []
        self.came: list[Turn] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def ask(self, user: str) -> Turn:
        turn = self.lane.enter(user)
        self.turns.append(turn)
        self._tasks.append(asyncio.create_task(self._wait(turn)))
        await asyncio.sleep(0)
        return turn

    async def _wait(self, turn: Turn) -> None:
        with contextlib.suppress(InferenceCancelled):
            await turn.come()
            self.came.append(turn)

    async def settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def users(self) -> list[str]:
        return [turn.user for turn in self.came]


def test_turns_go_round_and_nobody_takes_the_last_place() -> None:
    async def run() -> None:
        waiters = _Waiters(Lane(3, 100, 100))
        for user in "aaaaaaaa":
            await waiters.ask(user)
        assert waiters.users == ["a", "a"]
        for user in "bbbbcc":
            await waiters.ask(user)
        assert waiters.users == ["a", "a", "b"]
        for ended in range(len(waiters.turns)):
            waiters.came[ended].end()
            await waiters.settle()
        assert waiters.users[:6] == list("aababc")  # each in turn, although six of a's came first
        assert Counter(waiters.users) == Counter("aaaaaaaabbbbcc")

    asyncio.run(run())


def test_more_than_may_wait_are_refused() -> None:
    async def run() -> None:
        waiters = _Waiters(Lane(1, 3, 2))
        for user in "aaa":
            await waiters.ask(user)
        with pytest.raises(TooManyWaitingError, match="2 of your requests wait"):
            waiters.lane.enter("a")
        await waiters.ask("b")
        with pytest.raises(BusyError, match="3 requests wait"):
            waiters.lane.enter("c")
        waiters.turns[-1].leave()
        waiters.lane.enter("c")  # before its body was read, it counts

    asyncio.run(run())


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ask", "end", "leave"])), max_size=40))
def test_places_are_neither_lost_nor_given_twice(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        waiters = _Waiters(Lane(2, 8, 5))
        for user, step in steps:
            if step == "ask":
                with contextlib.suppress(BusyError):
                    await waiters.ask(user)
            for turn in [turn for turn in waiters.turns if turn.user == user][:1] if step != "ask" else []:
                if step == "leave":
                    turn.leave()  # one that runs keeps its place until it has ended
                if step == "end" or not turn.running:
                    turn.end()
                    turn.end()
                    waiters.turns.remove(turn)
            await waiters.settle()
            running = [turn for turn in waiters.turns if turn.running]
            assert len(running) <= 2
            waiting = {turn.user for turn in waiters.turns if not turn.running}
            taken = Counter(turn.user for turn in running)
            assert len(running) == 2 or all(taken[user] >= 1 for user in waiting)  # none waits beside a free place
        for turn in waiters.turns:
            turn.end()
        await waiters.settle()
        assert waiters.lane._running == waiters.lane._waiting == Counter() and not waiters.lane._queues

    asyncio.run(run())


def _lane_before(application: Callable[[Scope, Receive, Send], Awaitable[None]], lane: Lane) -> InferenceLane:
    return InferenceLane(application, lane, ("/infer/{model}",), lambda _, error: PlainTextResponse(str(error), 429))


def test_a_body_that_nothing_reads_does_not_skip_the_lane() -> None:
    """A form without its type is not read by Starlette, so that the turn itself has to look at the client."""

    async def run() -> None:
        gone = asyncio.Event()
        ended: list[str] = []

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            turn = Request(scope).state.turn
            try:
                await turn.come()
            except InferenceCancelled:
                ended.append("cancelled")

        async def receive() -> Message:
            if not received:
                received.append(1)
                return {"type": "http.request", "body": b"{}", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None: ...

        received: list[int] = []
        lane = Lane(1, 8, 8)
        first = lane.enter("other")
        await first.come()
        scope = {"type": "http", "method": "POST", "path": "/infer/a", "state": {}, "client": ("x", 1), "headers": []}
        task = asyncio.create_task(_lane_before(application, lane)(scope, receive, send))
        await asyncio.sleep(0.01)
        assert not task.done()
        gone.set()
        await asyncio.wait_for(task, 2)
        assert ended == ["cancelled"] and not lane._waiting

    asyncio.run(run())
