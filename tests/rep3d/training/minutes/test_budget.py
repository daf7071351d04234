"""The minutes of a training: when its steps end, what is kept back, what is foretold; with a clock of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from rep3d.errors import TrainingError
from rep3d.training import loop as training_loop
from rep3d.training import plan as training_plan
from rep3d.training.minutes.budget import Budget, Earlier, Tail, forecast
from rep3d.training.train import TrainProgress, TrainSettings, train
from tests.rep3d.balls import TASK, ball_case, small_config


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _begun(tail: Tail, preparing: float = 20.0, minutes: float = 2.0) -> tuple[Budget, Clock]:
    clock = Clock()
    budget = Budget(minutes, tail, clock=clock)
    clock.now += preparing
    budget.begin_steps(0, 0.0)
    return budget, clock


def test_steps_end_early_enough_for_what_follows_them() -> None:
    # 120 s: 20 of preparing, steps of 2 s, a validation of 10 s, four cases of 5 s, 4 s of saving.
    budget, clock = _begun(Tail(cases=4, case_seconds=5.0, other_seconds=4.0))
    budget.validation = 10.0
    assert (budget.reserve(), budget.steps_end()) == (34.0, 86.0)
    iteration = 0
    while budget.share(iteration) < 1.0:
        clock.now += 2.0
        iteration += 1
        if iteration == 16:  # half of the time that is left to the steps, the last of which ends in time
            assert budget.share(iteration) == pytest.approx(32 / 64)
            assert budget.steps_expected(iteration, 1000) == 33
            assert budget.seconds_left(iteration, 1000) == 120 - 20 - 32
            assert budget.seconds_left(iteration, 17) == 2 + 34  # all steps are made before the time is over
    assert (iteration, budget.elapsed()) == (32, 84.0)
    assert budget.validates_at_end()


def test_what_follows_takes_half_of_the_time_at_most() -> None:
    budget, clock = _begun(Tail(cases=100, case_seconds=5.0))
    budget.validation = 10.0
    assert budget.steps_end() == 70.0  # 50 s for steps, 50 for measuring as many as fit, none for a validation
    clock.now += 45
    assert not budget.validates_between()
    clock.now += 5
    assert not budget.validates_at_end()


def test_held_out_cases_are_reckoned_by_this_run_unless_earlier_ones_tell() -> None:
    budget, _ = _begun(Tail(cases=2, other_seconds=1.0))
    budget.tell_case(6.0)
    assert budget.tail_seconds() == 13.0
    known, _ = _begun(Tail(cases=2, case_seconds=3.0, other_seconds=1.0))
    known.tell_case(6.0)
    assert known.tail_seconds() == 7.0


def test_the_time_before_an_interruption_counts() -> None:
    clock = Clock()
    budget = Budget(2.0, Tail(), began=clock() - 5.0, clock=clock)  # the process took 5 s to start
    budget.resume(60.0)
    clock.now += 4.0
    budget.begin_steps(20, 0.5)
    assert budget.elapsed() == 69.0
    assert budget.step_seconds(20) == 3.0  # as before the interruption
    clock.now += 10.0
    assert budget.step_seconds(25) == 2.0
    assert budget.share(25) == pytest.approx(0.5 + 0.5 * 10 / (119 - 2 - 69))


def test_steps_are_foretold_by_the_last_training_until_a_few_are_made() -> None:
    unknown, clock = _begun(Tail(other_seconds=10.0))
    assert unknown.steps_expected(0, 1000) is None
    clock.now += 2.0
    assert unknown.steps_expected(2, 1000) is None
    assert unknown.steps_expected(4, 1000) == 4 + int(88 / 0.5)
    known, _ = _begun(Tail(other_seconds=10.0, step_seconds=2.0))
    assert known.steps_expected(0, 1000) == 45
    assert known.steps_expected(0, 30) == 30


def test_words() -> None:
    earlier: list[Earlier] = [
        {"version": "v1", "iterations": None, "minutes": None, "dice": None},
        {"version": "v2", "iterations": 310, "minutes": 6.02, "dice": 0.614},
        {"version": "v3", "iterations": 420, "minutes": None, "dice": None},
    ]
    assert forecast(None, 300, 6.0) is None
    assert forecast(300, 300, 1.0) == "all 300 steps fit into 1 minute"
    assert forecast(430, 1000, 6.0, earlier) == (
        "about 430 steps in 6 minutes; earlier trainings here: v2 310 steps in 6 minutes, Dice 0.61; "
        "v3 420 steps, not measured"
    )


def test_preparing_that_leaves_no_time_says_what_to_ask_for() -> None:
    clock = Clock()
    budget = Budget(0.5, Tail(), clock=clock)
    clock.now += 29
    budget.check_preparing(2, 18)
    clock.now += 11
    with pytest.raises(TrainingError, match=r"prepare 3 of 18 cases took 40 s, and max_minutes is 0\.5.* least 8\.$"):
        budget.check_preparing(3, 18)


def test_a_budget_that_is_too_short_to_validate_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    monkeypatch.setattr(training_loop.Validator, "expected_seconds", lambda self, step: 1e4)
    settings = TrainSettings(iterations=3, max_minutes=1.0, resolution="auto", device="cpu")
    seen: list[TrainProgress] = []
    cases, output = [ball_case(tmp_path, 1)], tmp_path / "model.pt"
    trained = train(cases, TASK, settings, output, None, seen.append, validation=[ball_case(tmp_path, 2)])
    assert trained.info["validation"] is None and trained.info["kept_iteration"] == 3
    assert "no accuracy is claimed" in trained.info["shortfall"] and seen[-1].shortfall == trained.info["shortfall"]
    assert {progress.note for progress in seen} == {trained.info["resolution"]["words"]}
    with pytest.raises(TrainingError, match=r"Ask for max_minutes of at least"):
        train(cases, TASK, TrainSettings(max_minutes=1e-6, device="cpu"), tmp_path / "none.pt")
    assert not (tmp_path / "none.pt").exists()
