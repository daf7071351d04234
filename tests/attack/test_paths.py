"""No answer says where anything lies on the server's disk: all addresses, asked rightly, wrongly, and oddly."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from lib.access.paths import WithoutPaths
from lib.access.roles import ROUTES

from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import ROOT, AppServer

# The network in another form takes seconds to make; tests/rep3d/inference/test_export.py looks into it.
SLOW = {"GET /rep3d/models/{model}/versions/{version}/onnx", "POST /scoring/", "POST /batch/infer/{model}"}
ROWS = [row for rows in ROUTES.values() for row in rows if row not in SLOW]
WRONG = "..%2F..%2Fetc%2Fpasswd"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    place = tmp_path_factory.mktemp("place")
    studies, scratch, home = place / "studies", place / "scratch", place / "home"
    for folder in (studies, scratch, home):
        folder.mkdir()
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    (studies / "cut.nii.gz").write_bytes((studies / "case_0.nii.gz").read_bytes()[:900])
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    write_label(studies / "labels" / "final" / "nobodys.nii.gz", 0)
    publish_small_model(studies)
    with AppServer(studies, scratch, CONF, environment={"HOME": str(home)}) as running:
        yield running


def _told(server: AppServer, answer: requests.Response) -> None:
    """Assert that an answer names no place; studies, sessions, temporary files and home are below one folder."""
    text = f"{answer.text} {answer.headers}"
    for place in (str(server.studies.parent), str(ROOT), sys.prefix):
        at = text.find(place)
        assert at < 0, (answer.request.method, answer.url, answer.status_code, text[max(0, at - 200) : at + 200])
    stack = "Traceback" in answer.text and "/logs/" not in answer.url
    assert answer.status_code != 500 and not stack, (answer.request.method, answer.url, text[:500])


def test_no_answer_names_a_place_on_the_disk(server: AppServer) -> None:
    image = write_image(server.studies.parent / "image.nii.gz", 3).read_bytes()
    opened = server.put("/session/", files={"files": ("image.nii.gz", image)})
    _told(server, opened)
    session = opened.json()["session_id"]
    known: dict[str, Any] = {
        **{"image": "case_0", "label": "case_0", "id": "nobody", "tag": "final", "session_id": session},
        **{"model": "rep3d", "version": "v1", "strategy": "first", "method": "uncertainty", "lines": 0, "all": True},
    }
    odd = {"file": ("odd.nii.gz", b"odd"), "label": ("odd.nii.gz", b"odd"), "files": ("odd.nii.gz", b"odd")}
    asked = set()
    for row in sorted(ROWS, key=lambda row: (row.startswith("DELETE"), "train" in row, row)):
        method, path = row.split(" ")
        asked.add(row)
        for wrong in (False, True):
            fill = {name: WRONG if wrong else str(value) for name, value in known.items()}
            where = re.sub(r"\{(\w+)(:path)?\}", lambda name, fill=fill: fill.get(name[1], WRONG), path)
            params = {name: WRONG if wrong else value for name, value in known.items() if name != "session_id"}
            bodies: list[dict[str, Any]] = [{"json": {"iterations": 5}}] if method != "GET" else [{}]
            bodies += [{"files": odd}] if method in ("PUT", "POST") and not wrong else []
            for body in bodies:
                _told(server, server.request(method, where, params=params, allow_redirects=False, **body))
    assert len(asked) > 85
    for question in ("/datastore/?output=all", "/datastore/?output=train", "/rep3d/cases/cut", "/rep3d/status"):
        _told(server, server.get(question))
    for output in ("all", "json"):
        _told(server, server.post("/infer/rep3d", params={"image": "case_1", "output": output}))
    _told(server, server.post("/infer/rep3d", params={"image": "cut"}))
    left = [path for path in (server.studies.parent / "scratch" / "tmp").rglob("*") if path.name.endswith(".nii.gz")]
    assert left == []  # of all that was refused
    # The log is there all the same.
    log = server.get("/logs/", params={"lines": 0}).text
    assert "Rep3D Label serves rep3d of studies" in log


def test_what_a_training_prints_names_none_either(server: AppServer) -> None:
    assert server.post("/train/rep3d", json={"iterations": 500, "resume": False}).ok
    deadline = time.monotonic() + 30
    while "Initializing App" not in (answer := server.get("/train/")).text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    _told(server, answer)
    _told(server, server.request("DELETE", "/train/"))
    _told(server, server.get("/info/"))


def test_only_whole_names_of_folders_are_cut() -> None:
    cut = WithoutPaths(lambda *_: None, [Path("/data/a"), Path("/data"), Path("/")]).cut  # type: ignore[arg-type, return-value]
    assert cut(b'"/data/a/b.json", "/data/a", (/data)') == b'"b.json", "a", (data)'
    assert cut(b"/datastore/x /data-2/y / /other/data") == b"/datastore/x /data-2/y / /other/data"
