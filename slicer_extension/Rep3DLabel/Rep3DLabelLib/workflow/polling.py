"""The server is asked how it goes, and each part of the workflow is told what concerns it.

Every two seconds while something runs there, else every ten; one question at a time, so that a slow server is not asked
faster than it answers.
"""

from __future__ import annotations

from dataclasses import replace

from ..client.answers_status import Overview
from ..i18n import tr
from ..view import ERROR, INFO, WARNING, BatchView, TrainingView
from ..worker.jobs import JobError
from .batch import Batch
from .cases import Cases
from .context import Context
from .training import Training
from .versions import Versions

__all__ = ["Polling"]

_BUSY_SECONDS, _QUIET_SECONDS = 2.0, 10.0


class Polling:
    """What goes on at the server, as far as the user sees it.

    Args:
        context: Shared state.
        training, versions, batch, cases: Who is told.
    """

    def __init__(self, context: Context, training: Training, versions: Versions, batch: Batch, cases: Cases) -> None:
        self._context = context
        self._training, self._versions, self._batch, self._cases = training, versions, batch, cases
        self._asked = False
        self._next = 0.0
        self._stamps: dict[str, str] = {}

    def tick(self) -> None:
        """Ask the server how it goes, when it is time to."""
        context = self._context
        model, due = context.view.model, context.news or context.clock() >= self._next
        if not context.view.connection.usable or not model or self._asked or not due:
            return
        self._asked, context.news = True, False

        def done(overview: Overview) -> None:
            self._heard()
            if model == context.view.model:
                self._show(model, overview)

        def failed(error: JobError) -> None:
            self._heard()
            context.note_connection(error)

        context.call("overview", {"model": model}, done, failed)

    def forget(self) -> None:
        """Another server or model: what is known is of no use."""
        self._stamps.clear()
        self._training.forget()
        self._context.news = True
        self._context.update(training=TrainingView(), versions=(), cases=(), left_out=(), batch=BatchView())
        self._cases.read_if_wanted()

    def _heard(self) -> None:
        self._asked = False
        view = self._context.view
        active = view.training.is_active or view.batch.is_active
        self._next = self._context.clock() + (_BUSY_SECONDS if active else _QUIET_SECONDS)

    def _show(self, model: str, overview: Overview) -> None:
        context, state = self._context, overview.state
        version = state.version or ""
        before = next((known.version for known in context.view.models if known.name == model), "")
        models = tuple(
            replace(known, version=version, error=known.error if version == known.version else "")
            if known.name == model
            else known
            for known in context.view.models
        )
        context.update(models=models, total=state.total, completed=state.completed, left_out=state.left_out)
        if self._changed("problems", " ".join(state.problems)) and state.problems:
            context.say(WARNING, " ".join(state.problems))
        ended = self._training.show(overview.train, version, before)
        endings = [end for end in (ended, self._batch.show(state.batch)) if end]
        if endings:
            level = next((word for word in (ERROR, WARNING) if any(word == worst for worst, _ in endings)), INFO)
            context.say(level, " ".join(text for _, text in endings))
        elif version and before and version != before:
            context.say(INFO, tr("Version {version} is in use now.").format(version=version))
        if ended or self._changed("versions", state.versions_stamp):
            self._versions.read()
        if self._changed("cases", state.cases_stamp):
            self._cases.read_if_wanted()
        if context.view.training.is_active or context.view.batch.is_active:
            self._next = min(self._next, context.clock() + _BUSY_SECONDS)

    def _changed(self, what: str, stamp: str) -> bool:
        known, self._stamps[what] = self._stamps.get(what), stamp
        return known != stamp
