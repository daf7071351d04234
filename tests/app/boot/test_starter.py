"""A starter model from its making to the clinician: made by the script, offered by a server, named where it is used."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lib.boot.setup import Setup
from lib.errors import StartupError
from typer.testing import CliRunner

from rep3d.checkpoint import load_checkpoint
from rep3d.cli.main import app as command_line
from rep3d.data.cases import Case
from rep3d.errors import Rep3DError, TaskError
from rep3d.training.train import TrainSettings, train
from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore
from tests.app.data import CONF, LABELS, publish_small_model, unchanged, write_image, write_label
from tests.app.server import ROOT, AppServer

sys.path.append(str(ROOT / "scripts"))

import make_starter

SOURCE = {"name": "Heads and tails", "reference": "A. Maker, 2026", "licence": "CC-BY-SA 4.0"}
TINY = ["--preset", "segresnet", "--patch", "16", "16", "16", "--iterations", "2", "--minutes", "5", "--device", "cpu"]


def write_data_set(folder: Path, **said: Any) -> Path:
    """Write a data set of five cases to train on and two to measure on."""
    for number in range(7):
        write_image(folder / "imagesTr" / f"case_{number}.nii.gz", number)
        write_label(folder / "labelsTr" / f"case_{number}.nii.gz", number)
    description = {**SOURCE, "labels": LABELS, "modality": {"0": "MRI"}, **said}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a starter model that the script has made."""
    folder = tmp_path_factory.mktemp("starters")
    data = write_data_set(tmp_path_factory.mktemp("data"))
    state = tmp_path_factory.mktemp("state")
    command = ["--data", str(data), "--state", str(state), "--name", "toy", "--out", str(folder), *TINY]
    make_starter.main(command)
    with pytest.raises(Rep3DError, match="holds a run with other settings or cases"):
        make_starter.main([*command, "--seed", "1"])
    trained = (state / "trained.pt").stat().st_mtime_ns
    (folder / "toy.md").unlink()
    make_starter.main(command)  # as after a kill while it measured
    assert (state / "trained.pt").stat().st_mtime_ns == trained
    return folder


def test_the_card_says_what_was_measured(made: Path) -> None:
    result = json.loads((made / "toy.json").read_text(encoding="utf-8"))
    page = (made / "toy.md").read_text(encoding="utf-8")
    card = " ".join(page.split())
    checkpoint = load_checkpoint(made / "toy.pt")
    assert (
        set(result["by_case"])
        == {"case_2", "case_6"}
        == set(json.loads((made / "toy_split.json").read_text())["held_out"])
    )
    assert checkpoint.info["cases"] == ["case_0", "case_1", "case_3", "case_4", "case_5"]
    for label, row in result["dice"].items():
        assert row["mean"] == pytest.approx(sum(case[label] for case in result["by_case"].values()) / 2, abs=1e-4)
        assert checkpoint.info["starter"]["dice"][label] == row["mean"]
        assert f"\n| {label} | {row['mean']:.3f} |" in page
    for words in (
        "A. Maker, 2026",
        "CC-BY-SA 4.0",
        "2 steps of 2 patches of 16 x 16 x 16 voxels",
        result["machine"]["cpu"],
    ):
        assert words in card
    assert result["file"]["bytes"] == (made / "toy.pt").stat().st_size < 3e6
    assert checkpoint.info["precision"] == "float16"


def test_data_that_may_not_be_passed_on_are_refused(tmp_path: Path) -> None:
    command = ["--state", str(tmp_path / "state"), "--name", "toy", "--out", str(tmp_path / "out"), *TINY]
    for change, words in (({"reference": ""}, "lacks reference"), ({"licence": "research only"}, "'research only'")):
        data = write_data_set(tmp_path / words, **change)
        with pytest.raises(TaskError, match=words):
            make_starter.main(["--data", str(data), *command])
    assert not (tmp_path / "out").exists()


