"""A server that outlived its Slicer: watched, and ended in order or by force."""

from __future__ import annotations

from pathlib import Path

import pytest
from Rep3DLabelLib.local.launcher import AdoptedServer, Launcher
from Rep3DLabelLib.local.notes import Leftover
from Rep3DLabelLib.settings import LocalChoice


class Still(Leftover):
    """A server that ends when a test wants it to."""

    alive = True
    ended: list[bool]

    def is_alive(self) -> bool:
        return self.alive

    def end(self, by_force: bool = False) -> bool:
        self.ended.append(by_force)
        return True


@pytest.fixture
def left() -> Still:
    still = Still("http://127.0.0.1:5", 1, "/images", "mark")
    object.__setattr__(still, "ended", [])
    return still


def test_it_is_running_until_it_is_gone(left: Still) -> None:
    time = [0.0]
    server = AdoptedServer(left, lambda: time[0])
    assert server.poll() == "running" and server.url == left.url and "/images" in server.message
    object.__setattr__(left, "alive", False)
    assert server.poll() == "running"  # it looks once a second
    time[0] = 1.5
    assert server.poll() == "stopped" and server.log_lines(5) == []


def test_it_is_asked_to_end_and_made_to_after_a_while(left: Still) -> None:
    time = [0.0]
    server = AdoptedServer(left, lambda: time[0])
    server.stop()
    server.stop()
    assert server.poll() == "stopping" and left.ended == [False]
    time[0] = 30.0
    server.poll()
    assert left.ended == [False, True]


def test_without_notes_nothing_is_found_and_a_new_one_is_made(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path / "none")
    assert launcher.leftover() is None
    assert launcher.make(LocalChoice("python", "", str(tmp_path), "a")).state == "stopped"
