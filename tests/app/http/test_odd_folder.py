"""A studies folder as people have them: odd images, other layouts, broken labels. Each is named, none stops others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from rep3d.audit import AuditLog
from tests.app.browser import chromium, find_chromium, watched
from tests.app.data import CONF, SHAPE, publish_small_model, write_image, write_label, write_nifti
from tests.app.server import AppServer, until

TILTED = np.array([[1.0, 0.2, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
UNUSABLE = {"a_channels", "a_colour", "a_cut", "a_flat", "a_tilted"}
GOOD = {"SCAN", "both", "labelled"}
LEFT_OUT = {"sub-01/anat/sub-01_T1w.nii.gz", "both.nii.gz", "scan.nrrd", "labels/final/nobody.nii.gz"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server over a folder of which hardly anything is in order."""
    studies = tmp_path_factory.mktemp("odd")
    write_nifti(studies / "a_channels.nii.gz", np.zeros((*SHAPE, 2), np.int16))
    write_nifti(studies / "a_colour.nii.gz", np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    write_nifti(studies / "a_flat.nii.gz", np.zeros(SHAPE[:2], np.int16))
    write_nifti(studies / "a_tilted.nii.gz", np.ones(SHAPE, np.int16), TILTED)
    _cut(write_image(studies / "a_cut.nii.gz"))
    for name in ("SCAN.NII.GZ", "both.nii", "both.nii.gz", "labelled.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"):
        write_image(studies / name)
    (studies / "scan.nrrd").write_text("NRRD")
    _cut(write_label(studies / "labels" / "final" / "labelled.nii.gz"), 200)
    write_label(studies / "labels" / "final" / "nobody.nii.gz")
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        yield running


def _cut(file: Path, left: int = 2000) -> None:
    file.write_bytes(file.read_bytes()[:left])


def _left_out(server: AppServer) -> set[str]:
    return {file for group in server.get("/rep3d/status").json()["passed_over"]["groups"] for file in group["files"]}


def _states(server: AppServer) -> dict[str, str]:
    return {case["id"]: case["state"] for case in server.get("/rep3d/cases").json()}


def test_what_nobody_can_use_is_lent_to_nobody(server: AppServer) -> None:
    """Every strategy, and two people: the unusable ones, first by name, come never and hold no lease."""
    given = [
        server.post(f"/activelearning/{strategy}", json={"client_id": user})
        for strategy in ("first", "random", "entropy", "hybrid")
        for user in ("anna", "ben")
    ]
    assert {answer.json()["id"] for answer in given if answer.ok} == {"SCAN", "both"}
    refused = server.post("/activelearning/first", json={"client_id": "carl"})
    assert refused.status_code == 404, refused.text
    assert "reserved for others" in refused.text and all(name in refused.text for name in UNUSABLE)
    assert {lease["image"] for lease in server.get("/rep3d/leases").json()} == {"SCAN", "both"}
    for name in UNUSABLE:
        answer = server.post(f"/rep3d/leases/{name}", json={"client_id": "anna"})
        assert answer.status_code == 422 and name in answer.json()["detail"], answer.text
    for lease in ("SCAN", "both"):
        assert server.request("DELETE", f"/rep3d/leases/{lease}").ok


def test_each_is_told_wherever_one_looks(server: AppServer) -> None:
    assert server.post("/activelearning/first", json={}).json()["id"] == "SCAN"  # by now "a_cut" was read
    status = server.get("/rep3d/status").json()
    assert {one["id"] for one in status["unusable"]} == UNUSABLE and all(one["reason"] for one in status["unusable"])
    counts = status["cases"]
    assert (counts["total"], counts["labelled"], counts["unusable"]) == (len(GOOD | UNUSABLE), 1, len(UNUSABLE))
    assert _left_out(server) >= LEFT_OUT and all(group["remedy"] for group in status["passed_over"]["groups"])
    assert not [name for name in (*LEFT_OUT, *UNUSABLE - {"a_cut"}) if name not in server.log]
    cases = {case["id"]: case for case in server.get("/rep3d/cases?state=unusable").json()}
    assert set(cases) == UNUSABLE and all(case["error"] for case in cases.values())
    assert "right angle" in cases["a_tilted"]["error"] and "one number each" in cases["a_colour"]["error"]
    for name in UNUSABLE - {"a_tilted"}:
        for path in (f"/rep3d/cases/{name}/thumbnail.png", f"/rep3d/voxels/images/{name}"):
            answer = server.get(path)
            assert answer.status_code == 422 and "Export" in answer.text or "Copy" in answer.text, answer.text
    assert server.request("DELETE", "/rep3d/leases/SCAN").ok


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")
def test_the_dashboard_tells(server: AppServer) -> None:
    with chromium() as browser, watched(browser) as found:
        found.page.goto(f"{server.url}/rep3d/")
        expect(found.page.locator("#tiles")).to_contain_text("5 unusable", timeout=30_000)
        found.page.locator("#passed-over summary").click()
        for words in ("sub-01_T1w.nii.gz", "both.nii.gz", "It lies in a subfolder."):
            expect(found.page.locator("#passed-over ul")).to_contain_text(words)
        found.page.locator('[data-state="unusable"]').click()
        expect(found.page.locator("#case-list .state.unusable")).to_have_count(len(UNUSABLE))
        expect(found.page.locator('[data-case="a_tilted"]')).to_contain_text("right angle")


def test_a_batch_does_all_others_and_names_these(server: AppServer) -> None:
    assert server.post("/rep3d/models/rep3d/batch", json={"images": "all"}).ok

    def state() -> dict[str, Any]:
        return dict(server.get("/rep3d/models/rep3d/batch").json())

    until(lambda: state()["phase"] == "done", 30)
    assert set(state()["failed"]) == UNUSABLE and state()["done"] == len(GOOD)
    log = [event["what"] for event in AuditLog(server.studies / "rep3d").events()]
    assert "start batch" in log and "batch ended" in log


def test_a_broken_label_is_told_and_replaced(server: AppServer, tmp_path: Path) -> None:
    place = "labels/final/labelled.nii.gz"
    case = server.get("/rep3d/cases/labelled").json()
    assert case["state"] == "submitted" and "cut short" in case["label_error"]
    assert place in _left_out(server)
    files = {"label": ("label.nii.gz", write_label(tmp_path / "label.nii.gz").read_bytes())}
    answer = server.put("/datastore/label?image=labelled&tag=final", files=files, data={"params": json.dumps({})})
    assert answer.ok, answer.text
    case = server.get("/rep3d/cases/labelled").json()
    assert case["label_error"] is None and set(case["labels"]) == {"head", "tail"} and place not in _left_out(server)


def test_what_changes_is_looked_at_again(server: AppServer) -> None:
    """The last test: it mends the folder."""
    studies = server.studies
    for name in ("a_cut.nii.gz", "a_channels.nii.gz", "LATE.NII"):
        write_image(studies / name)
    os.rename(studies / "sub-01" / "anat" / "sub-01_T1w.nii.gz", studies / "sub-01_T1w.nii.gz")
    write_image(studies / "patient" / "late.nii.gz")
    until(lambda: "patient/late.nii.gz" in _left_out(server), 30)
    new = {"a_cut", "a_channels", "LATE", "sub-01_T1w"}
    until(lambda: new <= {id_ for id_, state in _states(server).items() if state == "new"}, 30)
    assert "sub-01/anat/sub-01_T1w.nii.gz" not in _left_out(server) and "patient/late.nii.gz" in server.log
    given = [server.post("/activelearning/first", json={"client_id": "anna"}).json()["id"] for _ in range(3)]
    assert given == ["LATE", "SCAN", "a_channels"]
