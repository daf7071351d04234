"""Several models on one server, a model for other labels, and labels that are extended over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.checkpoint import load_checkpoint
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer

EXTENDED = {"labels": "tail,head,neck", "device": "cpu"}
SHORT = {"iterations": 2, "max_minutes": 1, "score_minutes": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {name: tmp_path_factory.mktemp(name) for name in ("several", "extended", "other", "scratch")}
    for name in ("several", "extended", "other"):
        for number in range(2):
            write_image(found[name] / f"case_{number}.nii.gz", number)
    for name in ("extended", "other"):
        publish_small_model(found[name])
    write_label(found["extended"] / "labels" / "final" / "case_0.nii.gz", 0)
    return found


@pytest.fixture(scope="module")
def servers(folders: dict[str, Path]) -> Iterator[dict[str, AppServer]]:
    """Yield servers started side by side: importing MONAI Label takes ten seconds."""
    scratch = folders["scratch"]
    confs = {
        "several": {"models": "msd_hippocampus,kits", "device": "cpu"},
        "extended": CONF,
        "other": {"labels": "spleen", "device": "cpu"},
    }
    with ExitStack() as stack:
        running = {name: AppServer(folders[name], scratch, conf) for name, conf in confs.items()}
        for server in running.values():
            stack.callback(server.stop)
            server.launch()
        for server in running.values():
            server.wait_until_ready()
        yield running


def _map(folder: Path) -> dict:
    return json.loads((folder / "rep3d" / "labels.json").read_text(encoding="utf-8"))


def test_several_models_are_served_with_their_labels(servers: dict[str, AppServer], folders: dict[str, Path]) -> None:
    info = servers["several"].get("/info/").json()
    ours = info["rep3d"]
    assert list(info["models"]) == ["msd_hippocampus", "kits"] and ours["default_model"] == "msd_hippocampus"
    labels = {name: model["labels"] for name, model in ours["models"].items()}
    assert labels == {
        "msd_hippocampus": {"Anterior": 1, "Posterior": 2},
        "kits": {"kidney": 3, "tumor": 4, "cyst": 5},
    }
    assert ours["labels"] == {**labels["msd_hippocampus"], **labels["kits"]} == _map(folders["several"])["labels"]
    assert info["labels"] == ["Anterior", "Posterior", "kidney", "tumor", "cyst"]
    assert ours["models"]["kits"]["terms"]["cyst"]["type"]["meaning"] == "Cyst"
    assert set(info["trainers"]) == {"msd_hippocampus", "kits"}
    for model in labels:
        answer = servers["several"].post(f"/infer/{model}", params={"image": "case_0"})
        assert (answer.status_code, "no trained model yet" in answer.json()["detail"]) == (409, True)


def test_a_model_without_any_of_the_labels_answers_409(servers: dict[str, AppServer]) -> None:
    server = servers["other"]
    assert "knows none of the labels spleen" in server.log
    # "head" and "tail" are values that label files may contain: another name does not get them.
    assert server.get("/info/").json()["rep3d"]["labels"] == {"spleen": 2}
    answer = server.post("/infer/rep3d", params={"image": "case_0"})
    assert answer.status_code == 409
    for words in ("spleen", "head", "tail", "labels"):
        assert words in answer.json()["detail"]
    # Training is not refused for that: it would begin from the body (what is missing here is a label).
    answer = server.post("/train/rep3d", json={})
    assert (answer.status_code, "Submit a label" in answer.json()["detail"]) == (409, True)


def test_labels_are_extended_over_a_restart(servers: dict[str, AppServer], folders: dict[str, Path]) -> None:
    studies, scratch = folders["extended"], folders["scratch"]
    assert _map(studies)["labels"] == {"head": 1, "tail": 3}
    servers["extended"].stop()
    body = _body(studies)
    with AppServer(studies, scratch, EXTENDED) as server:
        model = server.get("/info/").json()["rep3d"]["models"]["rep3d"]
        assert model["labels"] == {"head": 1, "neck": 2, "tail": 3} == _map(studies)["labels"]
        assert model["head"] == {"kept": ["head", "tail"], "added": ["neck"], "dropped": []}
        assert "the model knows head, tail; its body is kept and only the head's rows of neck begin anew" in server.log
        # What it knows, it goes on to segment, with the values of old.
        answer = server.post("/infer/rep3d", params={"image": "case_1", "output": "image"})
        assert answer.status_code == 200, answer.text
        file = scratch / "found.nii.gz"
        file.write_bytes(answer.content)
        assert set(np.unique(np.asarray(nib.load(file).dataobj))) <= {0, 1, 3}
        # The next training begins from it.
        assert server.post("/train/rep3d", json=SHORT).status_code == 200
        stats = server.wait_for_training()
        assert stats["phase"] == "done", (stats["error"], server.log[-2000:])
        assert "only the head's rows of neck begin anew" in stats["head"]
    trained = load_checkpoint(studies / "rep3d" / "models" / "rep3d" / "published.pt")
    assert trained.task.labels == {"head": 1, "neck": 2, "tail": 3}
    assert (trained.version, trained.info["parent"], trained.info["head"]["added"]) == ("v2", "v1", ["neck"])
    # Two steps move the body a little; a fresh one would be somewhere else altogether.
    moved = np.linalg.norm(_body(studies) - body) / np.linalg.norm(body)
    assert 0 < moved < 0.2, moved


def _body(studies: Path) -> np.ndarray:
    """Return all weights but the head's, of the published model, in one vector."""
    model = load_checkpoint(studies / "rep3d" / "models" / "rep3d" / "published.pt").model
    return np.concatenate(
        [tensor.detach().numpy().ravel() for name, tensor in model.named_parameters() if not name.startswith("out.")]
    )
