"""A studies folder that release 0.1.0 wrote is opened as it was: see ``tests/data/studies_0_1_0/make.py``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rep3d.checkpoint import load_checkpoint
from tests.app.data import snapshot
from tests.app.old_studies import ANSWERS, OLD, old_studies
from tests.app.server import AppServer

MODEL = "/rep3d/models/rep3d"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Today's server on the old folder, started without any setting but the device."""
    studies = old_studies(tmp_path_factory.mktemp("old") / "studies")
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {"device": "cpu"}) as running:
        yield running


def _wait(what: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def _as_told_then(now: Any, then: Any) -> Any:
    """Return an answer without the keys that did not exist then: what is new is no change of what was."""
    if isinstance(now, dict) and isinstance(then, dict):
        return {key: _as_told_then(value, then[key]) for key, value in now.items() if key in then}
    if isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        return [_as_told_then(*pair) for pair in zip(now, then, strict=True)]
    return now


def test_every_label_is_there(server: AppServer) -> None:
    before = snapshot(OLD / "studies")
    now = snapshot(server.studies)
    voxels = {file: digest for file, digest in before.items() if ".nii" in file}
    assert len(voxels) == 31
    assert {file: now.get(file) for file in voxels} == voxels


def test_all_is_known_as_before(server: AppServer) -> None:
    _wait(lambda: all(case["labels"] or "final" not in case["tags"] for case in server.get("/rep3d/cases").json()))
    for address, before in ANSWERS.items():
        assert _as_told_then(server.get(address).json(), before) == before, address
    info = server.get("/info/").json()["rep3d"]
    assert (info["labels"], info["version"]) == ({"head": 1, "tail": 3}, "v2")
    kept = json.loads((server.studies / "rep3d" / "labels.json").read_text(encoding="utf-8"))
    assert kept["labels"] == {"head": 1, "tail": 3, "cyst": 5}


def test_the_old_model_answers_and_learns_on(server: AppServer) -> None:
    answer = server.post("/infer/rep3d", params={"image": "case_6", "output": "json"}).json()
    assert answer["version"] == "v2"
    # The training that was killed goes on where it was.
    stats = server.train_stats()
    assert (stats["phase"], stats["resumable"]["trained"]) == ("interrupted", False)
    assert server.post("/train/rep3d", json={"resume": True}).ok
    stats = _wait(lambda: (s := server.train_stats())["resumed_from"] and s["iteration"] > s["resumed_from"] and s, 20)
    assert (stats["phase"], stats["resumed_from"] > 0) == ("training", True)
    assert server.request("DELETE", "/train/").ok
    # Another one begins from the published version, with the roles that cases have.
    assert server.post("/train/rep3d", json={"resume": False, "iterations": 2, "score_minutes": 0}).ok
    assert server.wait_for_training()["phase"] == "done"
    made = server.get(f"{MODEL}/versions/v3").json()
    assert (made["parent"], made["validation_cases"], made["compared_with"]) == ("v2", ["case_2"], "v2")
    assert made["cases"] == ["case_0", "case_1", "case_3", "case_4", "case_5"]
    versions = server.studies / "rep3d" / "models" / "rep3d" / "versions"
    assert [load_checkpoint(versions / name / "model.pt").version for name in ("v1", "v2", "v3")] == ["v1", "v2", "v3"]
