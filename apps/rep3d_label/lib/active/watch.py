"""Keeps the scores of the published models complete while the server has nothing better to do.

Whatever made them incomplete (a publication, a roll-back, new images, a scoring that was cut short by its time limit,
by a restart or by a kill), a look every few seconds finds it, and MONAI Label's scoring process does the work at low
priority. A training always comes first.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from monailabel.endpoints import scoring
from monailabel.utils.async_tasks.utils import stop_background_task, tasks

from lib.active.knowledge import Knowledge, identity, read_knowledge
from lib.active.scoring import missing_work
from lib.models.published import PublishedModel
from lib.models.served import ServedModel
from lib.paths import ModelWorkspace
from lib.storage.datastore import Rep3DDatastore
from rep3d.errors import Rep3DError
from rep3d.files import file_state

__all__ = ["ScoringWatch"]

logger = logging.getLogger(__name__)

_PERIOD_SECONDS = 3.0


class ScoringWatch:
    """Looks after the scores of all models of a server.

    Args:
        served: the models, by name.
        datastore: where the images are.
    """

    def __init__(self, served: Mapping[str, ServedModel], datastore: Rep3DDatastore) -> None:
        self._served = served
        self._datastore = datastore
        self._files = {name: _KnownFiles(model.setup.workspace) for name, model in served.items()}
        self._tried: dict[str, Any] = {}

    def start(self) -> None:
        """Begin to look, until the server ends."""
        threading.Thread(target=self._run, name="scoring-watch", daemon=True).start()

    def _run(self) -> None:
        ended = threading.Event()
        while not ended.wait(_PERIOD_SECONDS):
            try:
                self.look()
            except Exception:  # a watch that has ended silently would be worse than one that complains
                logger.exception("scoring: looking after the scores failed; the next look is in a minute")
                ended.wait(60)

    def look(self) -> bool:
        """Start a scoring where one is needed and nothing else runs, and stop it where a training has started.

        Returns:
            Whether it started one.
        """
        if _runs("train"):
            task = _runs("scoring")
            if task and task["request"].get("background"):
                stop_background_task("scoring")
                self._tried.clear()  # it was not its fault that it did not get to its end
            return False
        if _runs("scoring"):
            return False
        for name, model in self._served.items():
            if self._needs(name, model):
                scoring.run_method("uncertainty", {"model": name, "background": True})
                return True
        return False

    def _needs(self, name: str, model: ServedModel) -> bool:
        facts = _usable_facts(model.published)
        if not facts or not model.setup.conf.score_minutes:
            return False
        known = self._files[name].read(facts)
        missing = {work for work in missing_work(self._datastore, known) if work[1] not in known.failed}
        attempt = (identity(facts), missing)
        if not missing or self._tried.get(name) == attempt:  # the last run did not get any further: once is enough
            return False
        self._tried[name] = attempt
        return True


class _KnownFiles:
    """The files of a model's scores, read again only where they have changed."""

    def __init__(self, workspace: ModelWorkspace) -> None:
        self._workspace = workspace
        self._key: Any = None
        self._known = Knowledge()

    def read(self, facts: Mapping[str, Any]) -> Knowledge:
        stamps = [file_state(path) for path in (self._workspace.scores, self._workspace.features)]
        key = (identity(facts), stamps)
        if key != self._key:
            self._known, self._key = read_knowledge(self._workspace, facts), key
        return self._known


def _usable_facts(published: PublishedModel) -> dict[str, Any]:
    """Return facts of the published model; empty where there is none, or none that can be used."""
    try:
        return published.facts()
    except Rep3DError:
        return {}


def _runs(method: str) -> dict[str, Any] | None:
    """Return the last task of MONAI Label's of that kind, if it waits or runs."""
    last = tasks(method)[-1:]
    return last[0] if last and last[0]["status"] in ("SUBMITTED", "RUNNING") else None
