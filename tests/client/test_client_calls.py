"""Cases, versions, batches, running requests and DICOM by the client: what is sent, and what is made of the answers."""

from __future__ import annotations

import json
import os

import pytest
from Rep3DLabelLib.client.answers_status import parse_batch
from Rep3DLabelLib.errors import (
    BadAnswer,
    ConflictError,
    InvalidRequestError,
    LocalProblem,
    ServerFailed,
)

CASE = {
    "id": "case_1",
    "state": "submitted",
    "lease": {"user": "anna", "since": "2026-01-01T10:00:00.000+00:00", "until": "2026-01-01T11:00:00.000+00:00"},
    "score": 0.25,
    "labels": {"liver": {"voxels": 10, "ml": 1.5}, "spleen": {"voxels": 3, "ml": None}},
    "author": "anna",
    "time": "2026-01-01T09:00:00+00:00",
    "tags": ["final", "original"],
    "role": "training",
    "prediction": {"dice": {"liver": 0.8, "spleen": 0.6, "cyst": None}},
}


def body(request):
    return json.loads(request.body)


# ---- cases


def test_cases(server, client):
    bare = {"id": "b", "state": "new", "lease": None, "score": None, "labels": None, "author": None, "tags": []}
    odd = {"id": "c", "state": "unusable", "error": "It has two channels."}
    server.on("GET", "/rep3d/cases", [CASE, bare, odd])
    one, two, three = client.cases()
    assert (three.state, three.error, one.error, two.error) == ("unusable", "It has two channels.", "", "")
    assert (one.id, one.state, one.author, one.score) == ("case_1", "submitted", "anna", 0.25)
    assert (one.tags, one.role, one.dice) == (("final", "original"), "training", pytest.approx(0.7))
    assert one.labels == {"liver": 1.5, "spleen": None} and one.lease.user == "anna"
    assert (two.labels, two.lease, two.score, two.author, two.time) == (None, None, None, "", "")
    assert server.received[-1].query == {}
    client.cases("kits")
    assert server.received[-1].query == {"model": "kits"}


@pytest.mark.parametrize("answer", [None, {}, [1], [{"id": 3, "state": "new"}], [{"id": "a"}]])
def test_what_are_no_cases_is_refused(server, client, answer):
    server.on("GET", "/rep3d/cases", answer)
    with pytest.raises(BadAnswer):
        client.cases()


def test_history(server, connect):
    client = connect(client_id="anna")
    entries = [
        {"entry": None, "tag": "final", "author": "ben", "time": "t2", "reason": "current"},
        {"entry": "final-1", "tag": "final", "author": None, "time": "t1", "reason": "replaced"},
    ]
    server.on("GET", "/rep3d/cases/a/history", entries)
    now, before = client.history("a")
    assert (now.entry, now.author, now.reason) == (None, "ben", "current")
    assert (before.entry, before.author, before.time) == ("final-1", "", "t1")
    server.on("POST", "/rep3d/cases/a/history/final-1/restore", {"image": "a", "label": "a", "duplicate": True})
    assert client.restore("a", "final-1").duplicate
    assert body(server.received[-1]) == {"client_id": "anna"}
    for bad in (None, {}, ["x"]):
        server.on("GET", "/rep3d/cases/a/history", bad)
        with pytest.raises(BadAnswer):
            client.history("a")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_names_that_lead_elsewhere_are_not_sent(server, client, name):
    for call in (client.history, client.review, client.take_lease, client.release_lease, client.cancel):
        with pytest.raises(LocalProblem):
            call(name)
    with pytest.raises(LocalProblem):
        client.restore("a", name)
    with pytest.raises(LocalProblem):
        client.publish("rep3d", name)
    assert not server.received


