"""Which image to annotate next."""

from __future__ import annotations

import random
from typing import Any

from monailabel.interfaces.tasks.strategy import Strategy

from lib.datastore import Rep3DDatastore
from lib.published import PublishedModel
from lib.scoring import current_scores
from lib.workspace import Workspace

__all__ = ["First", "RandomImage", "Uncertainty"]


class First(Strategy):
    """The first image without a label, by id."""

    def __init__(self) -> None:
        super().__init__("The first image without a label, by name")

    def __call__(self, request: dict[str, Any], datastore: Rep3DDatastore) -> dict[str, Any] | None:
        """The choice, or None where every image has a label."""
        unlabelled = datastore.get_unlabeled_images()
        return {"id": min(unlabelled), "used_strategy": "first"} if unlabelled else None


class RandomImage(Strategy):
    """Any image without a label."""

    def __init__(self) -> None:
        super().__init__("A random image without a label")

    def __call__(self, request: dict[str, Any], datastore: Rep3DDatastore) -> dict[str, Any] | None:
        """The choice, or None where every image has a label."""
        unlabelled = datastore.get_unlabeled_images()
        return {"id": random.choice(unlabelled), "used_strategy": "random"} if unlabelled else None


class Uncertainty(Strategy):
    """The image that the published model is least sure about.

    While there are no scores of that model (none is published, or they are still being computed), the choice is
    random, and the answer says so.

    Args:
        model: the published model.
        workspace: where the scores are.
    """

    def __init__(self, model: PublishedModel, workspace: Workspace) -> None:
        super().__init__("The image that the published model is least sure about")
        self._model = model
        self._workspace = workspace
        self._random = RandomImage()

    def __call__(self, request: dict[str, Any], datastore: Rep3DDatastore) -> dict[str, Any] | None:
        """The choice, or None where every image has a label."""
        facts = self._model.facts()
        scores = current_scores(self._workspace, facts)
        scored = [id_ for id_ in sorted(datastore.get_unlabeled_images()) if id_ in scores]
        if scored:
            best = max(scored, key=lambda id_: scores[id_])
            return {"id": best, "score": scores[best], "used_strategy": "uncertainty", "version": facts.get("version")}
        choice = self._random(request, datastore)
        reason = "no scores of the published model yet" if facts else "no trained model yet"
        return {**choice, "reason": f"{reason}: chosen at random"} if choice else None
