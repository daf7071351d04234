"""After a version is published: whether it can be computed faster with the same Dice on its held-out cases."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lib.models.served import ServedModel
from rep3d.checkpoint import load_checkpoint
from rep3d.data.cases import Case
from rep3d.inference.device import choose_device
from rep3d.inference.tuned import PLAIN
from rep3d.predicting.tuning import tune

__all__ = ["WORTH_SECONDS", "tune_version"]

logger = logging.getLogger(__name__)

WORTH_SECONDS = 3.0  # for an image: nobody waits for what takes less


def tune_version(
    served: ServedModel, version: str, cases: Sequence[Case], case_seconds: float | None, seconds: float
) -> None:
    """Measure faster ways of computing a version, and keep the one that stands with it; whatever fails is logged.

    Args:
        served: the model.
        version: which of its versions.
        cases: those that it was held against.
        case_seconds: what segmenting one of them takes; None where that is not known.
        seconds: how long it may take, about.
    """
    try:
        if (case_seconds or 0.0) < WORTH_SECONDS or choose_device(served.published.device).type != "cpu":
            return
        tuned = tune(load_checkpoint(served.versions.checkpoint(version)), cases, served.setup.labels, seconds)
        if tuned is None:
            logger.info("%s is computed plainly: no time to measure a faster way on enough held-out cases", version)
            return
        if tuned.way != PLAIN:
            served.versions.keep_tuned(version, tuned.to_dict())
        logger.info("%s: %s", version, tuned.words or "no way was faster with the same Dice; it is computed plainly")
    except Exception as error:  # the version is made and answers, if slower
        logger.warning("a faster way for %s: %s: %s", version, type(error).__name__, error)
