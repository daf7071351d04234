"""Versions over HTTP, and by the command line beside the running server: one folder, one truth."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.cli.main import app as command_line
from rep3d.evaluation.gate import decide, label_means
from rep3d.inference.tuned import Tuned, Way, weights_mark
from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore
from tests.app.data import CONF, publish_small_model, unchanged, write_image
from tests.app.server import AppServer

MODEL = "/rep3d/models/rep3d"
OLD, NEW = {"x": {"head": 0.4, "tail": 0.5}}, {"x": {"head": 0.6, "tail": 0.7}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with a checkpoint that was put there (v1), and two more versions that a training could have
    made."""
    studies = tmp_path_factory.mktemp("versions")
    write_image(studies / "case_0.nii.gz")
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        store = _store(running)
        for mark, scores in ((2, OLD), (3, NEW)):
            checkpoint = load_checkpoint(store.checkpoint("v1"))
            with torch.no_grad():
                checkpoint.model.out.conv.conv.bias[0] = 10.0 * mark
            made = Checkpoint(checkpoint.model, checkpoint.task, {"created": f"2024-0{mark}", "parent": "v1"})
            decision = decide(scores, OLD if mark == 3 else None).to_dict()
            record = VersionRecord(
                case_scores=scores, scores=label_means(scores), decision=decision, validation_kind="held-out"
            )
            store.add(made, record)
        yield running


def _store(server: AppServer) -> VersionStore:
    return VersionStore(server.studies / "rep3d" / "models" / "rep3d")


@pytest.fixture(autouse=True)
def _first_version_published(server: AppServer) -> Iterator[None]:
    yield
    _store(server).publish("v1", "test", "as before")


def _version_that_answers(server: AppServer) -> str:
    return server.post("/infer/rep3d", params={"image": "case_0", "output": "json"}).json()["version"]


def _run(server: AppServer, *arguments: str) -> str:
    result = CliRunner().invoke(command_line, ["versions", str(server.studies), *arguments], env={"COLUMNS": "300"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_list(server: AppServer) -> None:
    answer = server.get(f"{MODEL}/versions").json()
    assert (answer["model"], answer["published"], answer["error"]) == ("rep3d", "v1", None)
    first, second, third = answer["versions"]
    assert (first["version"], first["origin"], first["published"], first["decision"]) == ("v1", "adopted", True, None)
    assert (second["scores"], second["mean_score"]) == ({"head": 0.4, "tail": 0.5}, pytest.approx(0.45))
    assert third["decision"]["difference"] == pytest.approx(0.2)
    assert third["decision"]["reason"].startswith("published: mean Dice 0.650 against 0.450")
    assert third["published"] is False
    assert all(version["bytes"] > 1000 for version in answer["versions"])
    assert answer["publications"][0]["version"] == "v1"


def test_one_in_full(server: AppServer) -> None:
    answer = server.get(f"{MODEL}/versions/v3").json()
    assert (answer["case_scores"], answer["parent"], answer["labels"]) == (NEW, "v1", {"head": 1, "tail": 3})


def test_publishing_and_rolling_back_change_the_answers_at_once(server: AppServer) -> None:
    assert _version_that_answers(server) == "v1"
    answer = server.post(f"{MODEL}/versions/v3/publish", json={"by": "anna", "reason": "looks better"})
    assert (answer.status_code, answer.json()["published"]) == (200, True)
    assert _version_that_answers(server) == "v3"
    entry = server.get(f"{MODEL}/versions").json()["publications"][-1]
    assert (entry["version"], entry["by"], entry["reason"], entry["rollback"]) == ("v3", "anna", "looks better", False)
    assert server.get("/info/").json()["rep3d"]["version"] == "v3"
    assert server.post(f"{MODEL}/rollback", json={"by": "bert"}).json()["version"] == "v1"
    assert _version_that_answers(server) == "v1"
    assert server.get(f"{MODEL}/versions").json()["publications"][-1]["reason"] == "rolled back from v3"


def test_a_faster_way_is_told_with_the_version_and_with_each_answer(server: AppServer) -> None:
    plain = server.post("/infer/rep3d", params={"image": "case_0", "output": "json"}).json()
    assert plain["version"] == "v1" and plain["tuned"] is None
    store = _store(server)
    mark = weights_mark(load_checkpoint(store.checkpoint("v1")))
    record = Tuned(Way(overlap=0.25), 0.7, 0.701, 2.0, 5.0, ["a", "b"], "a processor", "2026-01-01", mark)
    store.keep_tuned("v1", record.to_dict())
    answer = server.post("/infer/rep3d", params={"image": "case_0", "output": "json"}).json()
    assert answer["tuned"] == record.words and answer["version"] == "v1"
    versions = {each["version"]: each["tuned"] for each in server.get(f"{MODEL}/versions").json()["versions"]}
    assert versions == {"v1": record.to_dict(), "v2": None, "v3": None}


def test_requests_while_versions_change_get_one_or_the_other(server: AppServer) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(_version_that_answers, server) for _ in range(8)]
        for number in range(8):
            server.post(f"{MODEL}/versions/v{number % 3 + 1}/publish")
        assert {answer.result() for answer in answers} <= {"v1", "v2", "v3"}


def test_checkpoint_download_loads(server: AppServer, tmp_path: Path) -> None:
    answer = server.get(f"{MODEL}/versions/v3/checkpoint")
    assert 'filename="rep3d-v3.pt"' in answer.headers["content-disposition"]
    (tmp_path / "model.pt").write_bytes(answer.content)
    assert load_checkpoint(tmp_path / "model.pt").version == "v3"


@pytest.mark.slow
def test_onnx_download_computes(server: AppServer) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    answer = server.get(f"{MODEL}/versions/v2/onnx", timeout=300)
    assert answer.status_code == 200, answer.text
    assert 'filename="rep3d-v2.onnx"' in answer.headers["content-disposition"]
    model = onnx.load(io.BytesIO(answer.content))
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert (facts["version"], facts["labels"]) == ("v2", {"head": 1, "tail": 3})


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/rep3d/models/liver/versions", 404, "There is no model 'liver'"),
        ("GET", f"{MODEL}/versions/v9", 404, "There is no version 'v9'. There are: v1, v2, v3"),
        ("GET", f"{MODEL}/versions/v9/checkpoint", 404, "no version 'v9'"),
        ("GET", f"{MODEL}/versions/..%2F..%2Froles.json/onnx", 404, ""),
        ("POST", f"{MODEL}/versions/v9/publish", 404, "no version 'v9'"),
        ("DELETE", f"{MODEL}/versions/v9", 404, "no version 'v9'"),
        ("DELETE", f"{MODEL}/versions/v1", 409, "Version v1 is published, so it cannot be deleted"),
    ],
)
def test_what_cannot_be_done_changes_nothing(
    server: AppServer, method: str, path: str, status: int, words: str
) -> None:
    with unchanged(server.studies / "rep3d"):
        answer = server.request(method, path)
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text


