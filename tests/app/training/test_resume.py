"""An interrupted training is gone on with, set aside or refused with the reason; it is never deleted in silence."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lib.paths import ModelWorkspace, Workspace
from lib.training.cases import LabelledCases
from lib.training.request import TrainRequest
from lib.training.run import TrainRun
from lib.training.status import TrainStatus
from lib.training.task import Rep3DTrainTask

from rep3d.errors import TrainingError, VersionError
from rep3d.evaluation.roles import Split
from rep3d.training.settings import TrainSettings
from rep3d.versions.record import VersionRecord
from tests.app.data import LABELS

DEFAULTS = TrainSettings(device="cpu")
SPLIT = Split(("a", "b"), ("c",))


class Bench:
    """A model of which a training was interrupted."""

    def __init__(self, folder: Path) -> None:
        self.space = Workspace(folder).model("rep3d")
        self.space.root.mkdir(parents=True)
        self.published: str | None = None
        self.hashes = {"a": "1", "b": "2", "c": "3"}
        setup = SimpleNamespace(
            workspace=self.space,
            labels=LABELS,
            conf=SimpleNamespace(score_minutes=5.0, publish_margin=0.0),
            train_settings=lambda: DEFAULTS,
        )
        versions = SimpleNamespace(published=lambda: self.published, publish=lambda *_, **__: None)
        self.served: Any = SimpleNamespace(setup=setup, versions=versions, name="rep3d")
        self.status = TrainStatus(self.space.train_status, interval=0)
        self.status.update({})
        self.first = self.begin({"iterations": 7})["id"]
        _interrupt(self.space.run)

    def run(self, params: dict[str, Any]) -> TrainRun:
        request = TrainRequest.parse(params, DEFAULTS)
        return TrainRun(self.served, request, None, self.status, {}, 0.0)  # type: ignore[arg-type]

    def begin(self, params: dict[str, Any], split: Split = SPLIT) -> Any:
        run = self.run(params)
        if params.get("resume") is True:
            run._ask_again()
        start = SimpleNamespace(version=self.published) if self.published else None
        return run._resumed_or_new(start, split, LabelledCases(hashes=self.hashes))[0]  # type: ignore[arg-type]

    def check(self, params: dict[str, Any]) -> TrainRequest:
        store = SimpleNamespace(get_labeled_images=lambda: ["a", "b", "c"])
        return Rep3DTrainTask(self.served).check(params, store)  # type: ignore[arg-type]

    @property
    def told(self) -> str | None:
        return json.loads(self.space.train_status.read_text())["set_aside"]


def _interrupt(run: Path) -> None:
    (run / "state").mkdir()
    (run / "state" / "run.pt").write_bytes(b"snapshot")


def _id(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["id"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _whole(space: ModelWorkspace) -> list[str]:
    """Return the runs that could be resumed, the one in its place first."""
    return [_id(run) for run in (space.run, space.run_set_aside) if (run / "state" / "run.pt").exists()]


@pytest.mark.parametrize("params", [{"iterations": 7}, {"resume": True}, {"iterations": 9, "resume": True}])
def test_the_same_or_whatever_was_asked_for_goes_on(bench: Bench, params: dict[str, Any]) -> None:
    bench.check(params)
    assert bench.begin(params)["id"] == bench.first
    assert (_whole(bench.space), bench.told) == ([bench.first], None)


@pytest.mark.parametrize("params", [{}, {"iterations": 9}, {"iterations": 9, "resume": "auto"}])
def test_another_training_sets_it_aside_and_says_so(bench: Bench, params: dict[str, Any]) -> None:
    bench.check(params)
    second = bench.begin(params)["id"]
    assert second != bench.first and _whole(bench.space) == [bench.first]
    assert bench.told is not None and "2 cases was set aside" in bench.told and "resume: true" in bench.told
    _interrupt(bench.space.run)
    assert bench.begin({"resume": True})["id"] == second  # the younger one first
    # When that one has ended well, the one set aside takes its place again.
    (bench.space.run / "state" / "run.pt").unlink()
    bench.check({"resume": True})
    assert bench.begin({"resume": True})["id"] == bench.first
    assert _whole(bench.space) == [bench.first] and not bench.space.run_set_aside.exists()


def test_new_labels_make_it_another_training(bench: Bench) -> None:
    bench.hashes["d"] = "4"
    bench.begin({"iterations": 7}, Split(("a", "b", "d"), ("c",)))
    assert _whole(bench.space) == [bench.first]


def test_only_the_latest_is_kept_aside_and_that_is_said_too(bench: Bench) -> None:
    second = bench.begin({"iterations": 8})["id"]
    _interrupt(bench.space.run)
    bench.begin({"iterations": 9})
    assert _whole(bench.space) == [second]
    assert bench.told is not None and "set aside before, was discarded" in bench.told


def test_begun_anew_on_request_it_is_discarded(bench: Bench) -> None:
    bench.check({"resume": False})
    assert bench.begin({"iterations": 7, "resume": False})["id"] != bench.first
    assert (_whole(bench.space), bench.told) == ([], None)


def test_what_can_no_longer_be_resumed_is_refused_at_once_with_the_reason(bench: Bench) -> None:
    bench.published = "v4"
    with pytest.raises(VersionError, match=r"cannot go on.*the published version.*resume: false"):
        bench.check({"resume": True})
    with pytest.raises(TrainingError, match="the published version"):
        bench.begin({"resume": True})
    assert _whole(bench.space) == [bench.first]
    bench.published = None
    bench.served.setup.labels = {**LABELS, "neck": 9}
    with pytest.raises(VersionError, match="the label names or values"):
        bench.check({"resume": True})


def test_a_corrected_label_is_named_by_the_training_itself(bench: Bench) -> None:
    bench.hashes["b"] = "5"
    bench.check({"resume": True})
    with pytest.raises(TrainingError, match="labels of its cases"):
        bench.begin({"resume": True})
    assert _whole(bench.space) == [bench.first]


def test_nothing_to_resume(tmp_path: Path, bench: Bench) -> None:
    bench.begin({"resume": False})
    with pytest.raises(VersionError, match="no stopped or interrupted training"):
        bench.check({"resume": True})
    with pytest.raises(TrainingError, match="no stopped or interrupted training"):
        bench.begin({"resume": True})


def test_a_publication_ends_what_was_set_aside(bench: Bench) -> None:
    bench.begin({"iterations": 9})
    made = VersionRecord(version="v5", decision={"published": False, "reason": "kept"})
    bench.run({})._publish(made)
    assert _whole(bench.space) == [bench.first]
    bench.run({})._publish(VersionRecord(version="v5", decision={"published": True, "reason": "better"}))
    assert _whole(bench.space) == []
