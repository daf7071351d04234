"""Nobody starves: a server with a full lane of inference still takes labels; who goes away or is slow holds nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.app.data import CONF, publish_small_model, write_image, write_label, write_nifti
from tests.app.server import HOST, AppServer

AT_ONCE, WAITING, SECONDS = 2, 60, 1.0
LIMITS = {
    **{"infer_at_once": AT_ONCE, "infer_waiting": WAITING, "infer_waiting_each": WAITING},
    **{"slow_seconds": SECONDS, "slow_rate": 100_000},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with an image that takes minutes to segment, and small ones."""
    studies = tmp_path_factory.mktemp("studies")
    for number in range(3):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_nifti(studies / "large.nii", np.random.default_rng(0).normal(100, 5, (128, 128, 128)).astype(np.int16))
    publish_small_model(studies)
    conf = {**CONF, **{name: str(value) for name, value in LIMITS.items()}}
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), conf) as running:
        yield running


def _begin(
    server: AppServer, head: str, body: bytes = b"", length: int | None = None, kind: str = "application/json"
) -> socket.socket:
    """Send a request, or the beginning of one, over a connection of its own."""
    connection = socket.create_connection((HOST, server.port), timeout=30)
    lines = [f"{head} HTTP/1.1", f"Host: {HOST}:{server.port}", f"Content-Type: {kind}"]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return connection


def _ask_for_minutes(server: AppServer, name: str) -> socket.socket:
    body = json.dumps({"views": 8, "request_id": name}).encode()
    return _begin(server, "POST /rep3d/voxels/infer/rep3d?image=large", body)


def _states(server: AppServer) -> list[str]:
    return sorted(request["state"] for request in server.get("/rep3d/requests").json())


def _wait_until(happens: Callable[[], bool], seconds: float) -> None:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)


def test_labels_and_lists_do_not_wait_behind_inference(server: AppServer, tmp_path: Path) -> None:
    label = write_label(tmp_path / "label.nii.gz")
    # One user leaves a place for others, so that one runs less than could.
    assert server.post("/infer/rep3d?image=case_1").status_code == 200  # the first of a server takes seconds longer
    clients = [_ask_for_minutes(server, "r0")]
    _wait_until(lambda: _states(server) == ["running"], 10)
    clients += [_ask_for_minutes(server, f"r{number}") for number in range(1, WAITING + 1)]
    _wait_until(lambda: _states(server) == ["running"] * (AT_ONCE - 1) + ["waiting"] * WAITING, 10)

    times = []
    for number in range(12):
        began = time.monotonic()
        if number % 2:
            assert server.get("/rep3d/cases").ok
        else:
            with label.open("rb") as file:
                sent = server.put(f"/datastore/label?image=case_{number % 3}", files={"label": ("l.nii.gz", file)})
            assert sent.ok, sent.text
        times.append(time.monotonic() - began)
    assert sorted(times)[-2] < 1.0, times

    refused = server.post("/infer/rep3d?image=case_1")
    assert refused.status_code == 429 and int(refused.headers["Retry-After"]) > 0
    assert "wait for inference already" in refused.json()["detail"]

    cancelled = clients.pop()
    assert server.request("DELETE", f"/rep3d/requests/r{len(clients)}").json()["state"] == "cancelling"
    assert b" 409 " in cancelled.recv(4096).partition(b"\r\n")[0]  # one that waits is cancelled at once

    for client in clients:
        client.close()
    _wait_until(lambda: _states(server) == [], 2.0)  # those that wait and the one that ran
    assert server.post("/infer/rep3d?image=case_1", timeout=30).status_code == 200
    cancelled.close()


def test_slow_connections_are_closed_and_leave_nothing(server: AppServer) -> None:
    temporary = server.log_file.parent / "tmp"
    files_before = {file for file in temporary.rglob("*") if file.is_file()}
    voxels, form = "PUT /rep3d/voxels/images/slow", "multipart/form-data; boundary=b"
    file = b'--b\r\nContent-Disposition: form-data; name="label"; filename="l.nii.gz"\r\n\r\n' + bytes(2 * 1024**2)
    silent = {
        "a head that never ends": socket.create_connection((HOST, server.port), timeout=30),
        "a body that stops": _begin(server, voxels, b"x" * 5000, 10**6),
        "an upload that stops": _begin(server, "PUT /datastore/label?image=case_0", file, 10**7, form),
        "inference that stops": _begin(server, "POST /infer/rep3d?image=case_0", b"--b", 10**6, form),
    }
    silent["a head that never ends"].sendall(b"GET /info/ HTTP/1.1\r\nHost: x\r\n")
    trickling = _begin(server, voxels, b"", 10**6)

    began = time.monotonic()
    ended: dict[str, float] = {}
    answers: dict[str, bytes] = {}
    while len(ended) <= len(silent) and time.monotonic() - began < 4 * SECONDS:
        for what in silent.keys() - ended.keys():
            silent[what].setblocking(False)
            try:
                found = silent[what].recv(65536)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                found = b""
            if found:
                answers[what] = answers.get(what, b"") + found  # head and body may come apart
            else:
                ended[what] = time.monotonic() - began
        try:
            trickling.send(b"x")
        except OSError:
            ended.setdefault("trickling", time.monotonic() - began)
        time.sleep(0.05)
    assert set(ended) == {*silent, "trickling"}  # which sends some bytes a second
    for what in silent.keys() - {"a head that never ends"}:
        head, _, body = answers[what].partition(b"\r\n\r\n")
        assert b" 408 " in head.partition(b"\r\n")[0] and b"content-security-policy" in head.lower()
        assert b"came too slowly" in body
    assert {file for file in temporary.rglob("*") if file.is_file()} <= files_before
    assert server.get("/rep3d/voxels/images/slow").status_code == 404
    assert "Traceback" not in server.log


def test_an_answer_that_nobody_reads_is_given_up(server: AppServer) -> None:
    with _begin(server, "GET /rep3d/voxels/images/large") as connection:
        assert connection.recv(8)
        _wait_until(lambda: connection.getsockname()[1] not in _remote_ports(server), 8 * SECONDS)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                received += len(part)
    assert received < 2 * 128**3
    assert "Traceback" not in server.log


def _remote_ports(server: AppServer) -> set[int]:
    connections = psutil.Process(server.pid).net_connections("tcp")
    return {each.raddr.port for each in connections if each.raddr and each.status == "ESTABLISHED"}


def test_a_server_that_is_stopped_does_not_wait_for_inference(server: AppServer) -> None:
    clients = [_ask_for_minutes(server, name) for name in ("s0", "s1")]
    _wait_until(lambda: _states(server) == ["running", "waiting"], 10)
    began = time.monotonic()
    server.stop()
    assert server.orderly and time.monotonic() - began < 10
    for client in clients:
        client.close()
