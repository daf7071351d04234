"""One piece of a simulated annotation: the first batch, a strategy's rounds, or the training on everything.

The "clinician" hands in the true label of each chosen case. Every strategy of a seed starts from the same model, which
learned from the same first batch, and is measured on the same held-out cases: differences are the strategy's.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rep3d.active.strategies import NEEDS, ImageScore, assess, check_strategy, select_batch
from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case, LeftOut
from rep3d.data.cohort import Cohort
from rep3d.errors import ConfigError, TrainingError
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.inference.predictor import Predictor
from rep3d.json_file import JsonFile, json_object
from rep3d.nn.zoo import preset_word
from rep3d.tasks.config import TaskConfig
from rep3d.training.preparing import each_case
from rep3d.training.sampling import NEW_CASE_WEIGHT
from rep3d.training.train import TrainSettings, task_for_cases, train

__all__ = ["FIRST_BATCH", "REFERENCE", "SCRATCH_SUFFIX", "SimulationPlan", "Unit", "play_unit", "plain_file"]

FIRST_BATCH, REFERENCE = "first_batch", "reference"
SCRATCH_SUFFIX = ".scratch"  # of folders that a unit works in and removes
_Made = TypeVar("_Made")
_MOST_SEED = 100_000  # a training's seed is made of the simulation's and the round


@dataclass(frozen=True)
class SimulationPlan:
    """What to replay.

    Attributes:
        labels: how many labels there are after each round, rising; the first batch is chosen at random.
        pool: cases that may be annotated.
        held_out: other cases, to measure on.
        iterations: training steps per round. Steps, not minutes: a busy machine must not change the result.
        preset: network, one of :func:`rep3d.nn.zoo.preset_words`.
        new_weight: how often a round's new cases are drawn in training, for each time that an old one is.
        views: test-time views that the strategy ``tta`` compares.
        device: where to compute; None for the best at hand.
    """

    labels: tuple[int, ...] = (2, 4, 8, 12, 20)
    pool: int = 60
    held_out: int = 20
    iterations: int = 100
    preset: str = "tiny"
    new_weight: float = NEW_CASE_WEIGHT
    views: int = 4
    device: str | None = None

    def __post_init__(self) -> None:
        if not self.labels or self.labels[0] < 1 or list(self.labels) != sorted(set(self.labels)):
            raise ConfigError(f"labels: expected rising whole numbers from 1 on, got {list(self.labels)}")
        if self.labels[-1] > self.pool:
            raise ConfigError(f"pool: expected at least as many cases as labels ({self.labels[-1]}), got {self.pool}")
        if self.held_out < 1 or self.iterations < 1:
            raise ConfigError(
                f"expected at least 1 held-out case and 1 iteration, got {self.held_out} and {self.iterations}"
            )
        object.__setattr__(self, "preset", preset_word(self.preset))

    def identity(self) -> dict[str, Any]:
        """Return what the numbers depend on, as plain JSON types."""
        return {**asdict(self), "labels": list(self.labels)}


@dataclass(frozen=True)
class Unit:
    """A piece of work whose result is one file: a strategy, `FIRST_BATCH` or `REFERENCE`, with one seed."""

    seed: int
    name: str

    def __post_init__(self) -> None:
        if self.name not in (FIRST_BATCH, REFERENCE):
            check_strategy(self.name)
        if not 0 <= self.seed < _MOST_SEED:
            raise ConfigError(f"seed: expected a whole number from 0 to {_MOST_SEED - 1}, got {self.seed}")

    def result(self, folder: Path) -> Path:
        """Return where its numbers are written."""
        return folder / f"seed{self.seed}_{self.name}.json"

    def rounds(self, folder: Path) -> list[dict[str, Any]]:
        """Its numbers; empty where it is not done, or is to be done again since the file is damaged."""
        return plain_file(self.result(folder), begins_anew=True).read().get("rounds", [])

    def model(self, folder: Path) -> Path:
        """Return where its model is kept, for the units that begin with it."""
        return folder / f"seed{self.seed}_{self.name}.pt"


def play_unit(plan: SimulationPlan, cohort: Cohort, unit: Unit, folder: Path, report: Callable[[str], None]) -> None:
    """Do one unit and write its result; a strategy needs the first batch of its seed.

    Args:
        plan: what to replay.
        cohort: the cases of this seed.
        unit: which piece.
        folder: where results are.
        report: called with a line of text after each round.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{unit.name}-", suffix=SCRATCH_SUFFIX) as scratch:
        player = _Player(plan, cohort, unit, Path(scratch), report)
        if unit.name == FIRST_BATCH:
            rounds, checkpoint = player.first_batch()
            save_checkpoint(unit.model(folder), checkpoint.model, checkpoint.task, checkpoint.info)
        elif unit.name == REFERENCE:
            rounds = player.reference()
        else:
            first = Unit(unit.seed, FIRST_BATCH)
            done = first.rounds(folder)
            rounds = done + player.strategy(done[0]["added"], load_checkpoint(first.model(folder)))
    result = {"seed": unit.seed, "name": unit.name, "rounds": rounds}
    plain_file(unit.result(folder), begins_anew=True).write(result, allow_nan=False)


def plain_file(path: Path, begins_anew: bool) -> JsonFile[dict[str, Any]]:
    """Return a file of a simulation; see :class:`rep3d.json_file.JsonFile`."""
    return JsonFile(path, json_object, f"what the simulation wrote into {path.name}", dict, begins_anew)


