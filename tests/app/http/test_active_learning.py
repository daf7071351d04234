"""Active learning over HTTP: scores appear by themselves, survive a restart, and are never another model's."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from rep3d.active.strategies import STRATEGIES
from rep3d.checkpoint import load_checkpoint, save_checkpoint
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer

CASES = 4


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images, a final label for the first, a small published model without any scores."""
    folder = tmp_path_factory.mktemp("learning")
    for number in range(CASES):
        write_image(folder / f"case_{number}.nii.gz", number)
    write_label(folder / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def server(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF, scores_by_itself=True) as running:
        yield running


def _place(studies: Path) -> Path:
    return studies / "rep3d" / "models" / "rep3d"


def _scores(studies: Path) -> dict[str, Any]:
    file = _place(studies) / "scores.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _wait(what: Callable[[], bool], server: AppServer, seconds: float = 480) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, server.log[-4000:]
        time.sleep(0.2)


def _complete(studies: Path, version: str, images: set[str]) -> bool:
    content = _scores(studies)
    measures = [set(score) for score in content.get("scores", {}).values()]
    known = images <= set(content.get("scores", {}))
    return content.get("version") == version and known and all(len(found) == 3 for found in measures)


def _ask(server: AppServer, strategy: str, **request: Any) -> dict[str, Any]:
    answer = server.post(f"/activelearning/{strategy}", json=request)
    assert answer.status_code == 200, answer.text
    server.request("DELETE", f"/rep3d/leases/{answer.json()['id']}")
    return dict(answer.json())


def test_every_strategy_is_described(server: AppServer) -> None:
    found = server.get("/info/").json()["strategies"]
    assert {name: found[name]["description"] for name in found} == dict(STRATEGIES)
    assert "uncertainty" in server.get("/info/").json()["scoring"]
    unknown = server.post("/activelearning/best", json={})
    assert unknown.status_code == 404 and "hybrid" in unknown.json()["detail"]


def test_missing_scores_are_computed_in_the_background_at_low_priority(server: AppServer, studies: Path) -> None:
    seen: list[int] = []

    def scored() -> bool:
        for child in psutil.Process(server.pid).children(recursive=True):
            try:
                if "scoring" in child.cmdline():
                    seen.append(int(child.nice()))
            except psutil.NoSuchProcess:
                pass
        return _complete(studies, "v1", {"case_1", "case_2", "case_3"})

    _wait(scored, server)
    assert max(seen) >= 10
    assert (_place(studies) / "features.npz").exists()
    for strategy in ("entropy", "margin", "tta", "coreset", "hybrid", "uncertainty"):
        sample = _ask(server, strategy)
        assert (sample["used_strategy"], sample["version"]) == (strategy, "v1"), sample
        assert "reason" not in sample
    scores = _scores(studies)["scores"]
    best = max((id_ for id_ in scores if id_ != "case_0"), key=lambda id_: scores[id_]["variance"])
    assert _ask(server, "tta")["id"] == best


def test_new_images_are_scored_too(server: AppServer, studies: Path, tmp_path: Path) -> None:
    _wait(lambda: _complete(studies, "v1", {"case_1"}), server)
    image = write_image(tmp_path / "late.nii.gz", 9).read_bytes()
    assert server.put("/datastore/?image=late", files={"file": ("late.nii.gz", image)}).ok
    _wait(lambda: _complete(studies, "v1", {"late"}), server)


def test_scores_of_the_old_model_do_not_count_for_a_new_one(server: AppServer, studies: Path) -> None:
    _wait(lambda: _complete(studies, "v1", {"case_1"}), server)
    published = _place(studies) / "published.pt"
    checkpoint = load_checkpoint(published)
    save_checkpoint(published, checkpoint.model, checkpoint.task, {**checkpoint.info, "version": "v9"})
    first = _ask(server, "entropy")
    if first["used_strategy"] != "entropy":  # the background had no time yet
        assert first["used_strategy"] == "random" and "no scores of the published model yet" in first["reason"]
        assert "score" not in first
    else:
        assert first["version"] == "v9"
    _wait(lambda: _complete(studies, "v9", {"case_1", "case_2", "case_3"}), server)
    assert _ask(server, "entropy")["version"] == "v9"


def test_scores_survive_a_restart(studies: Path, server: AppServer, tmp_path: Path) -> None:
    _wait(lambda: bool(_scores(studies)), server)
    copy = tmp_path / "studies"
    shutil.copytree(studies, copy, ignore=shutil.ignore_patterns("*.lock", ".lock"))
    before = _scores(copy)
    (tmp_path / "scratch").mkdir()
    with AppServer(copy, tmp_path / "scratch", CONF) as again:
        sample = _ask(again, "hybrid")
    assert (sample["used_strategy"], sample["version"]) == ("hybrid", before["version"])
    assert _scores(copy) == before
