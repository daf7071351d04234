"""The demo: its cases never leak, its judgement is honest, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
from Rep3DLabelLib.client import Rep3DClient
from typer.testing import CliRunner

from rep3d.cli.main import app as command_line
from rep3d.data.cases import Case
from rep3d.data.cohort import Cohort, decathlon_cohort, phantom_cohort
from rep3d.demo.play import DemoError, DemoPlan, Player
from rep3d.demo.report import RoundResult
from rep3d.demo.server import ServerError, ServerProcess, free_port
from rep3d.errors import ConfigError, Rep3DError, TaskError
from rep3d.training.preparing import why_unusable


def test_phantom_cohort_splits_without_overlap_and_every_geometry_is_in_the_pool(tmp_path: Path) -> None:
    cohort = phantom_cohort(tmp_path, 6, 2, seed=3)
    assert [len(cohort.pool), len(cohort.held_out)] == [6, 2]
    assert not {c.id for c in cohort.pool} & {c.id for c in cohort.held_out}
    assert cohort.labels == {"Head": 1, "Tail": 2}
    assert all(c.image.is_file() and c.label.is_file() for c in (*cohort.pool, *cohort.held_out))


def _decathlon(folder: Path, count: int) -> Path:
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for index in range(count):
            (folder / part / f"case_{index}.nii.gz").write_bytes(b"x")
    (folder / "imagesTr" / "unlabelled.nii.gz").write_bytes(b"x")
    (folder / "imagesTr" / "._case_0.nii.gz").touch()
    (folder / "dataset.json").write_text(json.dumps({"name": "Toy", "labels": {"1": "A"}, "modality": {"0": "CT"}}))
    return folder


def test_decathlon_cohort_takes_labelled_cases_at_random_by_seed(tmp_path: Path) -> None:
    folder = _decathlon(tmp_path, 10)
    one, two, again = (decathlon_cohort(folder, 5, 5, seed) for seed in (1, 2, 1))
    assert (one.name, one.modality, one.labels) == ("Toy", "CT", {"A": 1})
    assert {c.id for c in (*one.pool, *one.held_out)} == {f"case_{i}" for i in range(10)}
    assert one == again and one.pool != two.pool


def test_images_of_several_channels_reach_the_server_as_one_file(tmp_path: Path) -> None:
    data, voxels = tmp_path / "data", np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    for part in ("imagesTr", "labelsTr"):
        (data / part).mkdir(parents=True)
    for case in "ab":
        nib.save(nib.Nifti1Image(voxels // 59, np.eye(4)), data / "labelsTr" / f"{case}.nii.gz")
        for channel in range(2 if case == "a" else 1):
            nib.save(nib.Nifti1Image(voxels + channel, np.eye(4)), data / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
    names = {"0": "T1", "1": "FLAIR"}
    (data / "dataset.json").write_text(json.dumps({"labels": {"A": 1}, "channel_names": names}))
    cohort = decathlon_cohort(data, 1, 0, 0, why_unusable)
    assert cohort.channels == ("T1", "FLAIR") and [case.id for case in cohort.pool] == ["a"]
    with pytest.raises(TaskError, match="b_0000.nii.gz: 1 channel, where 2 are needed"):
        decathlon_cohort(data, 1, 1, 0, why_unusable)
    player = Player(cohort, DemoPlan(submit=1, rounds=1), tmp_path / "run")
    player.prepare()
    image = nib.load(player.studies / "a.nii.gz")
    assert np.array_equal(image.dataobj, np.stack([voxels, voxels + 1], -1))
    assert json.loads((player.studies / "dataset.json").read_text())["modality"] == names


def test_cases_that_a_starter_model_has_seen_are_not_taken(tmp_path: Path) -> None:
    seen = {f"case_{i}" for i in range(0, 10, 2)}
    cohort = decathlon_cohort(_decathlon(tmp_path, 10), 2, 3, 0, without=seen)
    assert {case.id for case in (*cohort.pool, *cohort.held_out)} == {f"case_{i}" for i in range(1, 10, 2)}
    with pytest.raises(TaskError, match="5 of 12 can be used.* 5 are not taken, as the model was trained on them"):
        decathlon_cohort(tmp_path, 3, 3, 0, without=seen)


def test_a_demo_from_a_starter_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    data = _decathlon(tmp_path / "data", 3)
    for arguments, words in (
        (["--starter", "on"], "the generated images have labels of their own"),
        (["--starter", str(tmp_path), "--data", str(data)], "there is no starter model for the labels A"),
    ):
        result = CliRunner().invoke(command_line, ["demo", "--out", str(tmp_path / "out"), *arguments])
        assert isinstance(result.exception, Rep3DError) and words in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_too_few_cases_or_no_dataset_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="it has no dataset.json"):
        decathlon_cohort(tmp_path, 1, 1, 0)
    for command in (["demo", "--data"], ["simulate"]):
        out = tmp_path / "out"
        result = CliRunner().invoke(command_line, [*command, str(tmp_path / "nowhere"), "--out", str(out)])
        assert "There is no folder" in str(result.exception) and not out.exists()
    with pytest.raises(TaskError, match="11 are needed .*and 10 of 12 can be used"):
        decathlon_cohort(_decathlon(tmp_path / "d", 10), 6, 5, 0)


@pytest.mark.parametrize(("submit", "rounds"), [(8, 4), (16, 4), (7, 3), (5, 5), (3, 1)])
def test_a_plan_submits_all_labels_and_spends_all_time(submit: int, rounds: int) -> None:
    plan = DemoPlan(submit=submit, rounds=rounds)
    new = [plan.new_labels(r) for r in range(1, rounds + 1)]
    assert sum(new) == submit and min(new) >= 1
    shares = [plan.share(r) for r in range(1, rounds + 1)]
    assert sum(shares) == pytest.approx(1) and shares == sorted(shares)


@pytest.mark.parametrize(
    "change", [{"rounds": 0}, {"rounds": 9}, {"iterations": 1}, {"minutes": 0}, {"minutes": float("nan")}]
)
def test_impossible_plans_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        DemoPlan(**change)


@pytest.mark.parametrize(
    ("means", "rises"), [([0.2, 0.6], True), ([0.6, 0.6], False), ([0.6, 0.2], False), ([0.4], True), ([0.0], False)]
)
def test_accuracy_that_does_not_rise_fails(tmp_path: Path, means: list[float], rises: bool) -> None:
    case = Case("a", tmp_path / "a", tmp_path / "a")
    player = Player(Cohort("x", {"A": 1}, None, (case,), (case,)), DemoPlan(submit=1, rounds=1), tmp_path)
    player.rounds = [RoundResult(0, 0, (), {}, 0.0, None)]
    player.rounds += [RoundResult(i + 1, i + 1, (), {"h": {"A": m}}, 1.0, "v") for i, m in enumerate(means)]
    if rises:
        player._judge()
    else:
        with pytest.raises(DemoError, match="did not get better"):
            player._judge()


@pytest.mark.slow
def test_a_server_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    with (
        ServerProcess(studies, tmp_path / "log.txt") as server,
        pytest.raises(ServerError, match="(?s)The server ended.*labels"),
    ):
        server.wait_until(lambda: False, timeout=120)
    assert not (studies / "rep3d").exists()


def test_without_distutils_the_server_is_not_started_and_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerError, match="distutils.*pip install setuptools"):
        ServerProcess(tmp_path, tmp_path / "log.txt")
    ServerProcess(tmp_path, tmp_path / "log.txt", python=Path("/another/environment/python"))


def test_free_port_is_free() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Yield an environment with a mark, by which every process that a test started can be found."""
    mark = f"rep3d-test-{os.getpid()}-{time.time_ns()}"
    yield {**os.environ, "REP3D_TEST_MARK": mark, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}
    for process in _marked(mark):
        process.kill()


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("REP3D_TEST_MARK") == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def _demo(out: Path, *arguments: str) -> list[str]:
    sizes = ["--submit", "2", "--rounds", "1", "--held-out", "2"]
    return [sys.executable, "-m", "rep3d.cli.main", "demo", "--out", str(out), *sizes, *arguments]


