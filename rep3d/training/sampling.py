"""Which case comes next in training, and the random patch that is cut from it.

Everything drawn is a function of the seed and of the number of the draw. So a run that was interrupted goes on with the
same patches without any random state being kept, and processes that train together share one sequence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Compose
from torch.utils.data import IterableDataset

from rep3d.data.cases import Case
from rep3d.errors import ConfigError

__all__ = ["NEW_CASE_WEIGHT", "Patches", "case_order", "case_weights"]

NEW_CASE_WEIGHT = 3.0
"""How often a case that the model has not learned from yet is drawn, for each time that an old one is."""

_LOWEST, _HIGHEST = 1e-3, 1e3


def case_weights(cases: Sequence[Case], weights: Mapping[str, float] | None) -> list[float]:
    """Return how often each case is drawn, relative to the others; 1 where nothing is said.

    Args:
        cases: the training cases.
        weights: case id to weight; ids of other cases do not matter.

    Raises:
        ConfigError: if a weight is no number from 0.001 to 1000.
    """
    found = [(weights or {}).get(case.id, 1.0) for case in cases]
    for case, weight in zip(cases, found, strict=True):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number or not _LOWEST <= weight <= _HIGHEST:
            raise ConfigError(f"weight of {case.id}: expected a number from {_LOWEST} to {_HIGHEST:g}, got {weight!r}")
    return [float(weight) for weight in found]


def case_order(weights: Sequence[float], seed: int) -> Iterator[int]:
    """Endless indices of cases, in rounds that are shuffled.

    In a round a case comes once for each time its weight holds the smallest weight; what is left over is rounded at
    random, so that the proportions hold over many rounds. With equal weights each case comes once per round.

    Args:
        weights: positive weight of each case.
        seed: determines all.
    """
    times = np.asarray(weights, dtype=np.float64) / min(weights)
    for number in itertools.count():
        random = np.random.default_rng([seed, number])
        repeats = np.floor(times + random.random(len(times))).astype(int)
        yield from random.permutation(np.repeat(np.arange(len(times)), repeats)).tolist()


class Patches(IterableDataset):
    """Endless batches of augmented patches.

    Args:
        prepared: the cases, as :func:`rep3d.imaging.transforms.preparation` gives them.
        weights: how often each is drawn, see :func:`case_order`.
        augment: makes a list of random patches of one case.
        seed: of the order and of the patches.
        first: number of the first draw.
        step: from one draw to the next; processes that train together take turns.
    """

    def __init__(
        self,
        prepared: Sequence[dict[str, Any]],
        weights: Sequence[float],
        augment: Compose,
        seed: int,
        first: int = 0,
        step: int = 1,
    ) -> None:
        self.prepared = prepared
        self.weights = weights
        self.augment = augment
        self.seed = seed
        self.first = first
        self.step = step

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        draws = itertools.islice(enumerate(case_order(self.weights, self.seed)), self.first, None, self.step)
        for number, index in draws:
            self.augment.set_random_state(seed=int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
            yield self.augment(dict(self.prepared[index]))
