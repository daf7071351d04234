"""How useful a label would be: the published model's doubt about each image, and what each image looks like to it.

Runs in a child process: after each training, on request, and whenever the server has nothing else to compute (see
:mod:`lib.active.watch`). Results are written as they come, so that a long series is of use before its end and goes on
where it was. First come the measures that one look at an image gives, then the test-time views, which need several;
after a training they are left to the watch, for somebody waits for that training to end.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from itertools import zip_longest
from typing import Any

import psutil
from monailabel.interfaces.tasks.scoring import ScoringMethod

from lib.active.knowledge import Knowledge, current_scores, identity, read_knowledge, write_knowledge
from lib.errors import NoModelError, NotFoundError, in_words
from lib.models.published import PublishedModel
from lib.models.served import ServedModel
from lib.names import known
from lib.paths import ModelWorkspace
from lib.storage.datastore import Rep3DDatastore
from rep3d.active.strategies import assess
from rep3d.errors import CheckpointError
from rep3d.inference.predictor import Predictor

__all__ = ["UncertaintyScoring", "missing_work", "score_unlabelled"]

logger = logging.getLogger(__name__)

_WRITE_EVERY_SECONDS = 2.0
_VIEWS = 4
_LOOK, _FEATURES, _TURN = "look", "features", "views"  # kinds of work: all of one look, features only, test-time views

Progress = Callable[[int, int], None]


def missing_work(datastore: Rep3DDatastore, known: Knowledge, views: bool = True) -> list[tuple[str, str]]:
    """Return what there is still to compute, as pairs of kind of work and image id, in the order to do it.

    Of images with a final label only the features are needed; they come in turn with the others, so that a strategy
    that looks for diversity can be of use early.

    Args:
        datastore: where the images are.
        known: what is not to be computed again.
        views: whether test-time views are wanted.
    """
    unusable = set(datastore.unusable.reasons())
    unlabelled = sorted(set(datastore.get_unlabeled_images()) - unusable)
    labelled = sorted(set(datastore.list_images()) - unusable - set(unlabelled))
    look = [
        (_LOOK, id_)
        for id_ in unlabelled
        if known.scores.get(id_) is None or known.scores[id_].value("entropy") is None or id_ not in known.features
    ]
    features = [(_FEATURES, id_) for id_ in labelled if id_ not in known.features]
    turn = [
        (_TURN, id_)
        for id_ in unlabelled
        if views and (known.scores.get(id_) is None or known.scores[id_].value("variance") is None)
    ]
    for part in (look, features, turn):
        random.shuffle(part)  # so that a time limit does not leave out the same images after each training
    first = [work for pair in zip_longest(look, features) for work in pair if work]
    return first + turn


def score_unlabelled(
    datastore: Rep3DDatastore,
    model: PublishedModel,
    workspace: ModelWorkspace,
    seconds: float,
    on_progress: Progress | None = None,
    *,
    views: bool = False,
) -> dict[str, float]:
    """Score the images without a final label, and compute the features of all; what is known already is kept.

    If another model is published meanwhile, its scores are computed instead.

    Args:
        datastore: where the images are.
        model: the published model.
        workspace: where the results go.
        seconds: time limit; what is not done by then is missing until the next run.
        on_progress: called with the numbers of pieces of work done and to do.
        views: also compare test-time views, after all else; that takes several times as long.

    Returns:
        Mean entropy in [0, 1] by image id.

    Raises:
        CheckpointError: if the published file is damaged.
        NoModelError: if there is no trained model.
    """
    deadline = time.monotonic() + seconds
    while not _score_with_one_model(datastore, model, workspace, deadline, on_progress, views):
        logger.info("scoring: another model was published, so it begins anew")
    return current_scores(workspace, model.facts())


def _score_with_one_model(
    datastore: Rep3DDatastore,
    model: PublishedModel,
    workspace: ModelWorkspace,
    deadline: float,
    on_progress: Progress | None,
    views: bool,
) -> bool:
    """Do what is missing; False where it ended because another model was published."""
    facts = model.facts()
    predictor = model.predictor()
    known = read_knowledge(workspace, facts)
    unusable = set(datastore.unusable.reasons())
    known.failed = {image_id: why for image_id, why in known.failed.items() if image_id not in unusable}
    todo = missing_work(datastore, known, views)
    written = time.monotonic()
    pause = _WRITE_EVERY_SECONDS
    for done, (kind, image_id) in enumerate(todo):
        if identity(model.facts()) != identity(facts):
            return False
        if time.monotonic() >= deadline:
            logger.info("scoring: time is up after %d of %d pieces of work", done, len(todo))
            break
        if image_id in unusable:  # found out by now
            continue
        try:
            _do(kind, image_id, datastore, predictor, known)
        except Exception as error:  # whatever is wrong with one image, the others are scored
            logger.warning("scoring: image %s left out: %s", image_id, in_words(error))
            if _is_unusable(image_id, datastore):
                unusable.add(image_id)
            else:
                known.failed[image_id] = in_words(error)
        else:
            known.failed.pop(image_id, None)
        if on_progress:
            on_progress(done + 1, len(todo))
        if time.monotonic() - written >= pause:
            begun = time.monotonic()
            write_knowledge(workspace, facts, known)
            written = time.monotonic()
            pause = max(_WRITE_EVERY_SECONDS, 20 * (written - begun))  # many images make large files
    write_knowledge(workspace, facts, known)
    return True


def _is_unusable(image_id: str, datastore: Rep3DDatastore) -> bool:
    """Find out whether it is an image's fault that it could not be scored; if so it is noted for all."""
    try:
        return datastore.unusable.check(image_id) is not None
    except NotFoundError:  # removed meanwhile
        return True


