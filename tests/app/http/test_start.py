"""Starting: what is found where, and every reason not to start, with its message and without touching anything."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.data import CONF, snapshot, write_image
from tests.app.server import AppServer

REASON = "Rep3D Label cannot start: "
# Root may write everywhere; this takes that right from it.
WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")


class Refusal:
    """A server that should not start, and its folder as it was before."""

    def __init__(self, server: AppServer) -> None:
        self.server = server
        self.before = snapshot(server.studies)
        self.names_before = sorted(path.name for path in server.studies.iterdir())
        self.log = ""

    def untouched(self) -> bool:
        """Return whether the folder is as it was."""
        names = sorted(path.name for path in self.server.studies.iterdir())
        return snapshot(self.server.studies) == self.before and names == self.names_before


def _without_labels(folder: Path, scratch: Path) -> AppServer:
    write_image(folder / "case.nii.gz")
    return AppServer(folder, scratch)


def _with_a_map_that_contradicts(folder: Path, scratch: Path) -> AppServer:
    (folder / "rep3d").mkdir()
    stored = {"labels": {"liver": 1, "head": 2}, "models": {"rep3d": ["liver", "head"]}, "served": ["rep3d"]}
    (folder / "rep3d" / "labels.json").write_text(json.dumps(stored), encoding="utf-8")
    return AppServer(folder, scratch, CONF)


def _on_a_folder_that_cannot_be_written(folder: Path, scratch: Path) -> AppServer:
    write_image(folder / "case.nii.gz")
    folder.chmod(0o555)
    return AppServer(folder, scratch, CONF, prefix=WITHOUT_OVERRIDE if os.name != "nt" and os.geteuid() == 0 else ())


MAKERS = {
    "labels": _without_labels,
    "map": _with_a_map_that_contradicts,
    "unwritable": _on_a_folder_that_cannot_be_written,
}


def _rights_can_be_taken() -> bool:
    return os.name != "nt" and (os.geteuid() != 0 or shutil.which(WITHOUT_OVERRIDE[0]) is not None)


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Refusal]]:
    """Yield servers that should not start, all launched at once, because each takes ten seconds to say so."""
    found = {}
    busy = socket.socket()
    try:
        for name, make in MAKERS.items():
            if name == "unwritable" and not _rights_can_be_taken():
                continue
            found[name] = Refusal(make(tmp_path_factory.mktemp(name), tmp_path_factory.mktemp("scratch")))
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        folder = tmp_path_factory.mktemp("port")
        scratch = tmp_path_factory.mktemp("scratch")
        found["port"] = Refusal(AppServer(folder, scratch, CONF, port=busy.getsockname()[1]))
        for refusal in found.values():
            refusal.server.launch()
        for refusal in found.values():
            refusal.log = refusal.server.wait_until_refused()
        yield found
    finally:
        busy.close()
        for refusal in found.values():
            refusal.server.stop()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("labels", ["does not know the label names", "--conf labels a,b", "dataset.json", "published model"]),
        (
            "map",
            [
                "contradict those stored in",
                "liver=1,head=2",
                "head=1, but that value stands for 'liver'",
                "labels.json",
            ],
        ),
        ("unwritable", ["could not keep labels in", "Permission denied", "--studies"]),
        ("port", ["cannot listen on 127.0.0.1 port", "Address already in use", "--port"]),
    ],
)
def test_refuses_to_start(refusals: dict[str, Refusal], name: str, words: list[str]) -> None:
    if name not in refusals:
        pytest.skip("this user may write everywhere")
    refusal = refusals[name]
    assert refusal.log.count(REASON) == 1
    reason = refusal.log[refusal.log.index(REASON) :]
    for word in words:
        assert word in reason
    assert "Traceback" not in refusal.log
    assert "Application startup failed" in reason  # nothing else of substance comes after the reason
    assert refusal.untouched()


def test_starts_on_an_empty_folder_with_labels(tmp_path: Path) -> None:
    studies, scratch = tmp_path / "empty", tmp_path / "scratch"
    studies.mkdir()
    scratch.mkdir()
    with AppServer(studies, scratch, CONF, forked=False) as server:
        info = server.get("/info/").json()
        assert info["labels"] == ["head", "tail"]
        assert info["datastore"]["total"] == 0
        ours = info["rep3d"]
        assert ours["labels"] == ours["models"]["rep3d"]["labels"] == {"head": 1, "tail": 3}
        assert (ours["default_model"], ours["version"], ours["error"]) == ("rep3d", None, None)
        assert (ours["device"], ours["preset"]) == ("cpu", "tiny")
        assert list(info["models"]) == ["rep3d"]
        wanted = {"first", "random", "entropy", "uncertainty", "margin", "tta", "coreset", "hybrid"}
        assert set(info["strategies"]) == wanted
        assert info["train_stats"] == {"rep3d": {}}
        for strategy in info["strategies"]:
            answer = server.post(f"/activelearning/{strategy}", json={})
            assert (answer.status_code, "Add one" in answer.json()["detail"]) == (404, True)
        answer = server.post("/train/rep3d", json={})
        assert (answer.status_code, "Submit a label" in answer.json()["detail"]) == (409, True)
        answer = server.post("/scoring/uncertainty")
        assert (answer.status_code, "no trained model yet" in answer.json()["detail"]) == (409, True)
        being_written = studies / "rep3d" / f".scores.json.{'0' * 32}.part"
        being_written.write_text("{")
        second = AppServer(studies, scratch, CONF)
        second.launch()
        assert "Another server runs on the studies folder" in second.wait_until_refused()
        assert being_written.exists()
    # A server that is asked to end does its clean-up, and leaves no folder of uploads behind.
    assert server.orderly
    assert not list((scratch / "tmp").glob("rep3d-label-*"))