def test_the_whole_demo_with_a_real_server(tmp_path: Path, environment: dict[str, str]) -> None:
    played = subprocess.run(
        _demo(tmp_path, "--iterations", "6"), env=environment, capture_output=True, text=True, check=False
    )
    output = played.stdout + played.stderr
    assert played.returncode == 0, output
    assert "no model yet" in output and "Dice on 2 held-out cases" in output
    assert f"rep3d demo --serve --out {tmp_path}" in output
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no model yet" in report and "data:image/png;base64" in report
    (run,) = tmp_path.glob("run_*")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert [r["submitted"] for r in results["rounds"]] == [0, 2] and len(results["rounds"][1]["dice"]) == 2
    assert len(list((run / "studies" / "labels" / "final").glob("*.nii.gz"))) == 2
    assert (run / "studies" / "rep3d" / "models" / "rep3d" / "published.pt").is_file()
    assert not _marked(environment["REP3D_TEST_MARK"])


def _serve_and_interrupt(out: Path, environment: dict[str, str], version: str | None) -> None:
    """Start ``rep3d demo --serve``, ask for the page and the version in use, and end it by Ctrl-C."""
    process = subprocess.Popen(
        _demo(out, "--serve"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if "Ctrl-C stops it" in line:
            break
    address = re.search(r"in your browser: ((http://\S+)/rep3d/annotate/)", output)
    assert address, output
    assert "annotate.js" in requests.get(address[1], timeout=30).text
    assert Rep3DClient(address[2]).info().published_version == version
    process.send_signal(signal.SIGINT)
    output += process.communicate(timeout=60)[0]
    assert process.returncode == 0, output


@pytest.mark.slow
def test_to_paint_on_what_a_demo_left(tmp_path: Path, environment: dict[str, str]) -> None:
    subprocess.run(_demo(tmp_path, "--iterations", "6"), env=environment, capture_output=True, check=True)
    _serve_and_interrupt(tmp_path, environment, "v1")


@pytest.mark.slow
def test_to_paint_without_a_demo_before_images_are_generated(tmp_path: Path, environment: dict[str, str]) -> None:
    _serve_and_interrupt(tmp_path, environment, None)
    (run,) = tmp_path.glob("run_*")
    assert len(list((run / "studies").glob("*.nii.gz"))) == 3


@pytest.mark.slow
def test_interrupting_a_training_stops_everything(tmp_path: Path, environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        _demo(tmp_path, "--iterations", "100000", "--minutes", "60"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 200
        while not list(tmp_path.glob("run_*/studies/rep3d/models/rep3d/train_status.json")):
            assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
            time.sleep(0.5)
        assert len(_marked(environment["REP3D_TEST_MARK"])) >= 2
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert not _marked(environment["REP3D_TEST_MARK"])
