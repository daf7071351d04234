"""The loop: segment, correct, submit, train, segment better; over HTTP, with the training in its own process."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from requests_toolbelt.multipart.decoder import MultipartDecoder

from rep3d.audit import AuditLog
from rep3d.checkpoint import read_checkpoint_task
from rep3d.imaging.grid import same_grid
from rep3d.imaging.nifti import geometry
from tests.app.data import CONF, publish_small_model, unchanged, write_image, write_label
from tests.app.server import AppServer

QUICK = {"iterations": 2, "score_minutes": 1}


def _wait_for_phase(server: AppServer, phase: str) -> None:
    deadline = time.monotonic() + 120
    while server.train_stats().get("phase") != phase:
        assert time.monotonic() < deadline, server.log[-3000:]
        time.sleep(0.1)


def _published(studies: Path) -> Path:
    return studies / "rep3d" / "models" / "rep3d" / "published.pt"


def _segment(server: AppServer, image: str) -> dict:
    answer = server.post("/infer/rep3d", params={"image": image, "output": "json"})
    assert answer.status_code == 200, answer.text
    return answer.json()


def _parts(answer: requests.Response) -> dict[str, bytes]:
    assert answer.status_code == 200, answer.text
    parts = MultipartDecoder.from_response(answer).parts
    return {p.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0].decode(): p.content for p in parts}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with a small published model, four images, and a final label for the first."""
    studies = tmp_path_factory.mktemp("loop")
    for number in range(4):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as server:
        yield server


@pytest.mark.slow
def test_from_a_data_set_to_a_first_model(tmp_path: Path) -> None:
    # No --conf at all: labels and images are found by the data set's own description.
    studies, scratch = tmp_path / "Task04", tmp_path / "scratch"
    scratch.mkdir()
    labels = {"0": "background", "1": "head", "3": "tail"}
    for name in ("a.nii.gz.b.nii.gz", "case_0.nii.gz", "._case_0.nii.gz"):
        write_image(studies / "imagesTr" / name)
    (studies / "dataset.json").write_text(json.dumps({"labels": labels, "modality": {"0": "MRI"}}))
    with AppServer(studies, scratch) as server:
        # Hidden files are no images, and a suffix within a name is part of the name.
        assert set(server.get("/datastore/?output=all").json()["objects"]) == {"a.nii.gz.b", "case_0"}
        assert server.get("/info/").json()["rep3d"]["labels"] == {"head": 1, "tail": 3}

        answer = server.post("/infer/rep3d", params={"image": "case_0"})
        assert (answer.status_code, "no trained model yet" in answer.json()["detail"]) == (409, True)
        sample = server.post("/activelearning/uncertainty", json={}).json()
        assert (sample["used_strategy"], sample["reason"]) == ("random", "no trained model yet: chosen at random")

        label = write_label(tmp_path / "label.nii.gz", 0).read_bytes()
        assert server.put("/datastore/label", params={"image": "case_0"}, files={"label": ("l.nii.gz", label)}).ok
        started = server.post("/train/rep3d", json={"iterations": 1, "score_minutes": 0})
        assert started.json()["status"] in ("SUBMITTED", "RUNNING")
        stats = server.wait_for_training()
        assert (stats["phase"], stats["version"], stats["cases"], stats["error"]) == ("done", "v1", 1, None)
        assert _segment(server, "a.nii.gz.b")["version"] == "v1"
        log = [(event["what"], event["who"]) for event in AuditLog(studies / "rep3d").events() if "who" in event]
        assert {("publish", "training"), ("training ended", "training"), ("start server", "server")} <= set(log)
    task, info = read_checkpoint_task(_published(studies))
    assert (dict(task.labels), info["cases"], info["preset"]) == ({"head": 1, "tail": 3}, ["case_0"], "tiny")
    assert (studies / "labels" / "final" / "case_0.nii.gz").read_bytes() == label


def test_segmentation_lies_on_the_image(running: AppServer, tmp_path: Path) -> None:
    with unchanged(running.studies / "labels"):
        parts = _parts(running.post("/infer/rep3d", params={"image": "case_1", "output": "all"}))
    params = json.loads(parts["params"])
    result = tmp_path / "result.nii.gz"
    result.write_bytes(parts["image"])
    assert same_grid(geometry(result), geometry(running.studies / "case_1.nii.gz"))
    values = np.asanyarray(nib.load(result).dataobj)
    assert set(np.unique(values)) <= {0, 1, 3}
    assert params["label_names"] == {"head": 1, "tail": 3}
    assert params["version"] == "v1"
    voxel_ml = geometry(result).voxel_ml
    assert params["volumes_ml"]["tail"] == pytest.approx((values == 3).sum() * voxel_ml, abs=1e-3)
    assert 0 <= params["uncertainty"] <= 1
    assert {"read", "network", "write", "total"} <= set(params["latencies"])