def test_review_and_lease(server, connect):
    client = connect(client_id="anna")
    server.on("POST", "/rep3d/cases/case_1/review", {**CASE, "state": "reviewed"})
    server.on("DELETE", "/rep3d/cases/case_1/review", CASE)
    assert client.review("case_1").state == "reviewed" and body(server.received[-1]) == {"client_id": "anna"}
    assert client.take_review_back("case_1").state == "submitted"
    lease = {"image": "case_1", **CASE["lease"]}
    server.on("POST", "/rep3d/leases/case_1", lease)
    server.on("DELETE", "/rep3d/leases/case_1", lease)
    assert client.take_lease("case_1").until == CASE["lease"]["until"] and body(server.received[-1]) == {
        "client_id": "anna"
    }
    assert client.release_lease("case_1") is True
    assert client.release_lease("free") is False
    server.on("POST", "/rep3d/leases/case_1", {"detail": "lent to 'ben'"}, status=409)
    with pytest.raises(ConflictError, match="lent to 'ben'"):
        client.take_lease("case_1")
    server.on("POST", "/rep3d/leases/case_1", {"image": "case_1"})
    with pytest.raises(BadAnswer):
        client.take_lease("case_1")


# ---- versions


VERSION = {
    "version": "v2",
    "published": True,
    "created": "t",
    "mean_score": 0.8,
    "cases": ["a", "b"],
    "bytes": 5,
    "decision": {"published": True, "reason": "better by 0.1"},
    "deleted": None,
}


def test_versions(server, connect):
    client = connect(client_id="anna")
    old = {
        "version": "v1",
        "published": False,
        "mean_score": None,
        "decision": None,
        "deleted": {"by": "x"},
    }
    listed = {
        "model": "rep3d",
        "published": "v2",
        "error": None,
        "versions": [old, VERSION],
        "publications": [{"version": "v2"}],
    }
    server.on("GET", "/rep3d/models/rep3d/versions", listed)
    first, second = client.versions()  # the server's default model is asked for first
    assert (first.mean_score, first.cases, first.reason, first.available, first.published) == (
        None,
        0,
        "",
        False,
        False,
    )
    assert (second.mean_score, second.cases, second.reason) == (0.8, 2, "better by 0.1")
    assert second.available and second.published
    server.on("POST", "/rep3d/models/rep3d/versions/v2/publish", VERSION)
    assert client.publish(None, "v2", "looks right").published
    assert body(server.received[-1]) == {"by": "anna", "reason": "looks right"}
    server.on("POST", "/rep3d/models/kits/rollback", {**VERSION, "version": "v1"})
    assert client.roll_back("kits", "too small").version == "v1"
    assert body(server.received[-1]) == {"by": "anna", "reason": "too small"}
    server.on("POST", "/rep3d/models/kits/rollback", {"detail": "nothing before"}, status=409)
    with pytest.raises(ConflictError, match="nothing before"):
        client.roll_back("kits")
    for bad in (None, {}, {"versions": [{}]}, {"versions": [{"version": ""}]}):
        server.on("GET", "/rep3d/models/rep3d/versions", bad)
        with pytest.raises(BadAnswer):
            client.versions()


# ---- batches and running requests


@pytest.mark.parametrize("phase", ["never", "running", "stopping", "stopped", "error", "paused"])
@pytest.mark.parametrize("done", [0, 1, 4, 5, 10**9, None, float("nan")])
def test_only_a_batch_that_is_done_is_at_100_percent(phase, done):
    state = {"model": "rep3d", "phase": phase, "total": 4, "done": done, "failed": {"a": "bad"}, "eta_seconds": 5}
    status = parse_batch(state)
    assert 0.0 <= status.progress < 1.0 and status.is_active == (phase in ("running", "stopping"))
    assert status.eta_seconds == (5.0 if phase == "running" else None)
    assert parse_batch({**state, "phase": "done"}).progress == 1.0


def test_batch(server, client):
    state = {"model": "kits", "phase": "running", "total": 8, "done": 2, "kept": 1, "labelled": 0, "current": "c"}
    server.on("POST", "/rep3d/models/kits/batch", state)
    server.on("DELETE", "/rep3d/models/kits/batch", {**state, "phase": "stopping", "failed": {"a": "bad"}})
    status = client.batch_start("kits", views=4)
    assert body(server.received[-1]) == {"images": "unlabeled", "views": 4}
    assert (status.progress, status.current, status.failed) == (0.375, "c", {})
    assert client.batch_stop("kits").failed == {"a": "bad"}
    server.on("DELETE", "/rep3d/models/kits/batch", {"model": "kits"})
    with pytest.raises(BadAnswer):
        client.batch_stop("kits")


