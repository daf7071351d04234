"""Batch inference over HTTP: progress, stop, resume, also after a kill; people's labels are left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.imaging.grid import same_grid
from rep3d.imaging.nifti import geometry
from tests.app.data import CONF, LABELS, publish_small_model, snapshot, write_image, write_label, write_nifti
from tests.app.server import AppServer

BATCH = "/rep3d/models/rep3d/batch"
SMALL = 3
LARGE = 6  # of about half a second each, so that a run can be stopped in the middle
_LARGE_SHAPE = (64, 64, 64)


def _wait(server: AppServer, wanted: Any, seconds: float = 300) -> dict:
    deadline = time.monotonic() + seconds
    while not wanted(state := server.get(BATCH).json()):
        assert time.monotonic() < deadline, f"{state}\n{server.log[-3000:]}"
        time.sleep(0.05)
    return state


def _ended(state: dict) -> bool:
    return state["phase"] not in ("running", "stopping")


def _start(server: AppServer, **params: Any) -> dict:
    answer = server.post(BATCH, json=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _predictions(studies: Path) -> dict[str, str]:
    return snapshot(studies / "labels" / "batch-rep3d")


def _publish(studies: Path, version: str) -> None:
    """Publish a small model while the server runs, as a training does: the file is replaced at once."""
    path = publish_small_model(studies)
    model = load_checkpoint(path)
    save_checkpoint(path, model.model, model.task, {**model.info, "version": version})
    path.replace(studies / "rep3d" / "models" / "rep3d" / "published.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small and large images, one that cannot be read, one with a final label, one with a strange label."""
    studies = tmp_path_factory.mktemp("batch")
    for number in range(SMALL):
        write_image(studies / f"a_small_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "a_small_0.nii.gz", 0)
    # Somebody's label under the very tag that the predictions get.
    write_label(studies / "labels" / "batch-rep3d" / "a_small_1.nii.gz", 1)
    (studies / "b_broken.nii.gz").write_bytes(b"no image at all")
    noise = np.random.default_rng(0).normal(0, 5, _LARGE_SHAPE).astype(np.int16)
    for number in range(LARGE):
        write_nifti(studies / f"c_large_{number}.nii.gz", noise + number)
    return studies


@pytest.fixture(scope="module")
def server(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server over that folder, without a model at first."""
    running = AppServer(folder, tmp_path_factory.mktemp("scratch"), CONF)
    with running:
        yield running


def test_a_batch_without_a_model_is_refused(server: AppServer) -> None:
    answer = server.post(BATCH)
    assert answer.status_code == 409 and "no trained model yet" in answer.json()["detail"]
    assert server.get(BATCH).json()["phase"] == "never"
    assert server.get("/batch/infer").status_code == 404
    assert server.request("DELETE", "/batch/infer").json() is None


@pytest.mark.parametrize(
    ("path", "params", "status", "words"),
    [
        ("/rep3d/models/other/batch", {}, 404, "There is no model 'other'. Choose one of: rep3d."),
        ("/batch/infer/other", {}, 404, "'other'"),
        (BATCH, {"images": "some"}, 422, "images must be one of unlabeled, all, labeled, not 'some'"),
        (BATCH, {"views": 99}, 422, "views"),
        (BATCH, {"views": "many"}, 422, "views"),
        (BATCH, {"again": 1}, 422, "again must be true or false"),
        (BATCH, {"label_tag": "final"}, 422, "under the tag 'batch-rep3d' only"),
        (BATCH, {"tempo": "fast"}, 422, "no setting tempo"),
        ("/batch/infer/rep3d?run_sync=true", {}, 422, "run_sync"),
    ],
)
def test_what_cannot_be_done_is_refused(server: AppServer, path: str, params: dict, status: int, words: str) -> None:
    answer = server.post(path, json=params)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


def test_progress_stop_resume_and_what_stays_as_it_was(server: AppServer, folder: Path) -> None:
    _publish(folder, "v1")
    final = snapshot(folder / "labels" / "final")
    strange = (folder / "labels" / "batch-rep3d" / "a_small_1.nii.gz").read_bytes()

    begun = _start(server)
    assert begun["version"] == "v1" and begun["total"] == SMALL - 1 + 1 + LARGE
    refused = server.post(BATCH)
    assert refused.status_code == 409 and "is running already" in refused.json()["detail"]
    assert server.post("/batch/infer/rep3d").status_code == 409
    midway = _wait(server, lambda state: state["done"] >= 2)
    assert midway["phase"] == "running" and midway["current"].startswith("c_large") and midway["eta_seconds"] > 0

    asked = time.monotonic()
    stopped = server.request("DELETE", BATCH).json()
    assert stopped["phase"] == "stopped" and time.monotonic() - asked < 5
    assert "Start it again to go on" in stopped["error"]
    assert 2 <= stopped["done"] < LARGE + 1
    assert server.post("/infer/rep3d", params={"image": "a_small_2", "output": "json"}).status_code == 200
    before = _predictions(folder)
    assert len(before) == stopped["done"] + 1  # and the strange label

    _start(server)
    done = _wait(server, _ended)
    assert done["phase"] == "done", done
    assert done["kept"] == stopped["done"] and done["done"] + done["kept"] == LARGE + 1
    assert set(done["failed"]) == {"b_broken", "a_small_1"}
    assert "no batch inference made" in done["failed"]["a_small_1"]
    after = _predictions(folder)
    assert before.items() <= after.items(), "what was done before the stop was done again"

    assert snapshot(folder / "labels" / "final") == final
    assert (folder / "labels" / "batch-rep3d" / "a_small_1.nii.gz").read_bytes() == strange
    file = folder / "labels" / "batch-rep3d" / "c_large_0.nii.gz"
    assert same_grid(geometry(file), geometry(folder / "c_large_0.nii.gz"))
    assert set(np.unique(np.asarray(nib.load(file).dataobj))) <= {0, *LABELS.values()}
    info = server.get("/datastore/label/info", params={"label": "c_large_0", "tag": "batch-rep3d"}).json()
    assert info["version"] == "v1" and info["model"] == "rep3d" and set(info["params"]["volumes_ml"]) == set(LABELS)
    case = server.get("/rep3d/cases/c_large_0").json()
    assert case["state"] == "predicted" and case["predicted"]["version"] == "v1"


def test_monai_labels_own_address_starts_the_same(server: AppServer, folder: Path) -> None:
    before = _predictions(folder)
    task = server.post("/batch/infer/rep3d", params={"images": "unlabeled"}, json={"device": "cpu"}).json()
    assert task["status"] in ("RUNNING", "DONE") and task["request"]["model"] == "rep3d"
    state = _wait(server, _ended)
    assert state["phase"] == "done" and state["done"] == 0 and state["kept"] == LARGE + 1
    assert server.get("/batch/infer").json()["status"] == "DONE"
    assert server.get("/batch/infer?check_if_running=true").status_code == 404
    assert _predictions(folder) == before


@pytest.mark.slow
def test_a_newer_version_replaces_predictions_into_the_history_and_a_killed_run_is_resumed(
    server: AppServer, folder: Path, tmp_path: Path
) -> None:
    _publish(folder, "v1")
    _start(server)  # makes the first version's predictions, unless an earlier test has done so
    assert _wait(server, _ended)["phase"] == "done"
    _publish(folder, "v2")
    old = _predictions(folder)
    _start(server)
    _wait(server, lambda state: state["done"] >= 3)  # by now the file that outlives the server knows of two
    os.kill(server.pid, signal.SIGKILL)
    with AppServer(folder, tmp_path, CONF) as anew:
        state = anew.get(BATCH).json()
        assert state["phase"] == "stopped" and "The server ended" in state["error"] and state["done"] >= 2
        _start(anew)
        done = _wait(anew, _ended)
        assert done["phase"] == "done" and done["version"] == "v2"
        assert done["kept"] >= 2 and done["kept"] + done["done"] == LARGE + 1
        entries = anew.get("/rep3d/cases/c_large_0/history").json()
        earlier = [entry for entry in entries if entry["tag"] == "batch-rep3d"]
        assert len(earlier) == 1 and earlier[0]["entry"]
    kept = folder / "rep3d" / "history" / "c_large_0" / earlier[0]["file"]
    assert snapshot(kept.parent)[kept.name] == old["c_large_0.nii.gz"]
