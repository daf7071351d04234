"""Calls about training: start, watch, stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from ..errors import BadAnswer, NotFoundError, ServerBusy, ServerTimeout, WaitTimeout
from .answers_status import Overview, parse_state
from .answers_train import IDLE, TrainStatus, parse_task, parse_train
from .calls_base import Calls, segment_of

__all__ = ["TrainingCalls"]

_MISSED_POLLS = 5


class TrainingCalls(Calls):
    """Training."""

    _stats_before: Mapping[str, object] = {}  # id of a training started here -> "started" of the one before it

    def train_start(self, model: str | None = None, settings: Mapping[str, object] | None = None) -> TrainStatus:
        """Start a training at the server and return its first state.

        Args:
            model: The model, None for the server's default one.
            settings: As the server knows them; "resume": True goes on with the training that was stopped or
                interrupted, False begins anew and gives that one up.

        Raises:
            ConflictError, ServerBusy: A training runs already, there is no labelled case, or there is a training to
                be gone on with and the settings do not say what becomes of it.
        """
        model = self._model(model)
        before = parse_state(self._transport.get_json("/rep3d/status"), model)[1].get("started")
        task = parse_task(self._post_json(f"/train/{segment_of(model, 'model')}", dict(settings or {})))
        self._stats_before = {task.task_id: before}
        return parse_train(task, {}, None)

    def overview(self, model: str | None = None) -> Overview:
        """Return what the server does, and how a model's latest training is going: two cheap requests.

        The training is in state IDLE if there was none since the server started.
        """
        task = self._task()  # before the numbers: those of a training that has ended are its last ones then
        state, stats = parse_state(self._transport.get_json("/rep3d/status"), model)
        if task.model not in ("", state.model):  # the latest training of all is another model's
            task = self._latest_task_of(state.model)
        started, stale = stats.get("started"), None
        if started is not None and task.task_id in self._stats_before:
            stale = started == self._stats_before[task.task_id]
        return Overview(state, parse_train(task, stats, stale))

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
                status = self.overview(model).train
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
                    f"The training has not ended within {timeout:g} s and goes on at the server. Ask for its state "
                    "later, or stop it."
                )
            sleep(poll_seconds)

    def _task(self) -> TrainStatus:
        try:
            return parse_task(self._transport.get_json("/train/"))
        except NotFoundError:
            return TrainStatus(IDLE)

    def _latest_task_of(self, model: str) -> TrainStatus:
        try:
            answer = self._transport.get_json("/train/", {"all": "true"})
        except NotFoundError:
            return TrainStatus(IDLE)
        if not isinstance(answer, list):
            raise BadAnswer(f"The server did not list its trainings: {str(answer)[:200]!r}. Look at its log.")
        own = [task for task in map(parse_task, answer) if task.model == model]
        return own[-1] if own else TrainStatus(IDLE)