class _Player:
    def __init__(
        self, plan: SimulationPlan, cohort: Cohort, unit: Unit, scratch: Path, report: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.cohort = cohort
        self.unit = unit
        self.scratch = scratch
        self.report = report
        self.pool = {case.id: case for case in cohort.pool}

    def first_batch(self) -> tuple[list[dict[str, Any]], Checkpoint]:
        rng = np.random.default_rng([self.unit.seed, 0])
        added = [choice.id for choice in select_batch("random", self.plan.labels[0], list(self.pool), {}, {}, [], rng)]
        return self._round(0, [], added, None, 0.0, self.plan.iterations)

    def reference(self) -> list[dict[str, Any]]:
        steps = self.plan.iterations * len(self.plan.labels)
        return self._round(0, [], list(self.pool), None, 0.0, steps)[0]

    def strategy(self, first_batch: Sequence[str], checkpoint: Checkpoint) -> list[dict[str, Any]]:
        labelled = list(first_batch)
        rng = np.random.default_rng([self.unit.seed, 1])
        rounds = []
        for number, total in enumerate(self.plan.labels[1:], start=1):
            started = time.perf_counter()
            added = self._choose(labelled, total - len(labelled), checkpoint, rng)
            seconds = time.perf_counter() - started
            record, checkpoint = self._round(number, labelled, added, checkpoint, seconds, self.plan.iterations)
            rounds += record
            labelled += added
        return rounds

    def _choose(
        self, labelled: Sequence[str], count: int, checkpoint: Checkpoint, rng: np.random.Generator
    ) -> list[str]:
        needs = NEEDS[self.unit.name]
        candidates = [id_ for id_ in self.pool if id_ not in set(labelled)]
        scores: dict[str, ImageScore] = {}
        features: dict[str, np.ndarray] = {}
        if needs:
            predictor = Predictor(checkpoint, self.plan.device)
            views = self.plan.views if "variance" in needs else 1
            if needs - {"features"}:
                scores = self._each(candidates, lambda case: assess(predictor, case.channels, views))
                candidates = list(scores)
            if "features" in needs:
                features = self._each(list(self.pool), lambda case: predictor.features(case.channels))
                candidates = [id_ for id_ in candidates if id_ in features]
            if len(candidates) < count:
                raise TrainingError(f"{count} cases are to be chosen, and {len(candidates)} can be looked at.")
        known = [features[id_] for id_ in labelled if id_ in features]
        choices = select_batch(self.unit.name, count, candidates, scores, features, known, rng)
        return [choice.id for choice in choices]

    def _round(
        self,
        number: int,
        labelled: Sequence[str],
        added: Sequence[str],
        start: Checkpoint | None,
        choose_seconds: float,
        iterations: int,
    ) -> tuple[list[dict[str, Any]], Checkpoint]:
        """Trains on what is labelled by now, and measures."""
        begun = time.perf_counter()
        cases = [self.pool[id_] for id_ in (*labelled, *added)]
        checkpoint = train(
            cases,
            start.task if start else self._task(),
            TrainSettings(
                iterations=iterations,
                max_minutes=1e6,
                seed=self.unit.seed * 1000 + number,
                preset=self.plan.preset,
                device=self.plan.device,
            ),
            self.scratch / "model.pt",
            start,
            weights={id_: self.plan.new_weight for id_ in added} if labelled else None,
            prepared=self.scratch / "prepared",
        )
        trained = time.perf_counter()
        dice = self._measure(checkpoint)
        mean = mean_dice(dice)
        done = time.perf_counter()
        self.report(f"seed {self.unit.seed}, {self.unit.name}: {len(cases)} labels, Dice {mean:.3f}")
        seconds = {"choose": choose_seconds, "train": trained - begun, "measure": done - trained}
        record = {
            "labels": len(cases),
            "added": list(added),
            "iterations": int(checkpoint.info["iterations"]),
            "loss": checkpoint.info["loss"],
            "mean": _number(mean),
            "per_label": {name: _number(_mean([row[name] for row in dice.values()])) for name in self.cohort.labels},
            "dice": {case: {name: _number(value) for name, value in row.items()} for case, row in dice.items()},
            "left_out": checkpoint.info["left_out"],
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
        }
        return [record], checkpoint

    def _task(self) -> TaskConfig:
        cohort, images = self.cohort, [case.channels for case in self.cohort.pool]
        return task_for_cases(cohort.name, cohort.labels, images, cohort.modality, channels=cohort.channels)

    def _measure(self, checkpoint: Checkpoint) -> dict[str, dict[str, float]]:
        """Dice of each label on each held-out case, from label files on the image's own grid."""
        predictor = Predictor(checkpoint, self.plan.device)
        held_out = {case.id: case for case in self.cohort.held_out}
        found = self._each(list(held_out), lambda case: self._dice(predictor, case), held_out)
        if not found:
            raise TrainingError("None of the held-out cases could be measured; the lines above say why.")
        return found

    def _each(
        self, ids: Sequence[str], make: Callable[[Case], _Made], cases: Mapping[str, Case] | None = None
    ) -> dict[str, _Made]:
        """Return what is made of each case that can be used; the others are named."""
        left_out: list[LeftOut] = []
        found = each_case([(cases or self.pool)[id_] for id_ in ids], make, left_out)
        for entry in left_out:
            self.report(f"seed {self.unit.seed}, {self.unit.name}: left out {entry}")
        return {case.id: made for case, made in found}

    def _dice(self, predictor: Predictor, case: Case) -> dict[str, float]:
        found = self.scratch / "found.nii.gz"
        predictor.segment(case.channels, found)
        return dice_of_files(found, case.label, self.cohort.labels)


def _number(value: float) -> float | None:
    """Round; None for NaN, which JSON does not know."""
    return round(value, 6) if math.isfinite(value) else None


def _mean(values: Sequence[float]) -> float:
    found = [value for value in values if math.isfinite(value)]
    return float(np.mean(found)) if found else float("nan")
