"""Validation during training: never on training cases, the best weights are kept, and it costs what it may cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import ConfigError
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.predictor import Predictor
from rep3d.inference.sliding import OVERLAP
from rep3d.nn.zoo import build_network
from rep3d.tasks.config import Intensity
from rep3d.training import plan as training_plan
from rep3d.training.train import TrainProgress, TrainSettings, train
from rep3d.training.validation import (
    BestWeights,
    ValidationTimes,
    Validator,
    as_drawn,
    choose_validation,
    measured_cases,
)
from rep3d.training.volumes.prepared import make_ready
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_checkpoint, small_config


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)


def _named(count: int) -> list[Case]:
    return [Case(f"case_{i}", Path(), Path()) for i in range(count)]


def test_validation_is_reported_and_agrees_with_segmenting_the_files(tmp_path: Path) -> None:
    cases, others = [ball_case(tmp_path, 1)], [ball_case(tmp_path, seed) for seed in (7, 8)]
    seen: list[TrainProgress] = []
    settings = TrainSettings(iterations=30, crops=1, learning_rate=5e-3, device="cpu", val_interval=10)
    trained = train(cases, TASK, settings, tmp_path / "model.pt", None, seen.append, validation=others)
    assert trained.info["validation_cases"] == trained.info["validation_measured"] == ["case_7", "case_8"]
    history = trained.info["validation_history"]
    assert [entry["iteration"] for entry in history] == [10, 20, 30]
    best = max(history, key=lambda entry: (entry["mean"], entry["iteration"]))
    assert trained.info["kept_iteration"] == best["iteration"] and trained.info["validation"] == best["dice"]
    assert {p.phase for p in seen} == {"preparing", "training", "validating", "saving"}
    at_15 = next(p for p in seen if p.iteration == 15)
    assert at_15.validation == history[0]["dice"] and at_15.best == history[0]["mean"]
    found = []
    for case in others:
        Predictor.load(tmp_path / "model.pt", "cpu").segment(case.image, tmp_path / "found.nii.gz")
        found.append(dice_of_files(tmp_path / "found.nii.gz", case.label, TASK.labels)["Ball"])
    assert best["dice"]["Ball"] == pytest.approx(np.mean(found), abs=0.02)  # bfloat16 or float32, one grid


TURNED = np.array([[0, 0, 2.0, 5], [-1.5, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1]])
OBLIQUE = np.array([[1.2, -0.5, 0.0, -20], [0.5, 1.2, 0.0, 5], [0, 0, 1.5, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("affine", "tolerance"),
    [
        (
            np.diag([0.5, 0.5, 0.5, 1.0]),
            1e-6,
        ),  # the task's grid takes every other voxel, whose values half precision holds
        (np.diag([-0.5, 0.5, 0.25, 1.0]), 1e-6),
        (TURNED, 1e-3),  # else the image is kept in half precision, which may turn a voxel where two labels are equal
        (OBLIQUE, 1e-3),
    ],
)
def test_dice_is_that_of_rep3d_evaluate_on_the_images_own_voxels(
    tmp_path: Path, affine: np.ndarray, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ball_case(tmp_path, 1, affine)
    stored = nib.load(case.image)
    whole = np.clip(np.rint(np.asarray(stored.dataobj)), 0, 256).astype(np.float32)  # of the window's 256 steps
    nib.save(nib.Nifti1Image(whole, affine), case.image)
    values = np.asarray(nib.load(case.label).dataobj).copy()
    values[:, :9] = 5  # a second label, and a slab of which nothing is known
    values[:, :, 29:] = 255
    nib.save(nib.Nifti1Image(values, affine), case.label)
    labels = {"Ball": 3, "Bar": 5, "Not drawn": 7}
    task = replace(TASK, labels=labels, intensity=Intensity("window", 0, 256), roi_size=(16, 16, 16), ignore=255)
    case = replace(case, annotated=("Ball", "Bar"))
    monkeypatch.setattr("rep3d.training.validation._OVERLAP", OVERLAP)
    torch.manual_seed(1)
    network = build_network(small_config(out_channels=4))
    ready = make_ready(case, task)
    assert ready.label.shape != values.shape
    validator = Validator([as_drawn(case, ready, task, network.stride)], task, torch.device("cpu"))
    case.label.rename(tmp_path / "as_drawn.nii.gz")  # what happens to it during a run changes nothing
    scores = validator.measure(network.train(), lambda window, net: net(window), lambda: None)
    found = tmp_path / "found.nii.gz"
    Predictor(Checkpoint(network.eval(), task, {"version": "v1"}), "cpu", "torch").segment(case.image, found)
    expected = dice_of_files(found, tmp_path / "as_drawn.nii.gz", case.known(labels), 255)
    assert scores == {case.id: pytest.approx(expected, abs=tolerance)}
    assert set(expected) == {"Ball", "Bar"} and 0.05 < np.nanmax(list(expected.values())) < 1


def test_the_best_weights_of_an_earlier_release_are_measured_again(tmp_path: Path) -> None:
    case, network = ball_case(tmp_path, 1, np.diag([1.5, 1.5, 2.0, 1.0])), small_checkpoint().model.train()
    validator = Validator([as_drawn(case, make_ready(case, TASK), TASK, 16)], TASK, torch.device("cpu"))
    weights = {name: tensor * 2 for name, tensor in network.state_dict().items()}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept = {"mean": 0.9, "iteration": 7, "weights": weights, "history": [{"iteration": 7, "mean": 0.9, "dice": {}}]}

    def again(best: BestWeights) -> BestWeights:
        return validator.again(best, network, lambda window, net: net(window), lambda: None)

    found = again(BestWeights(**kept))  # type: ignore[arg-type]
    assert found.mean != 0.9 and found.iteration == 7 and found.weights is weights and found.on_own_voxels
    assert found.history == [{"iteration": 7, "mean": found.mean, "dice": found.dice}]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert again(found) is found
    network.load_state_dict(weights)
    assert validator.measure(network, lambda window, net: net(window), lambda: None) == {case.id: found.dice}


def test_the_weights_that_validated_best_are_written_not_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.2, 0.9, 0.4, 0.4])
    taken: list[dict[str, torch.Tensor]] = []

    def measure(self: Validator, network: torch.nn.Module, *rest: Any) -> dict[str, dict[str, float]]:
        taken.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return {"case_7": {"Ball": next(scores)}}

    monkeypatch.setattr(Validator, "measure", measure)
    cases, others = [ball_case(tmp_path, 1)], [ball_case(tmp_path, 7)]
    settings = replace(SETTINGS, iterations=4, val_interval=1)
    trained = train(cases, TASK, settings, tmp_path / "model.pt", validation=others)
    written = load_checkpoint(tmp_path / "model.pt")
    assert trained.info["kept_iteration"] == 2 and trained.info["validation"] == {"Ball": 0.9}
    for name, tensor in written.model.state_dict().items():
        torch.testing.assert_close(tensor, taken[1][name], rtol=0, atol=0)
    assert any(not torch.equal(taken[1][name], taken[3][name]) for name in taken[1])


def test_patience_ends_a_run_without_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Validator, "measure", lambda *arguments: {"case_7": {"Ball": 0.5}})
    cases, others = [ball_case(tmp_path, 1)], [ball_case(tmp_path, 7)]
    settings = replace(SETTINGS, iterations=20, val_interval=2, patience=2)
    trained = train(cases, TASK, settings, tmp_path / "model.pt", validation=others)
    assert trained.info["stopped"] == "early stopping" and trained.info["iterations"] == 6
    without = train(cases, TASK, replace(settings, patience=0), tmp_path / "model.pt", validation=others)
    assert without.info["stopped"] == "iterations" and without.info["iterations"] == 20


def test_validation_changes_nothing_in_what_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, others = [ball_case(tmp_path, 1)], [ball_case(tmp_path, 7)]
    plain = train(cases, TASK, SETTINGS, tmp_path / "a.pt").model.state_dict()
    # Of equally good weights the last are kept, so these are those at the end.
    monkeypatch.setattr("rep3d.training.validation.mean_dice", lambda scores: 0.5)
    settings = replace(SETTINGS, val_interval=1)
    validated = train(cases, TASK, settings, tmp_path / "b.pt", validation=others).model.state_dict()
    for name, tensor in plain.items():
        torch.testing.assert_close(validated[name], tensor, rtol=0, atol=1e-6)


def test_a_case_in_both_lists_is_refused(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    with pytest.raises(ConfigError, match="case_1"):
        train([case], TASK, SETTINGS, tmp_path / "model.pt", validation=[case])


def test_a_stop_reaches_a_validation_between_two_windows(tmp_path: Path) -> None:
    case, task = ball_case(tmp_path, 1), replace(TASK, roi_size=(16, 16, 16))
    validator = Validator([as_drawn(case, make_ready(case, task), task, 16)], task, torch.device("cpu"))
    network, calls = small_checkpoint().model.train(), []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validator.measure(network, lambda window, net: net(window), stop)
    assert len(calls) == 2 and network.training


def test_at_most_eight_cases_are_measured_and_always_the_same() -> None:
    cases = _named(30)
    measured = measured_cases(cases)
    assert len(measured) == 8 and measured == measured_cases(cases[::-1])
    assert {case.id for case in measured} != {case.id for case in cases[:8]}
    assert measured_cases(cases[:5]) == cases[:5]


def test_cases_to_validate_on_are_chosen_the_same_way_each_time_and_never_from_those_seen() -> None:
    cases = _named(10)
    training, validation = choose_validation(cases, 3)
    assert len(validation) == 3 and sorted(training + validation, key=cases.index) == cases
    assert (training, validation) == choose_validation(cases, 3)
    known = {case.id for case in cases[:6]}

    def seen(case: Case) -> bool:
        return case.id in known

    assert not {case.id for case in choose_validation(cases, 4, seen)[1]} & known
    for count in (-1, 5, 10):
        with pytest.raises(ConfigError, match=f"Cannot hold out {count} cases"):
            choose_validation(cases, count, seen)
    with pytest.raises(ConfigError, match="from 0 to 9"):
        choose_validation(cases, 10)


def test_automatic_validations_cost_a_tenth_of_the_time_at_most() -> None:
    for step, cost in ((1.0, 1.0), (1.0, 8.0), (0.5, 500.0)):
        times, seconds, spent, count = ValidationTimes(0), 0.0, 0.0, 0
        for iteration in range(1, 1000):
            seconds += step
            if times.due(iteration, seconds, iteration / 1000, cost):
                seconds, spent, count = seconds + cost, spent + cost, count + 1
                times.validated(seconds, iteration / 1000)
        assert spent <= 0.1 * seconds and count <= 20
        assert count > 0 or cost == 500.0
    explicit = ValidationTimes(7)
    assert [i for i in range(1, 30) if explicit.due(i, 0.0, i / 30, 1e9)] == [7, 14, 21, 28]


def test_a_label_that_no_case_has_is_left_out_of_the_means() -> None:
    best = BestWeights()
    nan = float("nan")
    dice = best.offer({"a": {"x": 0.5, "y": nan}, "b": {"x": 0.7, "y": nan}}, 5, dict)
    assert dice == {"x": pytest.approx(0.6)} and best.mean == pytest.approx(0.6)
    assert best.offer({"a": {"x": nan, "y": nan}}, 6, dict) == {}
    assert best.iteration == 5 and best.without_gain == 1
