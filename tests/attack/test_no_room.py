"""A server that lacks what it needs: room on the disk, file handles. It starts, says so, lasts, and recovers."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
import requests

from tests.app.data import CONF, publish_small_model, snapshot, write_image, write_label
from tests.app.server import AppServer, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits of a running process are Linux's")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for number in range(2):
        write_image(tmp_path / "studies" / f"case_{number}.nii.gz", number)
    write_label(tmp_path / "studies" / "labels" / "final" / "case_0.nii.gz", 0)
    (tmp_path / "scratch").mkdir()
    return tmp_path / "studies"


def test_a_full_disk_is_read_until_there_is_room(studies: Path, tmp_path: Path) -> None:
    publish_small_model(studies)
    label = {"label": ("label.nii.gz", write_label(tmp_path / "label.nii.gz", 1).read_bytes())}
    dead = tmp_path / "scratch" / "tmp" / "rep3d-label-999999999-x"  # of a server that was killed
    dead.mkdir(parents=True)
    leftover = studies / "rep3d" / f".labels.json.{'0' * 32}.part"
    leftover.write_text("{")
    before = {file: digest for file, digest in snapshot(studies).items() if ".nii" in file}
    with AppServer(studies, tmp_path / "scratch", CONF, environment={"RLIMIT_FSIZE": "0"}) as server:
        assert not dead.exists() and not leftover.exists()
        (words, _) = server.get("/info/").json()["rep3d"]["problems"]
        assert "disk is full" in words and words in server.get("/rep3d/status").json()["server"]["problems"]
        assert {case["id"] for case in server.get("/rep3d/cases").json()} == {"case_0", "case_1"}
        picture = "/rep3d/cases/case_0/thumbnail.png"
        for path in ("/datastore/label?label=case_0&tag=final", "/rep3d/voxels/images/case_1", picture):
            assert server.get(path).ok, path
        assert server.post("/auth/token", data={"password": "any"}).ok  # to come in and look needs no room
        for method, path in (
            ("PUT", "/datastore/label?image=case_1"),
            ("DELETE", "/datastore/label?id=case_0&tag=final"),
            ("POST", "/rep3d/leases/case_1"),
        ):
            answer = server.request(method, path, files=label)
            assert answer.status_code == 507 and "no room" in answer.json()["detail"], answer.text
        assert {file: digest for file, digest in snapshot(studies).items() if ".nii" in file} == before
        import resource  # Windows has none

        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert server.put("/datastore/label?image=case_1", files=label).ok
        assert [one["version"] for one in server.get("/rep3d/models/rep3d/versions").json()["versions"]] == ["v1"]
        until(lambda: server.get("/info/").json()["rep3d"]["problems"] == [], 8)


@pytest.mark.slow
def test_without_file_handles_it_lasts_and_its_log_stays_short(studies: Path, tmp_path: Path) -> None:
    with AppServer(studies, tmp_path / "scratch", CONF, environment={"RLIMIT_NOFILE": "256"}) as server:
        size = server.log_file.stat().st_size
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(400)]
        time.sleep(1.5)  # the server tries again each second
        with pytest.raises(requests.RequestException):
            server.get("/info/", timeout=0.5)
        for connection in idle:
            connection.close()
        until(lambda: server.get("/info/", timeout=5).ok, 20)
        said = server.log_file.stat().st_size - size
        assert 0 < said < 100_000
