"""Calls about training and scoring: start, watch, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..errors import BadAnswer, NotFoundError, ServerBusy, ServerTimeout, WaitTimeout
from .answers_status import ServerStatus, parse_status
from .answers_train import IDLE, TaskStatus, TrainStatus, parse_task, parse_train
from .calls_base import Calls, segment_of

__all__ = ["TrainingCalls"]

_MISSED_POLLS = 5


class TrainingCalls(Calls):
    """Training and scoring."""

    _stats_before: Mapping[str, object] = {}  # id of a training started here -> "started" of the one before it

    def train_start(self, model: str | None = None, settings: Mapping[str, object] | None = None) -> TrainStatus:
        """Start a training at the server and return its first state.

        Raises:
            ConflictError, ServerBusy: A training runs already, or there is no labelled case.
        """
        info = self.info()
        model = model or info.default_model
        before = info.train_stats.get(model, {}).get("started")
        task = parse_task(self._post_json(f"/train/{segment_of(model, 'model')}", dict(settings or {})))
        self._stats_before = {task.task_id: before}
        return parse_train(task, {}, None)

    def train_status(self, model: str | None = None) -> TrainStatus:
        """Return how a model's latest training is going; state IDLE if there was none since the server started."""
        task = self._task("/train/")
        info = self.info()
        model = model or info.default_model
        return self._train_status(task, model, info.train_stats.get(model, {}))

    def overview(self, model: str | None = None) -> tuple[ServerStatus, TrainStatus]:
        """Return the server's state, and how a model's latest training is going: two cheap requests."""
        task = self._task("/train/")  # before the numbers: those of a training that has ended are its last ones then
        status = self.server_status()
        model = model or status.default_model
        known = status.models.get(model)
        return status, self._train_status(task, model, known.training if known else {})

    def server_status(self) -> ServerStatus:
        """Return what the server does now: models, trainings, batch segmentations, numbers of cases."""
        return parse_status(self._transport.get_json("/rep3d/status"))

    def train_stop(self) -> bool:
        """Stop the running training; return False if none was running."""
        return self._delete_json("/train/") is not None

    def wait_for_training(
        self,
        model: str | None = None,
        poll_seconds: float = 2.0,
        timeout: float | None = None,
        callback: Callable[[TrainStatus], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> TrainStatus:
        """Wait until no training is waiting or running, and return the last state, whatever it is.

        A busy server is asked again, up to five times in a row.

        Args:
            model: Model that is being trained, None for the server's default.
            poll_seconds: Seconds between two questions.
            timeout: Seconds after which to give up, None for never.
            callback: Called with each state, the last included.
            sleep, clock: Injected for tests.

        Raises:
            WaitTimeout: The training goes on at the server.
        """
        start, missed = clock(), 0
        while True:
            try:
                status = self.train_status(model)
            except (ServerBusy, ServerTimeout):
                missed += 1
                if missed > _MISSED_POLLS:
                    raise
            else:
                missed = 0
                if callback is not None:
                    callback(status)
                if not status.is_active:
                    return status
            if timeout is not None and clock() - start >= timeout:
                raise WaitTimeout(
                    f"Expected the training to end within {timeout:g} s, but it goes on at the server. Ask for its "
                    "state later, or stop it."
                )
            sleep(poll_seconds)

    def scoring_start(self, method: str) -> TaskStatus:
        """Start a scoring of the images at the server.

        Raises:
            ConflictError, ServerBusy: One runs already, or there is no trained model yet.
        """
        return parse_task(self._post_json(f"/scoring/{segment_of(method, 'scoring method')}", {}))

    def scoring_status(self) -> TaskStatus:
        """Return how the latest scoring is going; state IDLE if there was none since the server started."""
        return self._task("/scoring/")

    def scoring_stop(self) -> bool:
        """Stop the running scoring; return False if none was running."""
        return self._delete_json("/scoring/") is not None

    def _task(self, path: str) -> TaskStatus:
        try:
            return parse_task(self._transport.get_json(path))
        except NotFoundError:
            return TaskStatus(IDLE)

    def _train_status(self, task: TaskStatus, model: str, stats: Mapping[str, object]) -> TrainStatus:
        if task.model not in ("", model):  # the latest training of all is another model's
            task = self._latest_task_of(model)
        started, stale = stats.get("started"), None
        if started is not None and task.task_id in self._stats_before:
            stale = started == self._stats_before[task.task_id]
        return parse_train(task, stats, stale)

    def _latest_task_of(self, model: str) -> TaskStatus:
        try:
            answer = self._transport.get_json("/train/", {"all": "true"})
        except NotFoundError:
            return TaskStatus(IDLE)
        if not isinstance(answer, list):
            raise BadAnswer(f"Expected the list of trainings, got {str(answer)[:200]!r}.")
        own = [task for task in map(parse_task, answer) if task.model == model]
        return own[-1] if own else TaskStatus(IDLE)
