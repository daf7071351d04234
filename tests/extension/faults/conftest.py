"""A server that misbehaves on request, and a clinician in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from Rep3DLabelLib.workflow import connecting, editing

from tests.extension.fault_server import FaultServer

if TYPE_CHECKING:  # it needs the bench, without which this folder must still be read
    from tests.extension.troubled import TroubledClinician


@pytest.fixture
def server() -> Iterator[FaultServer]:
    fake = FaultServer()
    yield fake
    fake.die()


@pytest.fixture
def person(bench, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> TroubledClinician:
    from tests.extension.troubled import TroubledClinician

    monkeypatch.setattr(editing, "_IDLE", 0.1)
    monkeypatch.setattr(connecting, "_RETRY_SECONDS", 0.5)
    return TroubledClinician(bench)
