"""The state of the server's background tasks, trainings above all: no more is said than is true of the present one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import BadAnswer
from .answers_values import integer, mapping, number, numbers_of, points, text, words_of

__all__ = [
    "DONE",
    "ERROR",
    "IDLE",
    "RUNNING",
    "STOPPED",
    "SUBMITTED",
    "UNKNOWN",
    "TaskStatus",
    "TrainStatus",
    "parse_task",
    "parse_train",
]

IDLE, SUBMITTED, RUNNING, DONE, ERROR, STOPPED, UNKNOWN = (
    "idle",
    "submitted",
    "running",
    "done",
    "error",
    "stopped",
    "unknown",
)
INTERRUPTED = "interrupted"  # the server's word for a training whose process or server was killed
_GOOD_END = frozenset({"done", "finished", "completed"})
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Interrupt)\b.*)$")
_PHASES = {
    "starting": "Starting",
    "preparing": "Preparing the cases",
    "training": "Training",
    "validating": "Measuring on the held-out cases",
    "saving": "Saving",
    "publishing": "Publishing",
    "scoring": "Looking for the cases that would teach most",
    "done": "Done",
    "error": "Failed",
    "stopped": "Stopped",
    INTERRUPTED: "Interrupted",
}


@dataclass(frozen=True)
class TaskStatus:
    """State of a background task of the server.

    Attributes:
        state: IDLE (none since the server started), SUBMITTED (waits for its turn), RUNNING, DONE, ERROR, STOPPED, or
            UNKNOWN if the server names a state that this client does not know.
        task_id: The server's id of the task, "" if there is none.
        error: In state ERROR, what went wrong, in words; else "".
        log: The last lines that the task wrote.
        started, ended: The server's local time, "" if not (yet) the case.
        model: The model that the task is for, "" if the server does not say.
    """

    state: str
    task_id: str = ""
    error: str = ""
    log: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""
    model: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the task is waiting for its turn or running."""
        return self.state in (SUBMITTED, RUNNING)


@dataclass(frozen=True)
class TrainStatus(TaskStatus):
    """State of a training.

    A number that is not known, or is an earlier training's, is None; so are mappings that were never measured.

    Attributes:
        progress: Part done, 0 to 1. It is 1.0 in state DONE only, and stays below 1 in every other state.
        phase: What the training is doing, in the server's word; "interrupted" also in state IDLE, where the server was
            restarted after a training that did not end.
        iteration, iterations: Steps done and planned.
        epoch, epochs: Passes over the training cases, from 1, and passes if all steps are made.
        loss: Latest training loss, None if not a finite number.
        validation: Label name -> Dice on the held-out cases as last measured; a label that none of them has is absent.
        best: Best mean Dice of a validation so far.
        eta_seconds: Estimated seconds left, None unless running.
        elapsed_seconds: Seconds of training so far.
        device: Device of the training, "" while not known.
        memory_mb: MiB in use.
        losses, validations: Curves: (step, loss) and (step, mean Dice).
        decision: What was decided about the version made: "published" (bool), "measured" (bool), "reason", ...
        version: Version of the published model that the server reports with the training, None if there is none.
        version_made: Version that this training made, published or not.
        cases, validation_cases: Number of cases that are trained on, and that only measure.
        validation_kind: "held-out" or "training-only" (nothing is measured), "" while not known.
        skipped: Labelled cases that cannot be used -> the reason.
        resumable: The training that can be gone on with, as the server describes it; None if there is none.
    """

    progress: float = 0.0
    phase: str = ""
    iteration: int | None = None
    iterations: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    device: str = ""
    version: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    validation: Mapping[str, float] | None = None
    best: float | None = None
    elapsed_seconds: float | None = None
    memory_mb: float | None = None
    losses: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    validations: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    decision: Mapping[str, object] | None = None
    version_made: str | None = None
    cases: int | None = None
    validation_cases: int | None = None
    validation_kind: str = ""
    skipped: Mapping[str, str] = field(default_factory=dict)
    resumable: Mapping[str, object] | None = None

    @property
    def phase_text(self) -> str:
        """The phase for a user, "" if there is none; a phase that this client does not know is shown as it is."""
        return _PHASES.get(self.phase.lower(), self.phase)