def test_cancelling(server, client):
    server.on("DELETE", "/rep3d/requests/r 1", {"id": "r 1", "state": "cancelling"})
    assert client.cancel("r 1") is True and client.cancel("gone") is False


# ---- DICOM


def test_upload_dicom(server, client, tmp_path):
    answer = {
        "images": ["new"],
        "known": [{"series": "1.2", "image": "old"}],
        "failed": [{"source": "s", "error": "a slice is missing"}],
        "folder": "dicom-1",
        "warnings": [{"image": "new", "reason": "text is burnt in"}],
    }
    server.on("PUT", "/rep3d/dicom", answer)
    source = tmp_path / "Miller.zip"
    source.write_bytes(b"PK" + os.urandom(1000))
    seen = []
    found = client.upload_dicom(source, lambda done, total: seen.append((done, total)))
    assert (found.images, found.known) == (("new",), ("old",))
    assert (found.failed, found.warnings) == ((("s", "a slice is missing"),), (("new", "text is burnt in"),))
    request, size = server.received[-1], source.stat().st_size
    assert request.body == source.read_bytes() and request.headers["content-type"] == "application/zip"
    assert request.headers["content-length"] == str(size) and seen[-1] == (size, size)
    with pytest.raises(LocalProblem, match="Cannot read"):
        client.upload_dicom(tmp_path / "a.zip")
    server.on("PUT", "/rep3d/dicom", {"detail": "no DICOM files"}, status=422)
    with pytest.raises(InvalidRequestError, match="no DICOM files"):
        client.upload_dicom(source)
    server.on("PUT", "/rep3d/dicom", {"detail": "3 MiB left"}, status=507)
    with pytest.raises(ServerFailed, match="no room for it.*3 MiB left"):
        client.upload_dicom(source)
    server.on("PUT", "/rep3d/dicom", {"images": None})
    with pytest.raises(BadAnswer):
        client.upload_dicom(source)


# ---- the server's state


STATUS = {
    "server": {"version": "1"},
    "cases": {"total": 11, "labelled": 4, "unusable": 2, "stamp": "s"},
    "default_model": "rep3d",
    "models": {
        "rep3d": {
            "version": "v2",
            "versions_stamp": "vs",
            "training": {"phase": "training", "iteration": 5, "iterations": 10},
            "batch": {"model": "rep3d", "phase": "never"},
        }
    },
}


def test_overview(server, client):
    server.on("GET", "/rep3d/status", STATUS)
    server.on("GET", "/train/", {"id": "t", "status": "RUNNING", "request": {"model": "rep3d"}})
    overview = client.overview()
    assert [request.path for request in server.received] == ["/train/", "/rep3d/status"]
    state, train = overview.state, overview.train
    assert (state.total, state.completed, state.cases_stamp, state.model) == (9, 4, "s", "rep3d")
    assert (state.version, state.versions_stamp, state.batch.phase) == ("v2", "vs", "never")
    assert (train.state, train.progress, train.model) == ("running", 0.5, "rep3d")
    server.on("GET", "/train/", {"detail": "none"}, status=404)
    assert client.overview("other").state.version is None
    for bad in (None, {}, {"server": {}, "models": {}}, {**STATUS, "models": []}):
        server.on("GET", "/rep3d/status", bad)
        with pytest.raises(BadAnswer):
            client.overview()


def test_the_training_of_another_model_is_not_taken_for_this_ones(server, client):
    other = {"id": "t2", "status": "RUNNING", "request": {"model": "kits"}}
    own = {"id": "t1", "status": "ERROR", "request": {"model": "rep3d"}, "details": ["ValueError: x"]}
    server.on("GET", "/train/", other)
    server.then("GET", "/train/", [own, other])
    server.stats({"phase": "error", "error": "in words"})
    status = client.overview("rep3d").train
    assert (status.state, status.task_id, status.error) == ("error", "t1", "in words")
    assert server.received[-1].query == {"all": "true"}
    server.on("GET", "/train/", other)
    server.then("GET", "/train/", [other])
    assert client.overview("rep3d").train.state == "idle"