def test_it_is_offered_only_where_nothing_was_trained_and_nothing_else_was_asked_for(
    made: Path, tmp_path: Path
) -> None:
    write_image(tmp_path / "case_0.nii.gz")
    conf = {**CONF, "starter": str(made)}
    with unchanged(tmp_path):
        model = Setup.find(str(tmp_path), conf).models["rep3d"]
        assert (model.starter, model.preset, model.labels) == (made / "toy.pt", "segresnet", LABELS)
        refusals = {
            "off": {"starter": "off"},
            "other labels": {"labels": "head,neck"},
            "more labels": {"labels": "head=1,tail=3,neck=4"},
            "another kind of image": {"modality": "CT"},
            "another network": {"preset": "tiny"},
            "another prior": {"variant": "fixed", "preset": "tiny"},
        }
        for why, change in refusals.items():
            found = Setup.find(str(tmp_path), {**conf, **change}).models["rep3d"]
            assert (found.starter, found.task) == (None, None), why
        assert (
            "not used, because of --conf preset tiny"
            in Setup.find(str(tmp_path), {**conf, "preset": "tiny"}).models["rep3d"].notes[0]
        )
        with pytest.raises(StartupError, match="there is no folder"):
            Setup.find(str(tmp_path), {**conf, "starter": str(tmp_path / "nowhere")})
    run = tmp_path / "rep3d" / "models" / "rep3d" / "run"
    run.mkdir(parents=True)
    assert Setup.find(str(tmp_path), conf).models["rep3d"].starter is None
    run.rmdir()
    publish_small_model(tmp_path)
    found = Setup.find(str(tmp_path), conf).models["rep3d"]
    assert (found.starter, found.task.name) == (None, "test")


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    studies = tmp_path_factory.mktemp("studies")
    for number in (20, 21):
        write_image(studies / f"image_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "image_20.nii.gz", 20)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {**CONF, "starter": str(made)}) as running:
        yield running


def test_it_segments_at_once_and_says_what_it_is(server: AppServer) -> None:
    ours = server.get("/info/").json()["rep3d"]["models"]["rep3d"]
    assert (ours["version"], ours["starter"]["name"], ours["preset"]) == ("v1", "toy", "segresnet")
    words = ours["attribution"]
    assert words.startswith(
        "Starter model toy, trained on 5 cases of Heads and tails (A. Maker, 2026). Dice on 2 others"
    )
    assert words in server.log and "begins with a starter model" in server.log
    answer = server.post("/infer/rep3d", params={"image": "image_21", "output": "json"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["version"], answer.json()["attribution"]) == ("v1", words)
    status = server.get("/rep3d/status").json()["models"]["rep3d"]
    assert (status["version"], status["attribution"]) == ("v1", words)
    (first,) = server.get("/rep3d/models/rep3d/versions").json()["versions"]
    assert (first["origin"], first["attribution"], first["mean_score"]) == ("starter", words, None)


def test_what_is_trained_on_from_it_says_so_and_is_never_replaced_by_it(
    server: AppServer, made: Path, tmp_path: Path
) -> None:
    case = Case("image_20", server.studies / "image_20.nii.gz", server.studies / "labels/final/image_20.nii.gz")
    start = load_checkpoint(made / "toy.pt")
    settings = TrainSettings(1, preset="segresnet", device="cpu")
    trained = train([case], start.task, settings, tmp_path / "trained.pt", start)
    store = VersionStore(server.studies / "rep3d" / "models" / "rep3d")
    store.publish(store.add(trained, VersionRecord()).version, "test", "trained on")
    second = server.get("/rep3d/models/rep3d/versions").json()["versions"][1]
    assert (second["origin"], second["parent"], second["starter"]["descends"]) == ("trained", "v1", True)
    words = second["attribution"]
    assert words.startswith("Descends from the starter model toy, which was trained on 5 cases of Heads and tails")
    ours = server.get("/info/").json()["rep3d"]["models"]["rep3d"]
    assert (ours["version"], ours["attribution"]) == ("v2", words)
    shown = CliRunner().invoke(command_line, ["versions", str(server.studies)], env={"COLUMNS": "200"}).output
    assert "from the starter model" in shown
    found = Setup.find(str(server.studies), {**CONF, "starter": str(made)}).models["rep3d"]
    assert found.starter is None and store.begin_with(made / "toy.pt") is None
    assert load_checkpoint(found.workspace.published).info.get("precision") is None
