"""Who did what: the audit log of a server that asks for keys, read as an administrator reads it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rep3d.audit import CHANGES, AuditLog
from rep3d.keys import KeyBook
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    studies = tmp_path_factory.mktemp("studies")
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {**CONF, "keys": "on"}) as running:
        yield running


@pytest.fixture(scope="module")
def keys(server: AppServer) -> dict[str, Any]:
    made = {name: KeyBook(server.studies / "rep3d").make(role, name) for name, role in (("Anna", "annotator"),)}
    made["Ada"] = KeyBook(server.studies / "rep3d").make("admin", "Ada")
    return {name: (key.id, {"Authorization": f"Bearer {text}"}) for name, (key, text) in made.items()}


def _events(server: AppServer, what: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Return the events of a kind, once they are there: only changes are written before their answer is sent."""
    deadline = time.monotonic() + 10
    while True:
        events = [event for event in AuditLog(server.studies / "rep3d").events() if what == event["what"]]
        if len(events) >= at_least or time.monotonic() > deadline:
            return events
        time.sleep(0.02)


def test_who_did_what_with_which_case_and_version(server: AppServer, keys: dict[str, Any], tmp_path: Path) -> None:
    (anna_id, anna), (ada_id, ada) = keys["Anna"], keys["Ada"]
    label = write_label(tmp_path / "label.nii.gz", 0)
    files = {"label": ("SECRET^NAME.nii.gz", label.read_bytes())}
    sent = server.put("/datastore/label", params={"image": "case_0"}, files=files, headers=anna)
    assert sent.status_code == 200, sent.text
    (event,) = _events(server, "submit label")
    assert {"time", "label"} < event.keys()
    assert (
        event.items()
        >= {
            **{"who": "Anna", "key": anna_id, "role": "annotator", "address": "127.0.0.1"},
            **{"case": "case_0", "tag": "final", "status": 200},
        }.items()
    )
    assert server.get("/datastore/label", params={"label": "case_0", "tag": "final"}, headers=ada).ok
    (read,) = _events(server, "read label")
    assert (read["who"], read["key"], read["case"], read["label"]) == ("Ada", ada_id, "case_0", event["label"])
    # What is refused names who, too: by their role, and by what they sent.
    assert server.request("DELETE", "/datastore/label?id=case_0&tag=final", headers=anna).status_code == 403
    assert server.put("/datastore/label", params={"image": "no"}, files=files, headers=anna).status_code == 404
    refused = _events(server, "remove label") + _events(server, "submit label", 2)[1:]
    assert [(each["who"], each["status"]) for each in refused] == [("Anna", 403), ("Anna", 404)]
    assert server.post("/auth/token", data={"password": anna["Authorization"].split()[1]}).ok
    assert [each["who"] for each in _events(server, "log in")] == ["Anna"]
    # What an address does not know is not what it was about.
    assert server.request("DELETE", "/datastore/label?id=case_0&tag=final&image=case_1&version=v9", headers=ada).ok
    removed = _events(server, "remove label", 2)[-1]
    assert (removed["case"], removed["tag"], removed.get("version")) == ("case_0", "final", None)
    # No voxels, no file names of clients, no part of a key.
    text = "".join(file.read_text() for file in (server.studies / "rep3d" / "audit").glob("*.jsonl"))
    assert "SECRET" not in text and anna["Authorization"].split("_", 2)[2] not in text
    assert _events(server, "start server") and [each["id"] for each in _events(server, "make key")]


def test_a_client_that_goes_away_is_in_the_log(server: AppServer, keys: dict[str, Any]) -> None:
    _, ada = keys["Ada"]
    body = json.dumps({"client_id": "x"}).encode()
    head = f"POST /rep3d/leases/case_1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    head += f"Authorization: {ada['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
    (event,) = _events(server, "reserve")
    assert (event["who"], event["case"]) == ("Ada", "case_1")
    reserved = [lease["image"] for lease in server.get("/rep3d/leases", headers=ada).json()]
    assert reserved == (["case_1"] if event["status"] == 200 else [])  # it may be gone before its body was read


def test_one_client_cannot_push_a_change_out(server: AppServer) -> None:
    folder = server.studies / "rep3d" / "audit"
    before = sum(file.stat().st_size for file in folder.iterdir())
    for number in range(300):
        answer = server.get(f"/no/such/{number}?x={'y' * 500}", headers={"Authorization": "Bearer wrong"})
        assert answer.status_code in (401, 429)
    assert sum(file.stat().st_size for file in folder.iterdir()) - before < 2000


def test_a_log_that_cannot_be_written_stops_nobody_and_is_told(server: AppServer, keys: dict[str, Any]) -> None:
    """A folder stands where the file should be: to root, too, it is not writable."""
    _, ada = keys["Ada"]
    file = server.studies / "rep3d" / "audit" / f"{CHANGES}.jsonl"
    kept = file.rename(file.with_name("kept.jsonl"))
    file.mkdir()
    assert server.post("/rep3d/leases/case_1", headers=ada).status_code == 200
    (words,) = server.get("/rep3d/status", headers=ada).json()["server"]["problems"]
    assert "missing" in words
    file.rmdir()
    kept.rename(file)
    assert server.request("DELETE", "/rep3d/leases/case_1", headers=ada).status_code == 200
    assert server.get("/rep3d/status", headers=ada).json()["server"]["problems"] == []
    assert [event["count"] for event in _events(server, "events missing")] == [1]
