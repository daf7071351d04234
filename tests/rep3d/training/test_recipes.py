"""Recipes by name: what the paper's is made of, and what is given by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rep3d.errors import ConfigError
from rep3d.imaging.transforms import paper_augmentation
from rep3d.training import loop as training_loop
from rep3d.training import plan as training_plan
from rep3d.training.minutes.budget import forecast, parse_minutes
from rep3d.training.recipes import recipe_settings
from rep3d.training.settings import NO_LIMIT
from rep3d.training.train import TrainSettings, train
from tests.rep3d.balls import TASK, ball_case, small_config


def test_the_papers_recipe_is_the_papers_and_what_is_given_by_hand_overrides_it() -> None:
    paper = recipe_settings("paper", {"seed": None})
    assert (paper.iterations, paper.learning_rate, paper.weight_decay, paper.crops) == (60_000, 1e-4, 0.08, 2)
    assert (paper.sampling, paper.augmentation, paper.loss, paper.schedule) == ("paper", "paper", "dice_ce", "constant")
    assert (paper.val_interval, paper.max_minutes, paper.patience) == (500, NO_LIMIT, 0)
    assert recipe_settings("paper", {"crops": 4, "loss": "present"}) == replace(paper, crops=4, loss="present")
    assert recipe_settings("ours", {}) == TrainSettings(iterations=100_000, max_minutes=60, resolution="auto")
    with pytest.raises(ConfigError, match=r"recipe: expected one of \['ours', 'paper'\], got 'nnunet'"):
        recipe_settings("nnunet", {})


@pytest.mark.parametrize("orientation", ["RAS", "SPL"])
def test_the_papers_augmentation_turns_by_six_degrees_about_one_axis_and_shifts_by_a_tenth(orientation: str) -> None:
    upright = orientation.index("S")
    augment = paper_augmentation(replace(TASK, orientation=orientation))
    image = torch.full((1, 48, 48, 48), 0.5)
    label = torch.zeros(1, 48, 48, 48, dtype=torch.int32)
    flat = [slice(4, 44)] * 3
    flat[(upright + 1) % 3] = slice(22, 26)  # a plate, whose normal tells the angle
    label[(0, *flat)] = 1
    angles, shifts, thickness = [], [], []
    for seed in range(24):
        augment.set_random_state(seed)
        found = augment({"image": image, "label": label})
        places = np.argwhere(np.asarray(found["label"][0]) > 0)
        normal = np.linalg.eigh(np.cov(places.T))[1][:, 0]
        assert abs(normal[upright]) < 0.02
        angles.append(np.degrees(np.arccos(min(1.0, abs(normal[(upright + 1) % 3])))))
        shifts.append(float(found["image"].mean()) - 0.5)
        thickness.append(len(places) / 40**2 / 4)
    assert 3 < max(angles) < 7 and max(map(abs, shifts)) <= 0.1001
    assert 6 <= sum(abs(shift) > 1e-4 for shift in shifts) <= 18
    assert min(thickness) < 0.95 and max(thickness) > 1.05


def test_a_constant_learning_rate_is_the_same_in_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    rates: list[float] = []
    step = training_loop._Loop._before_step

    def watched(loop: training_loop._Loop, trainer: object) -> None:
        step(loop, trainer)  # type: ignore[arg-type]
        rates.append(loop.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(training_loop._Loop, "_before_step", watched)
    settings = recipe_settings("paper", {"iterations": 2, "device": "cpu"})
    trained = train([ball_case(tmp_path, 1)], TASK, settings, tmp_path / "model.pt")
    assert rates == [1e-4] * 2 and trained.info["stopped"] == "iterations"


def test_times_are_written_as_people_do() -> None:
    texts = ("90", "90m", "1.5h", "2 D", "30s", "None")
    assert [parse_minutes(text) for text in texts] == [90, 90, 90, 2880, 0.5, NO_LIMIT]
    assert forecast(7, 9, NO_LIMIT) == "about 7 steps" and forecast(7, 9, 60) == "about 7 steps in 60 minutes"
    for text in ("", "0", "-3", "1h30m", "soon", "inf", "1e9d"):
        with pytest.raises(ConfigError, match="--max-time: expected a time such as 90m"):
            parse_minutes(text)