def test_what_could_not_answer_is_not_published(server: AppServer) -> None:
    store = _store(server)
    checkpoint = load_checkpoint(store.checkpoint("v1"))
    other = Checkpoint(checkpoint.model, replace(checkpoint.task, labels={"spleen": 1, "liver": 3}), checkpoint.info)
    made = store.add(other, VersionRecord())
    try:
        answer = server.post(f"{MODEL}/versions/{made.version}/publish")
        assert answer.status_code == 409 and "was trained for the labels liver, spleen" in answer.json()["detail"]
        assert store.published() == "v1"
    finally:
        store.delete(made.version)


@pytest.mark.parametrize("params", [{"by": 5}, {"reason": "x" * 1000}, [1]])
def test_unusable_words_are_422(server: AppServer, params: object) -> None:
    assert server.post(f"{MODEL}/versions/v2/publish", json=params).status_code == 422
    assert _store(server).published() == "v1"


def test_command_line_beside_the_server(server: AppServer, tmp_path: Path) -> None:
    listed = _run(server)
    for words in ("v1 (published)", "adopted", "v3", "0.650", "head 0.600", "tail 0.700", "slightly optimistic"):
        assert words in listed
    assert "Began from" in _run(server, "show", "v3")
    assert "Published v2" in _run(server, "publish", "v2", "--by", "anna", "--reason", "by hand")
    assert _version_that_answers(server) == "v2"
    assert "Published v1 again" in _run(server, "rollback")
    assert _version_that_answers(server) == "v1"
    _run(server, "export", "v2", "--output", str(tmp_path / "v2.pt"))
    assert load_checkpoint(tmp_path / "v2.pt").version == "v2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show"], "needs a version such as v3, got none"),
        (["rollback", "v2"], "needs no version"),
        (["publish", "v9"], "There is no version 'v9'. There are: v1, v2, v3"),
        (["delete", "v1"], "Version v1 is published, so it cannot be deleted"),
        (["export", "v2"], "must end in .pt or .onnx, got none"),
        (["list", "--model", "liver"], "name one of rep3d; got liver"),
    ],
)
def test_command_line_refuses_in_words(server: AppServer, arguments: list[str], words: str) -> None:
    with unchanged(server.studies / "rep3d"), pytest.raises(Exception, match=words.replace(".", r"\.")):
        _run(server, *arguments)


def test_command_line_without_a_server(tmp_path: Path) -> None:
    result = CliRunner().invoke(command_line, ["versions", str(tmp_path)])
    assert "No server has been started on" in str(result.exception)


def test_deleting_last(server: AppServer) -> None:
    answer = server.request("DELETE", f"{MODEL}/versions/v2")
    assert (answer.status_code, answer.json()["bytes"]) == (200, 0)
    assert [v["version"] for v in server.get(f"{MODEL}/versions").json()["versions"]] == ["v1", "v3"]
    full = server.get(f"{MODEL}/versions/v2").json()  # labels may name it
    assert (full["scores"], full["deleted"] is not None) == ({"head": 0.4, "tail": 0.5}, True)
    answer = server.post(f"{MODEL}/versions/v2/publish")
    assert (answer.status_code, "The weights of version v2 were deleted" in answer.json()["detail"]) == (404, True)
    assert np.isclose(full["mean_score"], 0.45)
