"""The server answers what cannot be used: garbage, pages of a proxy, another program's words, odd types, cut files.

The rules are those of `test_faults_server.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.app.data import AFFINE, SHAPE
from tests.extension.fault_server import (
    HTML,
    IMAGE,
    INFER,
    INFO,
    LABEL,
    FaultServer,
    label_body,
    segmentation,
    self_signed,
)
from tests.extension.odd_answers import ODD, ODD_PARAMS
from tests.extension.troubled import TroubledClinician
from tests.slicerbench import driver
from tests.voxel_bodies import VOXELS


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        ({"raw": b"\x00\xff\x13garbage\r\n\r\n"}, "wrong_app", "check the address"),
        ({"content": b"\x89PNG\r\n\x1a\n"}, "wrong_app", "Check that the address"),
        ({"content": HTML, "status": 502, "headers": {"Content-Type": "text/html"}}, "failed", "502 Bad Gateway"),
        ({"content": HTML, "headers": {"Content-Type": "text/html"}}, "wrong_app", "a web page"),
        ({"content": {**INFO, "name": "Radiology", "models": {"spleen": {}}, "rep3d": None}}, "wrong_app", "Radiology"),
        ({"content": [1, 2]}, "wrong_app", "Check the address"),
        ({"content": {**INFO, "rep3d": {"labels": {"head": "1"}}}}, "wrong_app", "whole voxel values"),
        ({"content": {"detail": "no"}, "status": 401}, "not_allowed", "Check the API key"),
        ({"content": {"detail": "later"}, "status": 503}, "busy", "Try again"),
        ({"reset": True}, "unreachable", "The server may have been stopped"),
    ],
)
def test_what_is_no_server_of_ours(
    person: TroubledClinician, server: FaultServer, answer: dict[str, object], state: str, words: str
) -> None:
    server.on("GET", "/info/", **answer)
    driver.type_text(person.ui.serverComboBox, server.url)
    person.click("connectButton")
    person.wait(lambda: person.view.connection.state == state, 10)
    assert words in person.ui.statusText.text.replace("\u200b", "")
    assert person.ui.accessSection.collapsed is (state != "not_allowed")  # where the key is typed
    person.usable()
    server.works()
    person.connect(server.url)
    person.usable()


@pytest.mark.parametrize(
    ("button", "method", "path", "answer", "words"),
    [
        ("nextSampleButton", "POST", "/activelearning/first", {"content": HTML, "status": 502}, "server's log"),
        ("nextSampleButton", "POST", "/activelearning/first", {"content": {"id": None}}, "which image comes next"),
        ("nextSampleButton", "POST", "/activelearning/first", {"content": [[]]}, "which image comes next"),
        ("nextSampleButton", "GET", IMAGE, {"content": HTML}, "no voxels"),
        ("nextSampleButton", "GET", IMAGE, {"cut_after": 900}, "try again"),
        ("nextSampleButton", "GET", IMAGE, {"cut_after": 900, "announce": False}, "Try again"),
        ("autoSegmentButton", "POST", INFER, {"cut_after": 400}, "try again"),
        ("autoSegmentButton", "POST", INFER, {"raw": b"\x00\x01\x02"}, "something else"),
        ("autoSegmentButton", "POST", INFER, {"content": HTML, "status": 502}, "502 Bad Gateway"),
        ("autoSegmentButton", "POST", INFER, {"content": {"a": 3}, "headers": {}}, "instead of voxels"),
        ("autoSegmentButton", "POST", INFER, {"cut_after": 600, "announce": False}, "Try again"),
        ("autoSegmentButton", "POST", INFER, segmentation(np.full(SHAPE, 9, np.uint8)), "9"),
        ("autoSegmentButton", "POST", INFER, segmentation(np.ones((9, 9, 9), np.uint8)), "9"),
        (
            "autoSegmentButton",
            "POST",
            INFER,
            segmentation(affine=AFFINE @ np.diag([2, 1, 1, 1])),
            "image",
        ),
        ("autoSegmentButton", "POST", INFER, segmentation(label_names=[1]), "which label has which value"),
        ("submitButton", "PUT", LABEL, {"content": HTML, "status": 502}, "kept here and as a draft"),
        ("submitButton", "PUT", LABEL, {"content": HTML}, "ubmit again"),
        ("submitButton", "PUT", LABEL, {"content": {"detail": "no room"}, "status": 507}, "no room"),
        ("submitButton", "PUT", LABEL, {"content": {"detail": "bad"}, "status": 422}, "bad"),
    ],
)
def test_an_answer_that_cannot_be_used(
    person: TroubledClinician,
    server: FaultServer,
    button: str,
    method: str,
    path: str,
    answer: dict[str, object],
    words: str,
) -> None:
    mine = person.begin(server.url)
    known = server.answers[(method, path)][-1]
    server.on(method, path, **{"content": known.content, "headers": known.headers, **answer})
    person.fails(button, words)  # the connection stays "ready": one answer says nothing about the server
    person.unharmed(mine)
    assert person.view.sample.id == "case_0"
    server.works()
    if button == "autoSegmentButton":
        person.auto_segment()
    elif button == "submitButton":
        person.submit()
        assert len(server.stored("case_0")) == 1
    else:
        person.click(button)
        person.wait(lambda: person.idle() and not person.view.edited, 20)
    if button != "submitButton":
        person.on_disk(mine)


def test_a_case_whose_label_is_cut_or_does_not_fit(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    person.open("casesSection")
    person.click("refreshCasesButton")
    person.wait(lambda: person.view.cases, 10)
    for content, cut, words in (
        (label_body(), 100, "try again"),
        (label_body()[:1000], None, "cut"),
        (label_body()[:-1] + b"x", None, "checksum"),
        (label_body(np.ones((9, 9, 9), np.uint8)), None, "9 x 9 x 9"),
        (label_body(affine=AFFINE @ np.diag([2, 1, 1, 1])), None, "image"),
        (HTML, None, "no voxels"),
    ):
        server.on("GET", LABEL, content, headers=VOXELS, cut_after=cut)
        person.flow.open_case("case_1")
        person.told(words)
        person.unharmed(mine)
    server.on("GET", LABEL, label_body(), headers=VOXELS)
    person.flow.open_case("case_1")
    person.wait(lambda: person.idle() and person.view.sample.id == "case_1", 20)
    assert person.voxels("head").sum() == 64


def test_wrong_types_in_every_answer(person: TroubledClinician, server: FaultServer) -> None:
    for (method, path), answer in ODD.items():
        server.on(method, path, answer)
    person.connect(server.url)
    person.open("casesSection")
    person.click("refreshCasesButton")
    person.wait(lambda: person.view.cases and person.view.versions, 10)
    server.on("GET", "/rep3d/cases", "none")
    person.fails("refreshCasesButton", "did not list its cases")
    person.next_sample()
    for params in ODD_PARAMS:
        known = segmentation(**params)
        server.on("POST", INFER, known["content"], headers=known["headers"])
        person.click("autoSegmentButton")
        person.wait(person.idle)
        assert "Segmented by" in person.message
    person.paint()
    person.submit()
    person.usable()


def test_another_server_at_the_same_address(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    server.on("GET", "/info/", {**INFO, "models": {"spleen": {}}, "rep3d": None, "name": "Radiology"})
    server.answers = {key: server.answers[key] for key in [("GET", "/info/")]}
    person.click("submitButton")  # it is noticed at the first request that fails
    person.told("Not submitted", state="wrong_app")
    assert "Radiology" in person.view.connection.message
    person.unharmed(mine)
    person.usable()
    server.works()
    person.reconnect()
    person.submit()
    assert len(server.stored("case_0")) == 1


def test_the_key_is_refused_in_the_middle_of_the_work(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    server.on("POST", INFER, {"detail": "wrong key"}, status=401)
    person.fails("autoSegmentButton", "wrong key", "Check the API key", state="not_allowed")
    assert not person.ui.accessSection.collapsed and person.ui.keyEdit.isVisible()
    person.unharmed(mine)
    server.works()
    driver.type_text(person.ui.keyEdit, "right")
    person.reconnect()
    person.auto_segment()
    person.on_disk(mine)
    assert server.received[-1].headers.get("authorization") == "Bearer right"


def test_a_certificate_that_nobody_vouches_for(bench, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    server = FaultServer(certificate)
    person = TroubledClinician(bench)
    driver.type_text(person.ui.serverComboBox, server.url)
    person.click("connectButton")
    person.wait(lambda: person.view.connection.state == "untrusted", 10)
    assert "certificate" in person.ui.statusText.text and not person.ui.accessSection.collapsed
    assert not server.received  # nothing was told to who cannot prove who it is
    person.usable()
    person.click("untrustedCheckBox")
    person.reconnect()
    person.click("untrustedCheckBox")
    person.ui.certificatePath.currentPath = str(certificate)
    person.reconnect()
    assert person.next_sample() == "case_0"
    server.die()
