"""How unsure the published model is about each image that has no label yet.

Runs in a child process, after each training and on request. Scores are written as they come, so that a long series is
of use before its end, and with the version of the model, so that scores of an older model are not mistaken for
current ones.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.tasks.scoring import ScoringMethod

from lib.datastore import Rep3DDatastore
from lib.published import PublishedModel
from lib.workspace import Workspace, read_json, write_text
from rep3d.errors import ImageError

__all__ = ["UncertaintyScoring", "current_scores", "score_unlabelled"]

logger = logging.getLogger(__name__)

_WRITE_EVERY_SECONDS = 2.0


def _identity(facts: dict[str, Any]) -> dict[str, Any]:
    """What tells one published model from another; version names repeat where training began anew."""
    return {"version": facts.get("version"), "created": facts.get("created")}


def current_scores(workspace: Workspace, facts: dict[str, Any]) -> dict[str, float]:
    """Uncertainty by image id, if it was computed with the model of these facts; else nothing."""
    content = read_json(workspace.scores)
    if not facts or any(content.get(key) != value for key, value in _identity(facts).items()):
        return {}
    return dict(content.get("scores", {}))


def score_unlabelled(
    datastore: Rep3DDatastore,
    model: PublishedModel,
    workspace: Workspace,
    seconds: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Scores the images without a final label; those that this version of the model has scored already are kept.

    Args:
        datastore: where the images are.
        model: the published model.
        workspace: where the scores go.
        seconds: time limit; what is not scored by then has no score until the next run.
        on_progress: called with the numbers of images done and to do.

    Returns:
        Uncertainty in [0, 1] by image id.
    """
    facts = model.facts()
    scores = current_scores(workspace, facts)
    failed: dict[str, str] = {}
    todo = [id_ for id_ in datastore.get_unlabeled_images() if id_ not in scores]
    random.shuffle(todo)  # so that a time limit does not leave out the same images after each training
    deadline = time.monotonic() + seconds

    def write() -> None:
        write_text(workspace.scores, json.dumps({**_identity(facts), "scores": scores, "failed": failed}, indent=2))

    write()
    written = time.monotonic()
    for done, image_id in enumerate(todo):
        if time.monotonic() >= deadline:
            logger.info("scoring: time limit of %g s reached after %d of %d images", seconds, done, len(todo))
            break
        try:
            scores[image_id] = model.uncertainty(datastore.image_file(image_id))
        except ImageError as error:
            failed[image_id] = str(error)
            logger.warning("scoring: image %s left out: %s", image_id, error)
        if on_progress:
            on_progress(done + 1, len(todo))
        if time.monotonic() - written >= _WRITE_EVERY_SECONDS:
            write()
            written = time.monotonic()
    write()
    return scores


class UncertaintyScoring(ScoringMethod):
    """The scoring method ``uncertainty``: :func:`score_unlabelled` on request.

    Args:
        model: the published model.
        workspace: where the scores go.
    """

    def __init__(self, model: PublishedModel, workspace: Workspace) -> None:
        super().__init__("How unsure the published model is about each image without a label (mean entropy, 0 to 1)")
        self._model = model
        self._workspace = workspace

    def check(self) -> None:
        """Refuses, with 409, to start while there is no model to score with."""
        if not self._model.facts():
            raise HTTPException(409, "no trained model yet: submit at least one label and start a training first")

    def __call__(self, request: dict[str, Any], datastore: Rep3DDatastore) -> dict[str, Any]:
        """Scores every image without a label, without a time limit."""
        self.check()
        scores = score_unlabelled(datastore, self._model, self._workspace, seconds=float("inf"))
        return {"scored": len(scores), "version": self._model.facts().get("version")}