def test_upload_is_segmented_and_forgotten(running: AppServer) -> None:
    file = (running.studies / "case_2.nii.gz").read_bytes()
    with unchanged(running.studies):
        parts = _parts(running.post("/infer/rep3d?output=all", files={"file": ("mine.nii.gz", file)}))
    stored = _parts(running.post("/infer/rep3d", params={"image": "case_2", "output": "all"}))
    assert parts["image"] == stored["image"]


def test_session_image_is_segmented(running: AppServer) -> None:
    file = (running.studies / "case_2.nii.gz").read_bytes()
    session = running.put("/session/", files={"files": ("mine.nii.gz", file)}).json()["session_id"]
    answer = running.post("/infer/rep3d", params={"session_id": session, "output": "json"})
    assert answer.json()["version"] == "v1"
    assert running.put("/session/?uncompress=true", files={"files": ("a.zip", b"PK")}).status_code == 422


def test_requests_at_once_do_not_mix(running: AppServer) -> None:
    names = [f"case_{number}" for number in range(4)]
    alone = {name: _segment(running, name)["volumes_ml"] for name in names}
    assert len({json.dumps(volumes) for volumes in alone.values()}) > 1
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda name: (name, _segment(running, name)["volumes_ml"]), names * 3))
    assert all(alone[name] == volumes for name, volumes in together)


def test_damaged_file_put_in_place_answers_nothing_until_a_version_is_published(running: AppServer) -> None:
    published = _published(running.studies)
    published.unlink()
    published.write_bytes(b"half a file")
    for path in ("/infer/rep3d?image=case_1", "/train/rep3d"):
        answer = running.post(path)
        assert (answer.status_code, "Move it away" in answer.json()["detail"]) == (409, True)
    assert "Move it away" in running.get("/info/").json()["rep3d"]["error"]
    versions = running.get("/rep3d/models/rep3d/versions").json()
    assert (versions["published"], [v["version"] for v in versions["versions"]]) == (None, ["v1"])
    assert "Move it away" in versions["error"]
    assert running.post("/rep3d/models/rep3d/versions/v1/publish").ok
    assert _segment(running, "case_1")["version"] == "v1"


def test_stopped_training_publishes_nothing(running: AppServer) -> None:
    published = _published(running.studies)
    before = published.read_bytes()
    assert running.post("/train/rep3d", json={"iterations": 100_000, "max_minutes": 30}).ok
    assert running.train_stats()["phase"] == "starting"
    again = running.post("/train/rep3d", json={})
    assert (again.status_code, "running already" in again.json()["detail"]) == (409, True)
    _wait_for_phase(running, "training")
    assert _segment(running, "case_1")["version"] == "v1"  # the server goes on answering
    stats = running.train_stats()
    assert stats["iterations"] == 100_000
    assert stats["device"] == "cpu"
    assert running.request("DELETE", "/train/").json()["status"] == "STOPPED"
    stats = running.train_stats()
    assert (stats["phase"], stats["error"]) == ("stopped", "Stopped on request.")
    assert published.read_bytes() == before


def test_next_model_is_used_without_a_restart(running: AppServer) -> None:
    bad = running.studies / "labels" / "final" / "case_1.nii.gz"
    bad.write_text("put here by hand")
    try:
        running.post("/infer/rep3d?image=case_1")
        deadline = time.monotonic() + 10
        while running.get("/datastore/").json()["completed"] < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert running.post("/train/rep3d", json=QUICK).ok
        stats = running.wait_for_training()
    finally:
        bad.unlink()
    assert (stats["phase"], stats["version"], stats["cases"], stats["error"]) == ("done", "v2", 1, None)
    assert stats["iteration"] == 2
    assert stats["loss"] > 0
    assert "NIfTI" in stats["skipped"]["case_1"]
    assert _segment(running, "case_2")["version"] == "v2"
    assert running.get("/info/").json()["rep3d"]["version"] == "v2"
    _, info = read_checkpoint_task(_published(running.studies))
    assert (info["parent"], info["cases"]) == ("v1", ["case_0"])

    scores = json.loads((_published(running.studies).parent / "scores.json").read_text())
    assert scores["version"] == "v2"
    assert {"case_2", "case_3"} <= set(scores["scores"])
    sample = running.post("/activelearning/uncertainty", json={}).json()
    assert sample["used_strategy"] == "uncertainty"
    assert sample["score"] == max(score["entropy"] for name, score in scores["scores"].items() if name != "case_0")


def test_scoring_on_request(running: AppServer) -> None:
    file = _published(running.studies).parent / "scores.json"
    file.unlink(missing_ok=True)
    assert running.post("/scoring/uncertainty").ok
    deadline = time.monotonic() + 120
    while running.get("/scoring/").json()["status"] in ("SUBMITTED", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert running.get("/scoring/").json()["status"] == "DONE"
    unlabelled = set(running.get("/datastore/?output=all").json()["objects"]) - {"case_0"}
    assert set(json.loads(file.read_text())["scores"]) == unlabelled
