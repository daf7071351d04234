"""A training that is killed goes on where it was; whatever is on disk, it never fails for it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import ResumeError, TrainingError
from rep3d.training import loop as training_loop
from rep3d.training import snapshots as run_state
from rep3d.training.minutes.budget import Budget
from rep3d.training.plan import TrainPlan
from rep3d.training.snapshots import RunState
from rep3d.training.train import TrainProgress, TrainSettings, train
from tests.conftest import ROOT
from tests.rep3d.balls import TASK, ball_case, small_checkpoint

SETTINGS = TrainSettings(iterations=12, crops=1, learning_rate=5e-3, device="cpu", val_interval=5)

# Trains as a server's child process would, with snapshots at every step, and says where it is.
SCRIPT = """
import sys
from pathlib import Path
from rep3d.training import snapshots as run_state
from rep3d.data.cases import Case
from rep3d.checkpoint import load_checkpoint
from rep3d.training.train import TrainSettings, train

run_state._SECONDS = run_state._COST = 0.0
folder = Path(sys.argv[1])
start = load_checkpoint(folder / "start.pt")
cases = [Case(f"case_{i}", folder / f"case_{i}_image.nii.gz", folder / f"case_{i}_label.nii.gz") for i in (1, 2, 7)]
steps = {"ema": 0.9, "batch": 2, "micro_batch": 1}
settings = TrainSettings(iterations=24, learning_rate=5e-3, device="cpu", val_interval=6, **steps)
say = lambda p: print(p.phase, p.iteration, p.resumed_from, flush=True)
name = sys.argv[2]
state = folder / "run" if name == "model" else None
to, table = folder / f"{name}.pt", folder / f"{name}.csv"
train(cases[:2], start.task, settings, to, start, say, validation=cases[2:], state=state, table=table)
"""


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a snapshot made after each step."""
    monkeypatch.setattr(run_state, "_SECONDS", 0.0)
    monkeypatch.setattr(run_state, "_COST", 0.0)


def _cases(folder: Path) -> tuple[list[Case], list[Case]]:
    return [ball_case(folder, seed) for seed in (1, 2)], [ball_case(folder, 7)]


def _interrupted(folder: Path, at: int, settings: TrainSettings = SETTINGS) -> tuple[list[Case], list[Case]]:
    """Stop a run after some steps; the last snapshot is on disk."""
    cases, others = _cases(folder)

    def stop(progress: TrainProgress) -> None:
        if progress.phase == "training" and progress.iteration == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            cases,
            TASK,
            settings,
            folder / "model.pt",
            small_checkpoint(),
            stop,
            validation=others,
            state=folder / "run",
        )
    assert (folder / "run" / "run.pt").is_file() and not (folder / "model.pt").exists()
    return cases, others


def _start_script(folder: Path, name: str = "model") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), name], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


@pytest.mark.slow
def test_a_killed_process_is_resumed_by_the_next_one(tmp_path: Path) -> None:
    _cases(tmp_path)
    start = small_checkpoint()
    save_checkpoint(tmp_path / "start.pt", start.model, start.task, start.info)
    (tmp_path / "model.pt").write_bytes(b"the published model")
    first = _start_script(tmp_path)
    assert first.stdout is not None
    reached = 0
    for line in first.stdout:
        reached = int(line.split()[1])
        if reached >= 8:
            break
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    assert (tmp_path / "model.pt").read_bytes() == b"the published model"
    second = _start_script(tmp_path)
    said = [line.split() for line in second.communicate(timeout=300)[0].splitlines()]
    assert second.returncode == 0
    resumed = int(next(words[2] for words in said if words[0] == "training"))
    assert reached - 10 < resumed <= reached + 10  # the process may have got a few steps beyond what it had said
    steps = [int(words[1]) for words in said if words[0] == "training"]
    assert steps == list(range(resumed + 1, 25))
    info = load_checkpoint(tmp_path / "model.pt").info
    assert (info["iterations"], info["resumed_from"], info["stopped"]) == (24, resumed, "iterations")
    assert [entry["iteration"] for entry in info["validation_history"]] == list(range(6, 25, 6))
    assert not (tmp_path / "run").exists()
    whole = _start_script(tmp_path, "whole")
    whole.communicate(timeout=300)
    weights = [load_checkpoint(tmp_path / f"{name}.pt").model.state_dict() for name in ("model", "whole")]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert _rows(tmp_path / "model.csv") == _rows(tmp_path / "whole.csv")
    assert _steps(tmp_path / "model.csv") == list(range(1, 25))


