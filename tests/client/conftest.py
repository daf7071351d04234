"""A server on this computer that misbehaves on request, and a client of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from Rep3DLabelLib.client import Rep3DClient, Timeouts

from tests.fake_server import FakeServer


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


@pytest.fixture
def connect(server: FakeServer) -> Callable[..., Rep3DClient]:
    """Make a client of the fake server; a time limit not given is short."""

    def make(**settings: object) -> Rep3DClient:
        short = {"connect": 1.0, "read": 1.0, "action": 1.0, "infer": 1.0, "transfer": 1.0, "send": 1.0}
        short.update(settings.pop("timeouts", {}))  # type: ignore[call-overload]
        return Rep3DClient(server.url, timeouts=Timeouts(**short), **settings)  # type: ignore[arg-type]

    return make


@pytest.fixture
def client(connect: Callable[..., Rep3DClient]) -> Rep3DClient:
    return connect()