def _do(kind: str, image_id: str, datastore: Rep3DDatastore, predictor: Predictor, known: Knowledge) -> None:
    image = datastore.channels.files(datastore.image_file(image_id))
    if kind == _TURN:
        known.scores[image_id] = assess(predictor, image, _VIEWS)
        return
    if kind == _LOOK:
        known.scores[image_id] = assess(predictor, image)
    known.features[image_id] = predictor.features(image)


class UncertaintyScoring(ScoringMethod):
    """The scoring method ``uncertainty``: :func:`score_unlabelled` on request, for one model or all.

    Args:
        served: the models, by name.
    """

    def __init__(self, served: Mapping[str, ServedModel]) -> None:
        super().__init__(
            "How unsure the published model is about each image without a label (entropy, margin and test-time "
            "variance, each a mean from 0 to 1), and encoder features"
        )
        self._served = served

    def check(self) -> None:
        """Refuse to start while there is no model to score with (NoModelError)."""
        if not any(model.published.path.exists() for model in self._served.values()):
            raise NoModelError

    def __call__(self, request: Mapping[str, Any], datastore: Rep3DDatastore) -> dict[str, Any]:
        """Score every image without a label, without a time limit.

        Args:
            request: ``model``, a name, or nothing for all; ``background``, whether others come first.
            datastore: where the images are.
        """
        name = request.get("model")
        models = [known("model", name, self._served)] if name else list(self._served.values())
        self.check()
        if request.get("background"):
            psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS if os.name == "nt" else 10)
        result: dict[str, Any] = {}
        for model in models:
            try:
                version = model.published.facts().get("version")
                if version is None:
                    continue
                place = model.setup.workspace
                scores = score_unlabelled(datastore, model.published, place, seconds=float("inf"), views=True)
                known_now = read_knowledge(place, model.published.facts())
                failed = {**known_now.failed, **datastore.unusable.reasons()}
                result[model.name] = {"scored": len(scores), "version": version, "failed": failed}
            except CheckpointError as error:  # a damaged model keeps no other one from its scores
                logger.warning("scoring: %s left out: %s", model.name, error)
                result[model.name] = {"error": str(error)}
        return result
