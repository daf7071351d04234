"""Training and scoring by the client, against an HTTP server: their true state, and waiting for them to end."""

from __future__ import annotations

import json

import pytest
from Rep3DLabelLib.client.answers_train import TrainStatus
from Rep3DLabelLib.errors import ConflictError, ServerBusy, WaitTimeout

from tests.fake_server import INFO


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def task(status, **more):
    return {"id": "t1", "status": status, "start_ts": "2026-01-01 10:00:00", **more}


def test_never_trained(server, client):
    server.on("GET", "/train/", {"detail": "No Train Tasks Found"}, status=404)
    server.stats({"phase": "done", "iteration": 10, "iterations": 10, "version": "7"})
    overview = client.overview()
    assert (overview.train.state, overview.train.progress, overview.train.iteration) == ("idle", 0.0, None)
    assert overview.state.version == "7"


def test_the_numbers_of_an_earlier_training_are_not_shown(server, client):
    old = {"phase": "training", "iteration": 90, "iterations": 100, "loss": 0.5, "started": "09:00"}
    server.stats(old)
    server.on("POST", "/train/rep3d", task("SUBMITTED"))
    assert client.train_start(settings={"iterations": 50}).state == "submitted"
    assert json.loads(server.requests_to("/train/rep3d")[0].body) == {"iterations": 50}
    server.on("GET", "/train/", task("RUNNING", details=["starting"]))
    first = client.overview().train
    assert (first.state, first.progress, first.loss, first.log) == ("running", 0.0, None, ("starting",))
    server.stats({**old, "iteration": 25, "iterations": 50, "started": "10:00"})
    assert client.overview().train.progress == 0.5


def test_wait_for_training(server, client):
    server.on("GET", "/train/", {"detail": "busy"}, status=503)
    server.then("GET", "/train/", task("RUNNING"))
    server.then("GET", "/train/", task("DONE"))
    server.stats({"phase": "training", "iteration": 3, "iterations": 4})
    clock = Clock()
    seen: list[TrainStatus] = []
    status = client.wait_for_training(poll_seconds=7, callback=seen.append, sleep=clock.sleep, clock=clock)
    assert [(one.state, one.progress) for one in seen] == [("running", 0.75), ("done", 1.0)]
    assert status == seen[-1] and clock.now == 14


def test_waiting_ends(server, client):
    server.on("GET", "/train/", task("RUNNING"))
    clock = Clock()
    with pytest.raises(WaitTimeout, match="60 s"):
        client.wait_for_training(poll_seconds=10, timeout=60, sleep=clock.sleep, clock=clock)
    assert clock.now == 60
    server.on("GET", "/train/", {"detail": "busy"}, status=503)
    with pytest.raises(ServerBusy):
        client.wait_for_training(poll_seconds=10, sleep=clock.sleep, clock=clock)
    assert clock.now == 110


def test_waiting_outlasts_a_server_that_is_busy_now_and_then(server, client):
    for _ in range(8):
        server.then("GET", "/train/", {"detail": "busy"}, status=503)
        server.then("GET", "/train/", task("RUNNING"))
    server.then("GET", "/train/", task("STOPPED"))
    clock = Clock()
    assert client.wait_for_training(poll_seconds=1, sleep=clock.sleep, clock=clock).state == "stopped"
    assert clock.now == 16


def test_train_runs_already(server, client):
    server.on("POST", "/train/rep3d", {"detail": "++++++++++ Train Task is Already Running"}, status=429)
    with pytest.raises(ServerBusy, match=": Train Task is Already Running"):
        client.train_start()
    server.on("POST", "/train/rep3d", {"detail": "No labelled case"}, status=409)
    with pytest.raises(ConflictError, match="No labelled case"):
        client.train_start()


@pytest.mark.parametrize(("answer", "stopped"), [(task("STOPPED"), True), (None, False)])
def test_stop(server, client, answer, stopped):
    server.on("DELETE", "/train/", answer)
    assert client.train_stop() is stopped


def test_requests_without_a_model_go_to_the_servers_default(server, client):
    own = {"labels": {"Anterior": 1}, "default_model": "msd_hippocampus"}
    server.on("GET", "/info/", {**INFO, "models": {"msd_hippocampus": {}, "kits": {}}, "rep3d": own})
    server.on("POST", "/train/msd_hippocampus", task("SUBMITTED"))
    assert client.train_start().state == "submitted"
    assert len(server.requests_to("/train/msd_hippocampus")) == 1
    assert client.info().default_model == "msd_hippocampus"
