"""The parts of a training that need no server: requests, status, which cases count and how much, scores, counting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lib.boot.setup import Setup
from lib.errors import ConflictError
from lib.labels.facts import FactsCache
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from lib.training import control, tuning
from lib.training import task as train_task
from lib.training.auto import AutoTrain
from lib.training.cases import LabelledCases, case_for, case_weights, find_cases, split_cases
from lib.training.pace import earlier_trainings, known_tail, speed_of, what_tells_speed
from lib.training.request import TrainRequest
from lib.training.resumption import resumable_run
from lib.training.scores import VersionScores
from lib.training.status import TrainStatus, process_mark, read_status
from lib.training.task import Rep3DTrainTask

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import ConfigError, LabelError, NoCasesError
from rep3d.evaluation.roles import Split
from rep3d.files import file_hash
from rep3d.imaging.marks import image_mark
from rep3d.imaging.nifti import read_label
from rep3d.inference.tuned import PLAIN, Tuned, Way
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.minutes.budget import Tail
from rep3d.training.settings import TrainSettings
from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore
from tests.app.data import CONF, LABELS, SHAPE, publish_small_model, write_image, write_label, write_nifti
from tests.rep3d.balls import small_config

DEFAULTS = TrainSettings(device="cpu")


# Requests -------------------------------------------------------------------------------------------------------------


def test_what_was_trained_on_elsewhere_measures_nothing_whatever_it_was_called_there(tmp_path: Path) -> None:
    cases = {}
    for number in range(10):
        image = write_image(tmp_path / f"p{number}.nii.gz", number)
        cases[f"p{number}"] = Case(f"p{number}", image, write_label(tmp_path / f"label_p{number}.nii.gz", number))
    found = LabelledCases(cases)
    network = Rep3D(small_config(out_channels=3))
    images = {f"other_{number}": [image_mark(cases[f"p{number}"].channels)] for number in range(8)}
    task = TaskConfig("t", LABELS, (1.0, 1.0, 1.0), Intensity("zscore", 0.5, 99.5))
    model = tmp_path / "elsewhere.pt"
    save_checkpoint(model, network, task, {"trained_on": [*images], "images": images})

    def validating(origin: str | None, start_from: Path | None = None, roles: str = "roles.json") -> tuple[str, ...]:
        records = [VersionRecord("v1", origin=origin, cases=[*images])] if origin else []
        setup: Any = SimpleNamespace(workspace=SimpleNamespace(roles=tmp_path / roles), start_from=start_from)
        versions: Any = SimpleNamespace(records=lambda: records, checkpoint=lambda name: model)
        return split_cases(setup, versions, found).validation

    assert validating("foreign") == ("p8", "p9")
    assert validating(None, model, "encoder.json") == ("p8", "p9")
    assert not {*validating(None, roles="none.json")} <= {"p8", "p9"}
    model.unlink()  # what cannot be read any more is told by names
    assert len(validating("foreign", roles="damaged.json")) == 2
    assert validating("foreign") == ("p8", "p9")  # each case has its role for ever


def test_request_goes_to_the_disk_and_back() -> None:
    request = TrainRequest.parse({"iterations": 7, "score_minutes": 0, "model": "x"}, DEFAULTS)
    assert TrainRequest.from_dict(json.loads(json.dumps(request.to_dict()))) == request
    assert (request.settings.iterations, request.resume) == (7, "auto")


@pytest.mark.parametrize("value", [1, 0, "true", None, "yes"])
def test_resume_is_true_false_or_auto(value: Any) -> None:
    with pytest.raises(ConfigError, match="resume must be true, false or 'auto'"):
        TrainRequest.parse({"resume": value}, DEFAULTS)


def test_gpus_of_monai_label(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainRequest.parse({"multi_gpu": True, "gpus": "all"}, DEFAULTS).settings == DEFAULTS
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="this machine has no CUDA GPU"):
            TrainRequest.parse({"gpus": "0,1"}, DEFAULTS)
    with pytest.raises(ConfigError, match="multi_gpu must be true or false"):
        TrainRequest.parse({"multi_gpu": "yes"}, DEFAULTS)
    with pytest.raises(ConfigError, match="There is no 'cuda:77' here"):
        TrainRequest.parse({"device": "cuda:77"}, DEFAULTS)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    several = TrainRequest.parse({"multi_gpu": True}, DEFAULTS).settings
    assert (several.gpus, several.device) == (("cuda:0", "cuda:1", "cuda:2", "cuda:3"), None)
    for gpus in ("1,3", [1, 3], "cuda:1,cuda:3"):
        assert TrainRequest.parse({"gpus": gpus}, DEFAULTS).settings.gpus == ("cuda:1", "cuda:3")
    assert TrainRequest.parse({"gpus": 2}, DEFAULTS).settings.gpus == ("cuda:0", "cuda:1")
    one = TrainRequest.parse({"gpus": "2"}, DEFAULTS).settings
    assert (one.gpus, one.device) == (None, "cuda:2")
    assert TrainRequest.parse({"gpus": "all"}, DEFAULTS).settings == DEFAULTS
    with pytest.raises(ConfigError, match="gpus must be"):
        TrainRequest.parse({"gpus": {"a": 1}}, DEFAULTS)


@pytest.mark.parametrize(
    ("asked", "visible", "sent"),
    [
        ({"multi_gpu": True, "gpus": "2"}, "", {"device": "cuda:2"}),  # one: not all that there are
        ({"multi_gpu": True, "gpus": "1,3"}, "", {"multi_gpu": True, "gpus": "1,3"}),
        ({"gpus": "0,1"}, "4,5,6,7", {"multi_gpu": True, "gpus": "4,5"}),
    ],
)
def test_the_child_gets_the_gpus_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], visible: str, sent: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(control.train, "run_model", lambda model, values, enqueue: values)
    task = SimpleNamespace(check=lambda params, _: TrainRequest.parse(params, DEFAULTS), announce=lambda *_: None)
    counts = SimpleNamespace(began=lambda _: None)
    training = control.TrainingControl({"rep3d": task}, None, counts)  # type: ignore[dict-item, arg-type]
    assert training.start("rep3d", asked) == sent


@pytest.mark.parametrize(("phase", "starts"), [("scoring", True), ("publishing", False), ("training", False)])
def test_a_new_training_ends_the_scoring_after_the_last_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, phase: str, starts: bool
) -> None:
    workspace = Workspace(tmp_path).model("rep3d")
    workspace.root.mkdir(parents=True)
    TrainStatus(workspace.train_status).update({"phase": phase, "version_made": "v2"})
    served: Any = SimpleNamespace(
        name="rep3d", setup=SimpleNamespace(workspace=workspace, train_settings=lambda: DEFAULTS, conf=None)
    )
    task = Rep3DTrainTask(served)
    monkeypatch.setattr(task, "check", lambda params, _: TrainRequest.parse(params, DEFAULTS))
    monkeypatch.setattr(task, "announce", lambda *_: None)
    running = [{"status": "RUNNING", "request": {"model": "rep3d"}}]
    killed: list[str] = []

    def kill(kind: str) -> dict[str, Any]:
        killed.append(kind)
        running[0]["status"] = "STOPPED"
        return running[0]

    monkeypatch.setattr(control, "tasks", lambda _: running)
    monkeypatch.setattr(train_task, "tasks", lambda _: running)
    monkeypatch.setattr(control, "processes", lambda _: {"1": SimpleNamespace(wait=lambda _: 0)})
    monkeypatch.setattr(control, "stop_background_task", kill)
    monkeypatch.setattr(control.train, "run_model", lambda model, values, enqueue: values)
    counts = SimpleNamespace(began=lambda _: None)
    training = control.TrainingControl({"rep3d": task}, None, counts)  # type: ignore[arg-type]
    if starts:
        training.start("rep3d", {})
        status = read_status(workspace.train_status, [])
        assert (status["phase"], status["error"], status["version_made"]) == ("done", None, "v2")
    else:
        with pytest.raises(ConflictError, match="running already"):
            training.start("rep3d", {})
    assert bool(killed) is starts


# The minutes ----------------------------------------------------------------------------------------------------------


def test_the_minutes_begin_with_the_request_or_after_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_task.time, "time", lambda: 1000.0)
    monkeypatch.setattr(train_task.time, "monotonic", lambda: 50.0)
    assert train_task._began({"requested": 993.0}, 992.5) == 43.0
    assert train_task._began({"requested": 400.0}, 996.0) == 46.0  # it waited for another one
    assert train_task._began({}, 996.0) == 46.0
    assert train_task._began({"requested": 2000.0}, 996.0) == 50.0  # the clock was set back


def test_what_follows_is_known_from_trainings_alike() -> None:
    task = TaskConfig("t", LABELS, spacing=(1.0, 1.0, 2.0))
    alike = what_tells_speed(DEFAULTS, task)
    other = what_tells_speed(DEFAULTS, TaskConfig("t", LABELS, spacing=(4.0, 4.0, 4.0)))
    records = [
        VersionRecord("v1", origin="adopted"),
        VersionRecord("v2", speed=speed_of(alike, case_seconds=3.0, step_seconds=0.5, other_seconds=2.0)),
        VersionRecord("v3", iterations=9, speed=speed_of(alike, case_seconds=None, step_seconds=0.25)),
        VersionRecord("v4", case_scores={"a": {"head": 0.5}}, speed=speed_of(other, case_seconds=99.0)),
    ]
    assert known_tail(records, json.loads(json.dumps(alike)), 4) == Tail(4, 3.0, 2.0, 0.25)
    assert known_tail([], alike, 4) == Tail(4)
    assert [(told["version"], told["dice"]) for told in earlier_trainings(records)] == [
        ("v2", None),
        ("v3", None),
        ("v4", 0.5),
    ]


# Status ---------------------------------------------------------------------------------------------------------------


def _dead_process() -> dict[str, float]:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return {"pid": float(ended.stdout), "created": 0.0}


@pytest.mark.parametrize(
    ("tasks", "process", "phase", "words"),
    [
        ([{"status": "RUNNING"}], None, "training", None),
        ([{"status": "RUNNING"}], "own", "training", None),
        ([{"status": "DONE"}, {"status": "SUBMITTED"}], None, "training", None),
        ([{"status": "RUNNING"}], "dead", "interrupted", "ended without a result"),
        ([{"status": "RUNNING"}], "later", "interrupted", "ended without a result"),
        ([{"status": "STOPPED"}], "dead", "stopped", "on request"),
        ([{"status": "ERROR", "details": ["one", "Killed"]}], "dead", "interrupted", "Killed"),
        ([{"status": "ERROR"}], None, "error", "none"),
        ([], "dead", "interrupted", "The server ended"),
    ],
)
def test_a_run_without_its_process_is_not_running(
    tmp_path: Path, tasks: list, process: str | None, phase: str, words: str | None
) -> None:
    own = process_mark()
    marks = {None: None, "own": own, "dead": _dead_process(), "later": {**own, "created": own["created"] - 9}}
    path = tmp_path / "status.json"
    assert read_status(path, tasks) == {}
    TrainStatus(path, process=marks[process]).update({"phase": "training", "eta_seconds": 100.0})
    status = read_status(path, tasks)
    assert status["phase"] == phase
    assert (words in status["error"]) if words else status["error"] is None
    assert (status["eta_seconds"] is None) == bool(words)


def _progress(iteration: int, dice: float | None = None) -> dict[str, Any]:
    return {"iteration": iteration, "loss": 1 / iteration, "validation": None if dice is None else {"a": dice}}


def test_curves_stay_short_and_whole(tmp_path: Path) -> None:
    status = TrainStatus(tmp_path / "status.json", interval=1e9)
    for iteration in range(1, 5001):
        status.progress(_progress(iteration, dice=iteration // 1000 / 10))
    status.update({"phase": "done"})
    content = json.loads((tmp_path / "status.json").read_text())
    steps = [step for step, _ in content["losses"]]
    assert 50 < len(steps) < 200
    assert steps[0] == 1
    assert steps[-1] > 4900
    gaps = np.diff(steps)
    assert gaps.max() <= 2 * gaps.min()
    assert [dice for _, dice in content["validations"]] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_the_first_step_is_told_at_once_and_not_each_that_follows(tmp_path: Path) -> None:
    status = TrainStatus(tmp_path / "status.json", interval=1e9)
    for iteration, told in ((0, 0), (1, 1), (2, 1)):
        status.update({"iteration": iteration})
        assert read_status(tmp_path / "status.json", [])["iteration"] == told


def test_curves_go_on_after_an_interruption(tmp_path: Path) -> None:
    status = TrainStatus(tmp_path / "status.json", interval=0)
    for iteration in range(1, 11):
        status.progress(_progress(iteration))
    again = TrainStatus(tmp_path / "again.json", interval=0)
    again.take_up(json.loads((tmp_path / "status.json").read_text()), iteration=6)
    again.progress(_progress(7))
    assert [step for step, _ in json.loads((tmp_path / "again.json").read_text())["losses"]] == [1, 2, 3, 4, 5, 6, 7]


def test_curves_of_a_fine_stage_begin_anew(tmp_path: Path) -> None:
    status = TrainStatus(tmp_path / "status.json", interval=0)
    for iteration, stage in ((1, None), (2, "coarse"), (1, "fine"), (2, "fine")):
        status.progress({**_progress(iteration), "loss": 1.0 if stage == "fine" else 2.0, "stage": stage})
    content = json.loads((tmp_path / "status.json").read_text())
    assert (content["stage"], content["losses"]) == ("fine", [[1, 1.0], [2, 1.0]])


def test_nothing_to_resume_without_a_snapshot(tmp_path: Path) -> None:
    assert resumable_run(tmp_path) is None
    request = TrainRequest.parse({}, DEFAULTS).to_dict()
    known = {"id": "a", "started": "2024-05-01", "request": request, "training": [], "validation": [], "hashes": {}}
    known["labels"] = LABELS
    (tmp_path / "run.json").write_text(json.dumps(known))
    assert resumable_run(tmp_path) is None
    for file in ("trained.pt", "state/run.pt", "state/coarse/run.pt", "state/coarse.pt", "state/fine/run.pt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
        assert resumable_run(tmp_path) == known
        (tmp_path / file).unlink()


# Cases ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case("a", write_image(tmp_path / "a.nii.gz"), write_label(tmp_path / "label.nii.gz"))


def _setup(tmp_path: Path, other_values: tuple[int, ...] = ()) -> Any:
    setup = Setup.find(str(tmp_path), CONF).models["rep3d"]
    return SimpleNamespace(labels=setup.labels, channels=setup.channels, other_values=other_values)


@pytest.mark.parametrize(
    ("values", "info", "others", "counts"),
    [
        ([1], {}, (), True),
        ([1, 7], {}, (7,), True),
        ([7], {}, (7,), False),
        ([7], {"label_info": [{"name": "liver", "idx": 7}]}, (7,), False),
        ([7], {"label_info": [{"name": "liver", "idx": 7}, {"name": "tail", "idx": 3}]}, (7,), True),
        ([], {}, (), True),
        ([], {}, (7,), False),
        ([], {"labels": {"head": 1}}, (7,), True),
    ],
)
def test_which_labels_count_for_a_model(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
    values: list[int],
    info: dict,
    others: tuple[int, ...],
    counts: bool,
) -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume.flat[: len(values)] = values
    write_nifti(case.label, volume)
    facts = FactsCache(tmp_path / "facts.json")
    reason = case_for(_setup(tmp_path, others), case, info, facts)
    assert (reason is None) == counts
    assert counts or "says nothing about head, tail" in str(reason)
    monkeypatch.delattr("lib.labels.facts.read_label")  # what is known of it is not read again
    assert case_for(_setup(tmp_path, others), case, info, facts) == reason


@pytest.mark.parametrize("error", [TypeError("of no kind that is expected"), OSError("gone"), LabelError("odd")])
def test_whatever_one_case_raises_the_others_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(file: Path) -> object:
        if file.name == "case_1.nii.gz":
            raise error
        return read_label(file)

    monkeypatch.setattr("lib.labels.facts.read_label", read)
    for number in range(3):
        write_image(tmp_path / f"case_{number}.nii.gz", number)
        write_label(tmp_path / "labels" / "final" / f"case_{number}.nii.gz", number)
    store = Rep3DDatastore(tmp_path, Workspace(tmp_path / "rep3d"), LABELS, auto_reload=False, read_only=False)
    found = find_cases(_setup(tmp_path, ()), store)
    assert set(found.cases) == set(found.hashes) == {"case_0", "case_2"}
    assert str(error) in found.skipped["case_1"] and set(found.skipped) == {"case_1"}


def test_values_of_no_model_are_refused(tmp_path: Path, case: Case) -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume.flat[:2] = 1, 9
    write_nifti(case.label, volume)
    with pytest.raises(LabelError, match="9"):
        case_for(_setup(tmp_path, (7,)), case, {}, FactsCache(tmp_path / "facts.json"))


def test_new_and_corrected_cases_weigh_more() -> None:
    split = Split(("a", "b", "c"), ("d",))
    found = LabelledCases(hashes={"a": "1", "b": "2-corrected", "c": "3", "d": "4"})
    start = VersionRecord(cases=["a", "b"], label_hashes={"a": "1", "b": "2"})
    assert case_weights(start, split, found) == {"a": 1.0, "b": 3.0, "c": 3.0}
    adopted = VersionRecord(cases=["a", "b"])
    assert case_weights(adopted, split, found) == {"a": 1.0, "b": 1.0, "c": 3.0}
    assert case_weights(None, split, found) == {"a": 1.0, "b": 1.0, "c": 1.0}


# Scores of versions ---------------------------------------------------------------------------------------------------


def test_a_version_is_measured_once_on_each_label(tmp_path: Path, case: Case) -> None:
    loaded: list[Path] = []
    path = publish_small_model(tmp_path / "studies", {"head": 1})

    def load() -> Checkpoint:
        loaded.append(path)
        checkpoint = load_checkpoint(path)
        with torch.no_grad():
            checkpoint.model.out.conv.conv.bias[1] = 1e4  # all is head, so that its Dice depends on the label
        return checkpoint

    def measure(identity: str = "one", labels: dict[str, int] = LABELS) -> dict[str, dict[str, float]]:
        scores = VersionScores(tmp_path / "scores.json", labels, "cpu")
        return scores.measure(load, identity, [case], {"a": file_hash(case.label)}, lambda done, todo: None)

    first = measure()
    # The version does not know the tail, which the case has: it drew nothing there.
    assert first["a"]["tail"] == 0.0
    assert 0.0 < first["a"]["head"] < 1.0
    assert measure() == first
    assert len(loaded) == 1
    volume = np.zeros(SHAPE, np.uint8)
    volume[:5] = LABELS["head"]
    write_nifti(case.label, volume)
    assert measure() != first
    assert len(loaded) == 2
    measure("two")
    measure(labels={"head": 1, "tail": 3, "new": 4})
    assert len(loaded) == 4
    (tmp_path / "scores.json").write_text("{half")
    measure()
    assert len(loaded) == 5
    # What a training measured itself is not measured again, unless the label was corrected meanwhile.
    scores, now = VersionScores(tmp_path / "scores.json", LABELS, "cpu"), {"a": file_hash(case.label)}
    scores.know("three", {"a": {"head": 0.25}, "gone": {"head": 1.0}}, {"a": "another label"}, now)
    assert scores.missing("three", [case], now) == [case]
    scores.know("three", {"a": {"head": 0.25}}, now, now)
    assert measure("three") == {"a": {"head": 0.25}} and len(loaded) == 5


def test_case_whose_image_cannot_be_read_is_left_out(tmp_path: Path, case: Case) -> None:
    path = publish_small_model(tmp_path / "studies")
    bad = Case("bad", tmp_path / "bad.nii.gz", case.label)
    bad.image.write_text("no image")
    scores = VersionScores(tmp_path / "scores.json", LABELS, "cpu")
    found = scores.measure(lambda: load_checkpoint(path), "x", [bad, case], {"a": "1", "bad": "2"}, lambda *_: None)
    assert set(found) == {"a"} and not scores.out_of_time
    assert scores.case_seconds is not None and 0.0 < scores.case_seconds <= scores.seconds
    # Of two versions in a time that is over, nothing is measured; what was measured before costs no time.
    late = VersionScores(tmp_path / "scores.json", LABELS, "cpu")
    hashes, now = {"a": "1"}, time.monotonic()
    new, published = ("y", lambda: load_checkpoint(path)), ("x", lambda: load_checkpoint(path))
    assert late.compare(published, new, [case], hashes, lambda *_: None, now) == ({"a": found["a"]}, {})
    assert late.compare(new, published, [case], hashes, lambda *_: None, now) == ({}, {})
    assert (late.out_of_time, late.seconds) == ({"a"}, pytest.approx(0.0, abs=0.05))
    assert late.compare(new, published, [case], hashes, lambda *_: None, now + 600)[1] == {"a": found["a"]}


@pytest.mark.parametrize("what", ["kept", "plain", "no time", "fails", "quick"])
def test_a_faster_way_is_looked_for_where_somebody_waits_and_costs_no_training(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    versions = VersionStore(publish_small_model(tmp_path / "studies").parent)
    version = versions.adopt()
    assert version is not None
    way = Way(overlap=0.25) if what == "kept" else PLAIN
    record = Tuned(way, 0.7, 0.701, 2.0, 5.0, ["a", "b"], "a processor", "2026-01-01", "mark")
    asked: list[Any] = []

    def measured(checkpoint: Checkpoint, cases: list[Case], labels: dict[str, int], seconds: float) -> Tuned | None:
        asked.append((checkpoint.version, cases, labels, seconds))
        if what == "fails":
            raise RuntimeError("the disk is gone")
        return None if what == "no time" else record

    monkeypatch.setattr(tuning, "tune", measured)
    served: Any = SimpleNamespace(
        versions=versions, published=SimpleNamespace(device="cpu"), setup=SimpleNamespace(labels=LABELS)
    )
    tuning.tune_version(served, version.version, [case], tuning.WORTH_SECONDS / (2 if what == "quick" else 1), 60.0)
    assert asked == ([] if what == "quick" else [(version.version, [case], LABELS, 60.0)])
    assert versions.get(version.version).tuned == (record.to_dict() if what == "kept" else None)
    assert ("the disk is gone" in caplog.text) == (what == "fails")


# Training by itself ---------------------------------------------------------------------------------------------------


def _auto(tmp_path: Path, start: Callable[[str], object], runs: bool = False, every: int = 2) -> AutoTrain:
    return AutoTrain(tmp_path / "auto.json", every, start, lambda: runs, seconds=0.01)


def test_training_is_due_after_so_many_labels(tmp_path: Path) -> None:
    started: list[str] = []
    auto = _auto(tmp_path, started.append)
    auto.submitted(["a"])
    assert auto.start_due() is None
    assert _auto(tmp_path, started.append).counts() == {"a": 1}  # another server goes on counting
    auto.submitted(["a", "b"])
    assert auto.start_due() == "a"
    assert started == ["a"]
    auto.began("a")
    assert auto.counts() == {"a": 0, "b": 1}
    assert auto.start_due() is None


def test_training_waits_for_the_one_that_runs(tmp_path: Path) -> None:
    started: list[str] = []
    auto = _auto(tmp_path, started.append, runs=True, every=1)
    auto.submitted(["a"])
    assert auto.start_due() is None
    assert _auto(tmp_path, started.append, every=1).start_due() == "a"


@pytest.mark.parametrize("error", [NoCasesError("no labels"), ConflictError("damaged")])
def test_refused_training_is_tried_again_with_the_next_label(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[str] = []

    def refuse(model: str) -> None:
        tried.append(model)
        raise error

    auto = _auto(tmp_path, refuse, every=1)
    auto.submitted(["a"])
    for _ in range(3):
        assert auto.start_due() is None
    assert tried == ["a"]
    assert ("no labels" in caplog.text) or ("damaged" in caplog.text)
    auto.submitted(["a"])
    auto.start_due()
    assert tried == ["a", "a"]


def test_off_by_default_and_on_in_a_thread(tmp_path: Path) -> None:
    off = _auto(tmp_path, lambda model: pytest.fail("started"), every=0)
    off.watch()
    off.submitted(["a"])
    assert off.start_due() is None
    done = threading.Event()
    auto = _auto(tmp_path / "on", lambda model: (auto.began(model), done.set()), every=2)
    auto.watch()
    for _ in range(2):
        auto.submitted(["a"])
    assert done.wait(20)


@pytest.mark.skipif(os.name == "nt", reason="a process without its parent gets another one, except on Windows")
def test_a_process_ends_with_its_server(tmp_path: Path) -> None:
    app = Path(__file__).resolve().parents[3] / "apps" / "rep3d_label"
    child = (
        f"import sys, time; sys.path[:0] = [{str(app)!r}, {str(app.parents[1])!r}]\n"
        "from pathlib import Path\n"
        "from lib.training.status import TrainStatus, process_mark\n"
        "from lib.training.watch import watch_server\n"
        f"watch_server(TrainStatus(Path({str(tmp_path / 'status.json')!r}), process=process_mark()))\n"
        f"Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    server = (
        "import subprocess, sys, time, pathlib, os\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"while not pathlib.Path({str(tmp_path / 'ready')!r}).exists(): time.sleep(0.05)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", server], check=True, timeout=60)
    deadline = threading.Event()
    for _ in range(100):
        if read_status(tmp_path / "status.json", [{"status": "RUNNING"}]).get("phase") == "interrupted":
            break
        deadline.wait(0.1)
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["phase"], "server is gone" in status["error"]) == ("interrupted", True)