def parse_task(answer: object) -> TaskStatus:
    """Read the answer of `/scoring/` or `/train/` about the latest background task.

    Raises:
        BadAnswer: It is not about a task.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
        raise BadAnswer(f"Expected the state of a background task, got {str(answer)[:200]!r}.")
    state = answer["status"].lower()
    if state not in (SUBMITTED, RUNNING, DONE, ERROR, STOPPED):
        state = UNKNOWN
    details = answer.get("details")
    log = tuple(map(str, details)) if isinstance(details, list) else ()
    return TaskStatus(
        state=state,
        task_id=text(answer.get("id")),
        error=_error_from_log(log) if state == ERROR else "",
        log=log,
        started=text(answer.get("start_ts")),
        ended=text(answer.get("end_ts")),
        model=text(mapping(answer.get("request")).get("model")),
    )


def parse_train(task: TaskStatus, stats: Mapping[str, object], stats_are_stale: bool | None) -> TrainStatus:
    """Combine a training task with the numbers that its process last wrote.

    The numbers outlive a training: until the next one has written any, they are those of the one before it, perhaps
    with 100 %. They are left out where they cannot be the present training's.

    Args:
        task: The task.
        stats: The server's numbers about the latest training that wrote any.
        stats_are_stale: Whether they are known to be an earlier training's; None if not known.
    """
    phase, problem = text(stats.get("phase")), text(stats.get("error")).strip()
    version, resumable = stats.get("version"), stats.get("resumable")
    state, error = task.state, task.error
    if stats_are_stale is None:  # not known: where the numbers contradict the task, they are another training's
        stats_are_stale = state in (ERROR, STOPPED) and phase.lower() in _GOOD_END
    if stats_are_stale or state in (IDLE, SUBMITTED):
        told = state == IDLE and not stats_are_stale and phase.lower() == INTERRUPTED
        stats, phase, error = {}, phase if told else "", problem if told else error
        problem = ""
    if problem and state in (DONE, ERROR):
        state, error = ERROR, problem
    iteration, iterations = integer(stats.get("iteration")), integer(stats.get("iterations"))
    progress = 0.0
    if state == DONE:
        progress = 1.0
    elif iteration is not None and iterations:
        progress = min(max(iteration / iterations, 0.0), 0.99)
    validation, decision, made = stats.get("validation"), stats.get("decision"), stats.get("version_made")
    return TrainStatus(
        state=state,
        task_id=task.task_id,
        error=error,
        log=task.log,
        started=task.started,
        ended=task.ended,
        model=task.model,
        progress=progress,
        phase=phase,
        iteration=iteration,
        iterations=iterations,
        loss=number(stats.get("loss")),
        eta_seconds=number(stats.get("eta_seconds")) if state == RUNNING else None,
        device=text(stats.get("device")),
        version=None if version is None else str(version),
        epoch=integer(stats.get("epoch")),
        epochs=integer(stats.get("epochs")),
        validation=numbers_of(validation) if isinstance(validation, dict) else None,
        best=number(stats.get("best")),
        elapsed_seconds=number(stats.get("elapsed_seconds")),
        memory_mb=number(stats.get("memory_mb")),
        losses=points(stats.get("losses")),
        validations=points(stats.get("validations")),
        decision=decision if isinstance(decision, dict) else None,
        version_made=None if made is None else str(made),
        cases=integer(stats.get("cases")),
        validation_cases=integer(stats.get("validation_cases")),
        validation_kind=text(stats.get("validation_kind")),
        skipped=words_of(stats.get("skipped")),
        resumable=resumable if isinstance(resumable, dict) and state not in (SUBMITTED, RUNNING) else None,
    )


def _error_from_log(log: Sequence[str]) -> str:
    """Return the last exception of a log in words; its traceback stays in the log."""
    for line in reversed(log):
        match = _EXCEPTION_LINE.match(line)
        if match:
            return match.group(1)
    lines = [line.strip() for line in log if line.strip()]
    if lines:
        return f"The process ended with an error; its last line was: {lines[-1]}"
    return "The process ended with an error before it wrote anything; look at the server's log."
