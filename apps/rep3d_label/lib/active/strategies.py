"""Which image to annotate next: those of :mod:`rep3d.active.strategies` over what the published model knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.strategy import Strategy

from lib.active.knowledge import Knowledge, read_knowledge
from lib.models.served import ServedModel
from lib.names import known
from lib.storage.datastore import Rep3DDatastore
from rep3d.active.strategies import NEEDS, STRATEGIES, select
from rep3d.errors import CheckpointError

__all__ = ["Acquisition", "all_strategies"]


def all_strategies(served: Mapping[str, ServedModel], default_model: str) -> dict[str, Strategy]:
    """Each strategy by its name."""
    return {name: Acquisition(name, served, default_model) for name in STRATEGIES}


class Acquisition(Strategy):
    """One strategy of :data:`rep3d.active.strategies.STRATEGIES`.

    Only scores and features of the model that is published now count. While they are missing another strategy chooses,
    at random in the end, and the answer says so.

    Args:
        name: of the strategy.
        served: the models, by name.
        default_model: whose scores count where a request names no model.
        seed: of the random choices; None for different ones each time.
    """

    def __init__(
        self, name: str, served: Mapping[str, ServedModel], default_model: str, seed: int | None = None
    ) -> None:
        super().__init__(STRATEGIES[name])
        self._name = name
        self._served = served
        self._default = default_model
        self._random = np.random.default_rng(seed)

    def __call__(self, request: dict[str, Any], datastore: Rep3DDatastore) -> dict[str, Any] | None:
        """Choose among ``request["candidates"]``, image ids, or else among all images without a final label.

        Those that nobody can use are left out.

        Returns:
            ``id``, ``used_strategy``, and where they apply ``score``, ``version`` (of the model that was asked) and
            ``reason`` (why another strategy than this one chose). None where there is nothing to choose from.

        Raises:
            NotFoundError: for a model that is not served.
        """
        unlabelled = set(datastore.get_unlabeled_images()) - set(datastore.unusable.reasons())
        asked = request.get("candidates")
        candidates = sorted(unlabelled if asked is None else unlabelled & set(asked))
        facts, knowledge, missing = self._known(request.get("model") or self._default)
        images = set(datastore.list_images()) - set(candidates)
        taken = [knowledge.features[id_] for id_ in sorted(images) if id_ in knowledge.features]
        choice = select(self._name, candidates, knowledge.scores, knowledge.features, taken, self._random)
        if choice is None:
            return None
        answer: dict[str, Any] = {"id": choice.id, "used_strategy": choice.strategy}
        if choice.score is not None:
            answer["score"] = choice.score
        if facts and NEEDS[choice.strategy]:
            answer["version"] = facts.get("version")
        if choice.reason:
            answer["reason"] = f"{missing}: chosen at random" if missing else choice.reason
        return answer

    def _known(self, model: Any) -> tuple[Mapping[str, Any], Knowledge, str | None]:
        """Return facts of the model, what it says about the images, and why there is nothing of that."""
        served = known("model", model, self._served)
        if not NEEDS[self._name]:
            return {}, Knowledge(), None
        try:
            facts = served.published.facts()
        except CheckpointError as error:
            return {}, Knowledge(), f"the published model cannot be used ({error})"
        return facts, read_knowledge(served.setup.workspace, facts), None if facts else "no trained model yet"
