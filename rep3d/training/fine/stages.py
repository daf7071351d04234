"""A coarse and a fine stage trained in one request within one budget.

The coarse stage comes first, with its share of the minutes, as a training of its own. The fine one learns from patches
around what the coarse one finds, or the labels hold, with the coarse probabilities as further channels. It is kept only
if both stages together have a better mean Dice than the coarse one alone, on the cases that neither was trained on, on
the images' own grids, by `LEAST_GAIN`; else the version is the coarse one, and its record says why.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rep3d.checkpoint import Checkpoint, save_checkpoint
from rep3d.data.cases import Case, LeftOut
from rep3d.errors import ConfigError
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.inference.predictor import Predictor
from rep3d.tasks.config import TaskConfig
from rep3d.training.preparing import each_case
from rep3d.training.settings import TrainProgress, TrainSettings
from rep3d.training.train import train
from rep3d.training.validation import measured_cases

__all__ = ["COARSE_SHARE", "LEAST_GAIN", "train_stages"]

COARSE_SHARE = 0.5
"""Of the minutes, for the coarse stage."""
LEAST_GAIN = 0.01
"""Mean Dice by which both stages must be better than the coarse one alone."""

_MEASURING = 0.15  # of the minutes, kept for comparing the stages
_LEAST_SHARE = 0.1  # of the minutes, below which a fine stage is not begun

logger = logging.getLogger(__name__)


def train_stages(
    cases: Sequence[Case],
    task: TaskConfig,
    fine: TaskConfig,
    settings: TrainSettings,
    output: Path | str,
    start: Checkpoint | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    *,
    validation: Sequence[Case],
    weights: Mapping[str, float] | None = None,
    other_values: Collection[int] = (),
    left_out: Sequence[LeftOut] = (),
    prepared: Path | str | None = None,
) -> Checkpoint:
    """Train two stages and write what is to be kept as one checkpoint.

    The checkpoint's ``info`` is that of the coarse stage's training, see :func:`~rep3d.training.train.train`, with
    ``stages``: ``kept`` (1 or 2), ``reason`` in words, and where they were compared ``coarse`` and ``both``, the mean
    Dice on the images' own grids. ``minutes`` is that of all.

    Args:
        cases: labelled cases.
        task: of the coarse stage.
        fine: of the fine stage: the same labels and orientation, at its own spacing and patch.
        settings: how to train; ``max_minutes`` is for everything. The iterations are for each stage. The fine stage is
            trained on one device.
        output: checkpoint to write.
        start: go on from this model's coarse stage.
        on_progress: called after each step of either stage; may raise to stop.
        validation: labelled cases that are not trained on; without any, no fine stage is trained.
        weights, other_values, left_out, prepared: as for :func:`~rep3d.training.train.train`.

    Returns:
        The trained version, as written.

    Raises:
        ConfigError: if the tasks do not belong to each other; else as :func:`~rep3d.training.train.train`.
    """
    if (task.labels, task.orientation) != (fine.labels, fine.orientation):
        raise ConfigError(
            f"The fine stage has other labels or another orientation than the coarse one: expected {dict(task.labels)} "
            f"and {task.orientation}, got {dict(fine.labels)} and {fine.orientation}."
        )
    begun, output = time.monotonic(), Path(output)
    budget = 60.0 * settings.max_minutes

    def left() -> float:
        return budget - (time.monotonic() - begun)

    def trained(task: TaskConfig, output: Path, seconds: float, coarse: Checkpoint | None = None) -> Checkpoint:
        first = coarse is None
        return train(
            cases,
            task,
            dataclasses.replace(settings, max_minutes=seconds / 60.0, gpus=settings.gpus if first else None),
            output,
            start if first else None,
            on_progress,
            validation=validation if first else (),
            weights=weights,
            other_values=other_values,
            left_out=left_out,
            prepared=prepared,
            coarse=coarse,
        )

    alone = not validation
    coarse = trained(task, output, budget * (1.0 if alone else COARSE_SHARE))
    if alone:
        return _written(coarse, None, output, begun, {"reason": "there is no case to tell by whether a fine one pays"})
    seconds = left() - _MEASURING * budget
    if seconds < _LEAST_SHARE * budget:
        return _written(coarse, None, output, begun, {"reason": "the minutes do not suffice for a fine one"})
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".fine-") as folder:
        second = trained(fine, Path(folder) / "fine.pt", seconds, coarse)
    both = dataclasses.replace(coarse, fine=second)
    scores = _compared(both, validation, settings.device)
    if scores is None:
        return _written(coarse, None, output, begun, {"reason": "no case could be measured"})
    gain = scores["both"] - scores["coarse"]
    reason = f"the fine one changes the mean Dice by {gain:+.3f}, and {LEAST_GAIN:+} is needed"
    return _written(coarse, second if gain >= LEAST_GAIN else None, output, begun, {"reason": reason, **scores})


def _compared(both: Checkpoint, validation: Sequence[Case], device: str | None) -> dict[str, float] | None:
    """Return the mean Dice of the coarse stage alone and of both, on the images' own grids; None for none."""
    predictor = Predictor(both, device)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.nii.gz"

        def dice(case: Case, coarse: bool) -> dict[str, float]:
            predictor.segment(case.image, file, coarse=coarse)
            return dice_of_files(file, case.label, both.task.labels)

        found = each_case(measured_cases(validation), lambda case: (dice(case, True), dice(case, False)), [])
    means = {
        name: mean_dice({case.id: scores[number] for case, scores in found})
        for number, name in enumerate(("coarse", "both"))
    }
    return None if any(math.isnan(mean) for mean in means.values()) else means


def _written(
    coarse: Checkpoint, second: Checkpoint | None, output: Path, begun: float, said: Mapping[str, str | float]
) -> Checkpoint:
    stages = {"kept": 1 if second is None else 2, **said}
    info = {**coarse.info, "stages": stages, "minutes": (time.monotonic() - begun) / 60.0}
    save_checkpoint(output, coarse.model, coarse.task, info, second)
    logger.info("stages: %s kept: %s", stages["kept"], stages["reason"])
    return Checkpoint(coarse.model, coarse.task, info, second)