def test_a_resumed_run_ends_bitwise_where_an_uninterrupted_one_does_with_all_that_a_step_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Budget.begin_steps

    def slowly(budget: Budget, iteration: int, done: float) -> None:
        begin(budget, iteration, done)
        time.sleep(0.05)  # time that passes here must not count in the learning rate of the next step

    monkeypatch.setattr(Budget, "begin_steps", slowly)
    settings = replace(SETTINGS, iterations=5, batch=2, micro_batch=1, ema=0.5, deep_supervision=True, val_interval=2)
    cases, others = _cases(tmp_path)
    seen: list[TrainProgress] = []

    def run(name: str, report: Callable[[TrainProgress], None], state: Path | None = None) -> Checkpoint:
        output, table = tmp_path / f"{name}.pt", tmp_path / f"{name}.csv"
        arguments = (cases, TASK, settings, output, small_checkpoint(), report)
        return train(*arguments, validation=others, state=state, table=table)

    def stop(progress: TrainProgress) -> None:
        if progress.phase == "training" and progress.iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("model", stop, tmp_path / "run")
    assert _steps(tmp_path / "model.csv") == [1, 2, 3] and not (tmp_path / "model.pt").exists()
    whole = run("whole", lambda progress: None)
    resumed = run("model", seen.append, tmp_path / "run")
    assert 0 < resumed.info["resumed_from"] <= 3 and whole.info["resumed_from"] is None
    assert seen[-1].resumed_from == resumed.info["resumed_from"]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    assert whole.info["validation_history"] == resumed.info["validation_history"]
    assert [entry["iteration"] for entry in resumed.info["validation_history"]] == [2, 4, 5]
    rows, others_rows = (_rows(tmp_path / f"{name}.csv") for name in ("model", "whole"))
    assert rows == others_rows and [int(row["step"]) for row in rows] == list(range(1, 6))
    assert [row["step"] for row in rows if row["validation_dice: Ball"]] == ["2", "4", "5"]


