"""kill -9, of a training and of its server: the published version answers, and the training goes on where it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from rep3d.versions.store import VersionStore
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer


def _store(server: AppServer) -> VersionStore:
    return VersionStore(server.studies / "rep3d" / "models" / "rep3d")


def _wait(what: Callable[[], Any], seconds: float = 300) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def _child(server: AppServer) -> psutil.Process:
    (child,) = [p for p in psutil.Process(server.pid).children() if "train" in p.cmdline()]
    return child


@pytest.mark.skipif(os.name == "nt", reason="needs SIGTERM")
def test_a_server_that_is_asked_to_end_does_not_wait_for_its_training(tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    scratch.mkdir()
    write_image(studies / "case_0.nii.gz")
    write_label(studies / "labels" / "final" / "case_0.nii.gz")
    with AppServer(studies, scratch, CONF) as server:
        assert server.post("/train/rep3d", json={"iterations": 100_000, "max_minutes": 5, "score_minutes": 0}).ok
        _wait(lambda: server.train_stats()["iteration"])
        family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        family[0].terminate()  # it alone, as `kill` and `docker stop` do
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.slow
def test_killed_training_and_killed_server_lose_nothing(tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    scratch.mkdir()
    write_image(studies / "case_0.nii.gz")
    write_label(studies / "labels" / "final" / "case_0.nii.gz")
    publish_small_model(studies)
    snapshot = studies / "rep3d" / "models" / "rep3d" / "run" / "state" / "run.pt"
    request = {"iterations": 100_000, "max_minutes": 0.6, "score_minutes": 0}
    with AppServer(studies, scratch, CONF, forked=False) as server:
        published = (_store(server).root / "published.pt").read_bytes()
        assert server.post("/train/rep3d", json=request).ok
        _wait(snapshot.exists)
        # The training process is killed: the server says so within seconds, and what it did is not lost.
        _child(server).kill()
        stats = _wait(lambda: (s := server.train_stats())["phase"] == "interrupted" and s, seconds=5)
        assert stats["resumable"]["settings"]["max_minutes"] == 0.6
        assert server.post("/train/rep3d", json={"resume": True}).ok
        stats = _wait(lambda: (s := server.train_stats())["resumed_from"] and s)
        assert stats["iterations"] == 100_000
        assert stats["elapsed_seconds"] > 5
        assert stats["losses"][0][0] < stats["resumed_from"]
        # The server is killed: its training ends with it.
        child = _child(server)
        psutil.Process(server.pid).kill()
        child.wait(15)
    assert (_store(server).root / "published.pt").read_bytes() == published
    with AppServer(studies, scratch, CONF) as server:
        stats = server.train_stats()
        assert (stats["phase"], "server" in stats["error"]) == ("interrupted", True)
        answer = server.post("/infer/rep3d", params={"image": "case_0", "output": "json"})
        assert answer.json()["version"] == "v1"
        # The same request goes on by itself.
        assert server.post("/train/rep3d", json=request).ok
        stats = server.wait_for_training()
        assert stats["phase"] == "done", stats
        assert stats["resumed_from"] > 0
        made = _store(server).get("v2")
        assert made.stopped == "max_minutes"
        assert made.minutes is not None and made.minutes == pytest.approx(0.6, abs=0.15)
        assert made.decision is not None and made.decision["published"] and not made.decision["measured"]
        assert "fewer than 5 annotated cases" in made.decision["reason"]
        assert (_store(server).published(), snapshot.exists()) == ("v2", False)
