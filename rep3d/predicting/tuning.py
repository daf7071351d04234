"""Finds out which faster way of computing a version stands: its Dice decides, on cases that it was not trained on.

Plainly and in one faster way after the other, each case is segmented from file to file and compared with its label
map. The precision comes first, then the windows, then the first look; each is tried with the best of those before, and
kept where the mean Dice still changed by less than `MOST_CHANGE` from the plain one and it is faster. What is counted
are processor seconds, so that what else the machine does hardly matters.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.errors import Rep3DError, said
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.files import utc_now
from rep3d.inference.device import processor_name
from rep3d.inference.engines import BFLOAT16, can_compute
from rep3d.inference.predictor import Predictor
from rep3d.inference.tuned import MOST_CHANGE, PLAIN, Tuned, Way, weights_mark

__all__ = ["LEAST_CASES", "LEAST_DICE", "Measured", "measure", "tune"]

LEAST_CASES = 2
LEAST_DICE = 0.1
_GAIN = 0.9  # of the seconds: less than a tenth is not worth another way
_WINDOWS: tuple[dict[str, Any], ...] = ({"overlap": 0.25}, {"overlap": 0.125}, {"overlap": 0.25, "window": 1.5})

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What a way came to: mean Dice, and processor seconds of all cases, from file to file."""

    way: Way
    dice: float
    seconds: float


def tune(
    checkpoint: Checkpoint,
    cases: Sequence[Case],
    labels: Mapping[str, int],
    seconds: float = math.inf,
    tell: Callable[[Way, float, float], None] = lambda way, dice, seconds: None,
) -> Tuned | None:
    """Measure which way of computing is the fastest that leaves the Dice as it is, on this machine's processor.

    Args:
        checkpoint: the model; it is not changed.
        cases: labelled cases that it was not trained on; where there is no time for all, the first of them are taken.
        labels: label name to voxel value in the label maps.
        seconds: how long it may take, about.
        tell: called after each way with its mean Dice and its processor seconds.

    Returns:
        What to keep under `rep3d.checkpoint.TUNED` among the checkpoint's facts; None where fewer than
        `LEAST_CASES` could be measured in that time, or their mean Dice is below `LEAST_DICE`, where nothing
        is left to lose.
    """
    steps = _steps(checkpoint)
    runs = 1 + sum(map(len, steps))
    with tempfile.TemporaryDirectory(prefix="rep3d-tune-") as folder:
        file = Path(folder) / "found.nii.gz"
        usable, dice, spent = _plainly(checkpoint, cases, labels, file, seconds / runs)
        plain = best = Measured(PLAIN, mean_dice(dice), spent)
        if len(usable) < LEAST_CASES or not plain.dice >= LEAST_DICE:
            return None
        tell(PLAIN, plain.dice, plain.seconds)
        tried: list[dict[str, Any]] = []
        for step in steps:
            before = best
            for change in step:
                one = measure(checkpoint, usable, labels, file, dataclasses.replace(before.way, **change))
                if one is None:
                    continue
                tell(one.way, one.dice, one.seconds)
                stands = abs(one.dice - plain.dice) < MOST_CHANGE
                tried.append({**dataclasses.asdict(one), "stands": stands})
                if stands and one.seconds < min(best.seconds, _GAIN * before.seconds):
                    best = one
    return Tuned(
        way=best.way,
        dice=best.dice,
        plain_dice=plain.dice,
        seconds=best.seconds,
        plain_seconds=plain.seconds,
        cases=[case.id for case in usable],
        processor=processor_name(),
        created=utc_now(),
        weights=weights_mark(checkpoint),
        tried=tried,
    )


def _steps(checkpoint: Checkpoint) -> list[Sequence[dict[str, Any]]]:
    """Return what is tried, one step after the other."""
    steps: list[Sequence[dict[str, Any]]] = [({"precision": BFLOAT16},)] if can_compute(BFLOAT16) else []
    steps.append(_WINDOWS)
    if checkpoint.fine is None:  # else its coarse stage is the first look
        steps.append(({"first_look": True},))
    return steps


def _plainly(
    checkpoint: Checkpoint, cases: Sequence[Case], labels: Mapping[str, int], file: Path, seconds: float
) -> tuple[list[Case], dict[str, dict[str, float]], float]:
    """Measure as many cases as can be in so many seconds; return those, their Dice and the processor seconds."""
    predictor = Predictor(checkpoint, "cpu", values=labels, way=PLAIN)
    usable: list[Case] = []
    dice: dict[str, dict[str, float]] = {}
    spent = 0.0
    began = time.monotonic()
    for case in cases:
        if usable and (time.monotonic() - began) / len(usable) * (len(usable) + 1) > seconds:
            break
        try:
            dice[case.id], taken = _case(predictor, checkpoint, case, labels, file)
        except Rep3DError as error:
            _logger.warning("%s is left out: %s", case.id, said(error))
            continue
        usable.append(case)
        spent += taken
    return usable, dice, spent


def measure(
    checkpoint: Checkpoint, cases: Sequence[Case], labels: Mapping[str, int], file: Path, way: Way
) -> Measured | None:
    """Measure a way; None where it cannot be gone, as for want of memory.

    Args:
        checkpoint: the model.
        cases: labelled cases.
        labels: label name to voxel value in the label maps.
        file: where to write each label map, one over the other.
        way: how the network is computed.
    """
    try:
        predictor = Predictor(checkpoint, "cpu", values=labels, way=way)
        found = {case.id: _case(predictor, checkpoint, case, labels, file) for case in cases}
    except Rep3DError as error:
        _logger.warning("not tried to the end: %s: %s", way.words, said(error))
        return None
    dice = mean_dice({id_: scores for id_, (scores, _) in found.items()})
    return Measured(way, dice, sum(taken for _, taken in found.values()))


def _case(
    predictor: Predictor, checkpoint: Checkpoint, case: Case, labels: Mapping[str, int], file: Path
) -> tuple[dict[str, float], float]:
    """Return the Dice of each label of a case, and the processor seconds that its segmentation took."""
    began = time.process_time()
    predictor.segment(case.channels, file)
    taken = time.process_time() - began
    return dice_of_files(file, case.label, case.known(labels), checkpoint.task.ignore), taken