def _rows(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table, without the time."""
    with table.open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "minutes"} for row in csv.DictReader(file)]


def _steps(table: Path) -> list[int]:
    return [int(row["step"]) for row in _rows(table)]


def test_only_the_same_run_is_resumed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases, others = _cases(tmp_path)
    plan = TrainPlan(tuple(cases), TASK, SETTINGS, tmp_path / "model.pt", small_checkpoint(), validation=tuple(others))
    state = RunState(tmp_path / "run", plan.identity())
    state.write({"iteration": 3})
    state.wait()
    same = replace(plan, start=small_checkpoint(), output=tmp_path / "elsewhere.pt")
    assert _kept(same) == {"iteration": 3} and not caplog.text
    tuned = small_checkpoint()
    next(tuned.model.parameters()).data.mul_(1.01)
    changes = {
        "settings": replace(plan, settings=replace(SETTINGS, learning_rate=4e-3)),
        "start": replace(plan, start=tuned),
        "validation cases": replace(plan, validation=()),
        "weights": replace(plan, weights={"case_1": 2.0}),
        "other values": replace(plan, other_values=(9,)),
        "task": replace(plan, task=replace(TASK, labels={"Ball": 4})),
    }
    for words, changed in changes.items():
        caplog.clear()
        assert _kept(changed) is None
        assert f"cannot go on: its snapshot is of a training with other {words}" in caplog.text
    os.utime(cases[0].label, ns=(1, 1))  # submitted again
    caplog.clear()
    assert _kept(plan) is None and "other cases" in caplog.text


def _kept(plan: TrainPlan) -> dict[str, Any] | None:
    return RunState(plan.cases[0].image.parent / "run", plan.identity()).read()


def test_another_run_starts_anew(tmp_path: Path) -> None:
    cases, others = _interrupted(tmp_path, 2)
    again = replace(SETTINGS, iterations=3)
    trained = train(
        cases, TASK, again, tmp_path / "model.pt", small_checkpoint(), validation=others, state=tmp_path / "run"
    )
    assert trained.info["resumed_from"] is None and trained.info["iterations"] == 3
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["empty", "half", "noise", "other", "bit"])
def test_a_damaged_snapshot_is_ignored(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    state = RunState(tmp_path, {"a": 1})
    state.write({"weights": torch.rand(10_000)})
    state.wait()
    file = tmp_path / "run.pt"
    content = file.read_bytes()
    if damage == "other":
        torch.save({"weights": torch.zeros(3)}, file)
    elif damage == "bit":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :])
    else:
        file.write_bytes({"empty": b"", "half": content[: len(content) // 2], "noise": os.urandom(1000)}[damage])
    assert RunState(tmp_path, {"a": 1}).read() is None and "cannot go on: its snapshot is" in caplog.text


@pytest.mark.parametrize("why", ["other settings", "damaged", "no snapshot"])
def test_a_run_that_must_be_resumed_says_why_it_cannot_be_and_is_kept(tmp_path: Path, why: str) -> None:
    cases, others = _interrupted(tmp_path, 2)
    settings = replace(SETTINGS, iterations=3) if why == "other settings" else SETTINGS
    file = tmp_path / "run" / "run.pt"
    if why == "damaged":
        file.write_bytes(b"PK half a snapshot")
    elif why == "no snapshot":
        file.unlink()
    before = file.read_bytes() if file.exists() else None
    output, told = tmp_path / "model.pt", []
    prepared = tmp_path / ".model.pt.prepared"  # as the killed run left it
    prepared.mkdir()
    with pytest.raises(ResumeError, match=rf"cannot go on: .*{why}.* \(resume: false\)") as refused:
        train(
            cases,
            TASK,
            settings,
            output,
            small_checkpoint(),
            told.append,
            validation=others,
            state=tmp_path / "run",
            must_resume=True,
        )
    assert prepared.is_dir() and not told  # nothing was prepared
    assert refused.value.changed == ({"settings.iterations": (12, 3)} if why == "other settings" else {})
    assert (file.read_bytes() if file.exists() else None) == before and not output.exists()


def test_a_run_beside_a_damaged_snapshot_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    cases, _ = _cases(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.pt").write_bytes(b"PK half a snapshot")
    (folder / ".run.pt.abc.part").write_bytes(b"PK")

    def look(progress: TrainProgress) -> None:
        assert progress.phase == "preparing" or not list(folder.glob(".run.pt.abc.part"))

    settings = replace(SETTINGS, iterations=2)
    trained = train(cases, TASK, settings, tmp_path / "model.pt", small_checkpoint(), look, state=folder)
    assert trained.info["iterations"] == 2 and not folder.exists()


def test_the_time_that_was_used_counts(tmp_path: Path) -> None:
    settings = replace(SETTINGS, iterations=100_000, max_minutes=5.0, val_interval=0)
    cases, others = _interrupted(tmp_path, 3, settings)
    kept = RunState(tmp_path / "run", {})
    file = tmp_path / "run" / "run.pt"
    content = torch.load(file, weights_only=True)
    content["content"]["elapsed"] = 299.9
    torch.save(content, file)
    assert kept.read() is None  # that was another run
    trained = train(
        cases,
        TASK,
        settings,
        tmp_path / "model.pt",
        small_checkpoint(),
        validation=others,
        state=tmp_path / "run",
    )
    assert trained.info["stopped"] == "max_minutes" and trained.info["minutes"] >= 4.99
    assert trained.info["iterations"] == trained.info["resumed_from"] <= 3
    assert trained.info["validation"] is None and "no accuracy is claimed" in trained.info["shortfall"]


def test_a_run_whose_loss_was_not_finite_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, _ = _interrupted(tmp_path, 2, replace(SETTINGS, val_interval=0))
    nan = float("nan")
    monkeypatch.setattr(training_loop.MixedPrecision, "__call__", lambda self, x, network: network(x) * nan)
    with pytest.raises(TrainingError, match="Nothing was published"):
        train(cases, TASK, SETTINGS, tmp_path / "model.pt", small_checkpoint(), state=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_state, "write_atomically", full)
    cases, _ = _cases(tmp_path)
    train(cases, TASK, replace(SETTINGS, iterations=3), tmp_path / "model.pt", small_checkpoint(), state=tmp_path / "r")
    assert load_checkpoint(tmp_path / "model.pt").info["iterations"] == 3
    assert "no snapshot was written, and the training goes on: The disk is full" in caplog.text


def test_snapshots_are_seldom_and_the_rarer_the_longer_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(run_state.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(run_state, "_COST", 20.0)

    def slowly(path: Path, content: object) -> None:
        clock[0] += 4.0

    monkeypatch.setattr(run_state, "write_atomically", slowly)
    state = RunState(tmp_path, {}, seconds=30.0)
    due: list[float] = []
    for second in range(200):
        clock[0] = max(clock[0], float(second))
        if state.due():
            due.append(clock[0])
            state.write({"weights": torch.zeros(2)})
            state.wait()
    assert due == [30.0, 110.0, 190.0]


def test_a_snapshot_is_a_copy(tmp_path: Path) -> None:
    weights = torch.zeros(1000)
    state = RunState(tmp_path, {"a": 1}, seconds=0.0)
    started = time.monotonic()
    state.write({"weights": weights, "nested": {0: (1, weights)}})
    weights += 1
    state.wait()
    kept = RunState(tmp_path, {"a": 1}).read()
    assert kept is not None and not kept["weights"].any() and not kept["nested"][0][1].any()
    assert time.monotonic() - started < 30
