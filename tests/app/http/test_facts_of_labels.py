"""An author's work stays his: images that go away and come back, copies, kills, against a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.app.data import CONF, write_image, write_label
from tests.app.server import AppServer

MADE = ("author", "time", "source", "state", "review", "lease")


def _wait(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


class Desk:
    """A server, and whoever works with it."""

    def __init__(self, server: AppServer, sent: Path) -> None:
        self.server = server
        self.sent = sent

    def submit(self, case: str, user: str, seed: int) -> None:
        with write_label(self.sent / f"{case}-{seed}.nii.gz", seed).open("rb") as file:
            params = {"params": json.dumps({"user": user, "model_version": "v7"})}
            answer = self.server.put("/datastore/label", params={"image": case}, files={"label": file}, data=params)
        assert answer.ok, answer.text

    def made(self, case: str) -> dict[str, Any]:
        found = self.server.get(f"/rep3d/cases/{case}").json()
        return {key: found.get(key) for key in MADE}

    def listed(self) -> list[str]:
        return sorted(case["id"] for case in self.server.get("/rep3d/cases").json())


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_an_authors_work_stays_his(tmp_path: Path) -> None:
    studies, scratch, away = tmp_path / "studies", tmp_path / "scratch", tmp_path / "away"
    for folder in (scratch, away):
        folder.mkdir()
    names = [f"case_{number}" for number in range(4)]
    images = [write_image(studies / f"{name}.nii.gz", number) for number, name in enumerate(names)]
    final = studies / "labels" / "final"
    with AppServer(studies, scratch, CONF) as server:
        desk = Desk(server, tmp_path / "sent")
        for number, name in enumerate(names[:3]):
            desk.submit(name, "anna", number)
        assert server.post("/rep3d/cases/case_1/review", json={"user": "carl"}).ok
        assert server.post("/rep3d/leases/case_3", json={"user": "dora"}).ok
        before = {name: desk.made(name) for name in names}
        assert (before["case_0"]["author"], before["case_0"]["source"]["version"]) == ("anna", "v7")
        assert (before["case_1"]["review"]["user"], before["case_3"]["lease"]["user"]) == ("carl", "dora")
        # All images are away, as those of a drive that is unmounted, and come back while the server runs.
        for image in images:
            image.rename(away / image.name)
        _wait(lambda: desk.listed() == [])
        for image in images:
            (away / image.name).rename(image)
        _wait(lambda: desk.listed() == names)
        assert {name: desk.made(name) for name in names} == before
        # Replaced by copies: the image's watcher sees one go and one come.
        for file in (images[0], final / images[0].name):
            shutil.copyfile(file, away / file.name)
            file.unlink()
            shutil.copyfile(away / file.name, file)
        _wait(lambda: desk.made("case_0") == before["case_0"])
        for image in images[:2]:
            image.rename(away / image.name)
        _wait(lambda: desk.listed() == names[2:])
    with AppServer(studies, scratch, CONF) as server:
        desk = Desk(server, tmp_path / "sent")
        assert desk.listed() == names[2:]
    # They come back while no server runs; one label is put there by hand, and one image is another one.
    for image in images[:2]:
        (away / image.name).rename(image)
    shutil.copyfile(write_label(tmp_path / "hand.nii.gz", 7), final / "case_1.nii.gz")
    write_image(images[2], 5)
    with AppServer(studies, scratch, CONF) as server:
        desk = Desk(server, tmp_path / "sent")
        made = {name: desk.made(name) for name in names}
        assert {name: made[name] for name in ("case_0", "case_2", "case_3")} == {
            name: before[name] for name in ("case_0", "case_2", "case_3")
        }
        assert (made["case_1"]["author"], made["case_1"]["source"], made["case_1"]["review"]) == (None, None, None)
        told = {case["id"]: case.get("label_error") for case in server.get("/rep3d/cases").json()}
        assert "voxels of image case_2 are others" in (told["case_2"] or "")
        assert not any(told[name] for name in ("case_0", "case_1", "case_3"))
        os.kill(server.pid, signal.SIGKILL)
    with AppServer(studies, scratch, CONF) as server:
        desk = Desk(server, tmp_path / "sent")
        assert desk.made("case_0") == before["case_0"]
        desk.submit("case_2", "anna", 2)
        assert "label_error" not in server.get("/rep3d/cases/case_2").json()
