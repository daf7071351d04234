"""Which way is kept: the fastest whose Dice stays; measured on cases that the model was not trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rep3d.checkpoint import TUNED, Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import OutOfMemoryError
from rep3d.inference.engines import BFLOAT16
from rep3d.inference.tuned import MOST_CHANGE, PLAIN, Tuned, Way
from rep3d.predicting import tuning
from rep3d.predicting.tuning import tune
from tests.rep3d.balls import ball_case, ball_data_set, small_checkpoint
from tests.rep3d.cli.command import Done
from tests.rep3d.predicting.test_predict import model_file

CASES = [Case(name, Path(f"{name}.nii.gz"), Path(f"{name}_label.nii.gz")) for name in "abc"]


def tuned_with(monkeypatch: pytest.MonkeyPatch, measured: Callable[[Way], tuple[float, float]]) -> Tuned:
    """Return what is kept where a way has such a Dice and takes such seconds for a case."""

    def case(predictor: Any, *_: object) -> tuple[dict[str, float], float]:
        dice, seconds = measured(predictor.way)
        return {"Ball": dice}, seconds

    monkeypatch.setattr(tuning, "_case", case)
    monkeypatch.setattr(tuning, "can_compute", lambda precision: True)
    monkeypatch.setattr(tuning, "Predictor", _Named)
    found = tune(small_checkpoint(), CASES, {"Ball": 3})
    assert found is not None
    return found


class _Named:
    def __init__(self, checkpoint: Checkpoint, device: str, *, values: object, way: Way) -> None:
        self.way = way


def seconds_of(way: Way) -> float:
    """Return seconds of which each change saves some."""
    saved = {BFLOAT16: 0.5}.get(way.precision, 1.0) * (0.5 if way.overlap < 0.2 else 0.7 if way.overlap < 0.5 else 1.0)
    return 10 * saved * (0.9 if way.window > 1 else 1.0) * (0.5 if way.first_look else 1.0)


def test_the_fastest_of_what_leaves_the_dice_as_it_is_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuned_with(monkeypatch, lambda way: (0.7, seconds_of(way)))
    assert found.way == Way(BFLOAT16, overlap=0.125, first_look=True)
    assert (found.seconds, found.plain_seconds) == (pytest.approx(3.75), pytest.approx(30))
    assert [case["way"]["overlap"] for case in found.tried] == [0.5, 0.25, 0.125, 0.25, 0.125]
    assert Tuned.from_dict(found.to_dict()) == replace(found, tried=found.to_dict()["tried"])


def test_a_change_of_the_dice_refuses_a_way_and_all_changes_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"bfloat16": 0.0012, "first_look": 0.0012}

    def measured(way: Way) -> tuple[float, float]:
        dice = 0.7 - (0.01 if way.overlap < 0.5 else 0) - (changes["bfloat16"] if way.precision == BFLOAT16 else 0)
        return dice - (changes["first_look"] if way.first_look else 0), seconds_of(way)

    found = tuned_with(monkeypatch, measured)
    assert found.way == Way(BFLOAT16) and found.dice == pytest.approx(0.6988)  # with the first look it were 0.6976
    assert [one["stands"] for one in found.tried] == [True, False, False, False, False]
    changes["first_look"] = -0.004  # better, and another model all the same
    assert tuned_with(monkeypatch, measured).way == Way(BFLOAT16)
    changes["bfloat16"] = MOST_CHANGE + 0.0001
    assert tuned_with(monkeypatch, measured).way == PLAIN


def test_what_is_hardly_faster_or_cannot_be_gone_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(way: Way) -> tuple[float, float]:
        if way.window > 1:
            raise OutOfMemoryError("Not enough memory for that.")
        return 0.7, 9.5 if way.precision == BFLOAT16 else 10.0

    found = tuned_with(monkeypatch, measured)
    assert found.way == PLAIN and found.words is None
    assert [one["way"]["window"] for one in found.tried] == [1.0] * 4


def test_too_little_time_or_too_few_cases_keep_nothing(tmp_path: Path) -> None:
    checkpoint, cases = small_checkpoint(), [ball_case(tmp_path, seed) for seed in range(2)]
    assert tune(checkpoint, cases, checkpoint.task.labels, seconds=0.0) is None
    cases[1].image.write_bytes(b"no image")
    assert tune(checkpoint, cases, checkpoint.task.labels) is None


def test_a_model_that_finds_nothing_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Dice stays whatever is done to it."""
    monkeypatch.setattr(tuning, "_case", lambda *_: ({"Ball": 0.05}, 1.0))
    checkpoint = small_checkpoint()
    assert tune(checkpoint, CASES, checkpoint.task.labels) is None


@pytest.mark.slow
def test_the_command_measures_and_keeps_what_it_found_in_the_model_file(
    tmp_path: Path, rep3d: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REP3D_ENGINE", raising=False)
    data, model = ball_data_set(tmp_path / "data", 4), model_file(tmp_path / "model.pt", 1)
    assert "does not say which cases" in rep3d("tune", model, "--data", data).stderr
    known = load_checkpoint(model)
    save_checkpoint(model, known.model, known.task, {**known.info, "cases": ["c0", "c1", "c2"]})
    assert (
        "has 1 cases that the model was not trained on, and 2 are needed" in rep3d("tune", model, "--data", data).stderr
    )
    save_checkpoint(model, known.model, known.task, {**known.info, "cases": ["c0", "c1"]})
    before = model.read_bytes()
    refused = rep3d("tune", model, "--data", data)  # its weights are random
    assert refused.returncode == 1 and "below 0.1" in refused.stderr and model.read_bytes() == before
    monkeypatch.setattr(tuning, "LEAST_DICE", 0.0)
    done = rep3d("tune", model, "--data", data)
    assert done.returncode == 0, done.stderr
    assert "2 cases: c2, c3" in done.stdout and "plainly: Dice 0." in done.stdout and "Wrote" in done.stdout
    again = load_checkpoint(model)
    found = Tuned.from_dict(again.info[TUNED])
    assert model.read_bytes() != before and list(found.cases) == ["c2", "c3"] and 0 < found.plain_dice < 1
    for name, weight in again.model.state_dict().items():
        assert torch.equal(weight, known.model.state_dict()[name]), name
    told = rep3d("predict", model, data / "imagesTr", tmp_path / "out", "--device", "cpu").stdout
    assert ("Computed in a faster way" in told) == (found.way != PLAIN)
