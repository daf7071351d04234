"""Which case is drawn how often, and that draws depend on the seed and their number alone."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rep3d.data.cases import Case
from rep3d.errors import ConfigError
from rep3d.imaging.transforms import augmentation, preparation
from rep3d.training.sampling import Patches, case_order, case_weights
from tests.rep3d.balls import TASK, ball_case


def test_with_equal_weights_each_case_comes_once_per_round() -> None:
    drawn = list(islice(case_order([2.0] * 5, seed=1), 50))
    rounds = [drawn[i : i + 5] for i in range(0, 50, 5)]
    assert all(sorted(round_) == [0, 1, 2, 3, 4] for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 5  # shuffled anew each time


def test_weights_are_the_proportions_of_many_draws_and_no_case_is_forgotten() -> None:
    weights = [1.0, 1.0, 3.0, 2.5]
    drawn = list(islice(case_order(weights, seed=3), 7500))
    counts = Counter(drawn)
    for case, weight in enumerate(weights):
        assert counts[case] == pytest.approx(7500 * weight / sum(weights), rel=0.03)
    assert all({0, 1, 2, 3} <= set(drawn[i : i + 16]) for i in range(0, 7000, 16))
    assert drawn == list(islice(case_order(weights, seed=3), 7500))
    assert drawn != list(islice(case_order(weights, seed=4), 7500))


def test_a_weight_that_is_missing_is_one_and_an_impossible_one_is_refused() -> None:
    cases = [Case(name, Path(name), Path(name)) for name in "ab"]
    assert case_weights(cases, None) == [1.0, 1.0]
    assert case_weights(cases, {"b": 4, "gone": -1}) == [1.0, 4.0]
    for wrong in (0, -1.0, float("nan"), float("inf"), "much", True):
        with pytest.raises(ConfigError, match="weight of b"):
            case_weights(cases, {"b": wrong})  # type: ignore[dict-item]


def test_processes_share_one_sequence_and_a_resumed_run_goes_on_in_it(tmp_path: Path) -> None:
    cases = [ball_case(tmp_path, seed) for seed in (1, 2)]
    prepare = preparation(TASK, with_label=True)
    prepared = [prepare({"image": str(case.image), "label": str(case.label)}) for case in cases]

    def patches(count: int, first: int = 0, step: int = 1) -> list[np.ndarray]:
        made: Any = Patches(prepared, [1.0, 1.0], augmentation(TASK, 1), 5, first, step)
        return [np.asarray(patch[0]["image"]) for patch in islice(made, count)]

    alone = patches(6)
    assert not any(np.array_equal(alone[i], alone[j]) for i in range(6) for j in range(i))
    torch.rand(3), np.random.rand(3)  # no global random state is used
    for first, step in ((0, 2), (1, 2), (3, 1)):
        for got, expected in zip(patches(3, first, step), alone[first::step], strict=True):
            np.testing.assert_array_equal(got, expected)
