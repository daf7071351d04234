"""The state of a training: no more is said than is true of the present one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import BadAnswer
from .answers_values import integer, mapping, number, numbers_of, points, text, texts, words_of

__all__ = [
    "DONE",
    "ERROR",
    "IDLE",
    "RUNNING",
    "STOPPED",
    "SUBMITTED",
    "UNKNOWN",
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
_LOG_LINES = 40
_GOOD_END = frozenset({"done", "finished", "completed"})
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Interrupt)\b.*)$")


_NOTES = ("resolution", "forecast", "shortfall")


@dataclass(frozen=True)
class TrainStatus:
    """State of a training.

    A number that is not known, or is an earlier training's, is None; so is what was never measured.

    Attributes:
        state: IDLE (none since the server started), SUBMITTED (waits for its turn), RUNNING, DONE, ERROR, STOPPED, or
            UNKNOWN if the server names a state that this client does not know.
        task_id: The server's id of the task, "" if there is none.
        error: What went wrong, in words; else "".
        log: The last lines that the task wrote.
        model: The model that is trained, "" if the server does not say.
        progress: Part done, 0 to 1. It is 1.0 in state DONE only, and stays below 1 in every other state.
        phase: What the training is doing, in the server's word; "interrupted" also in state IDLE, where the server was
            restarted after a training that did not end.
        iteration, iterations: Steps done and planned.
        loss: Latest training loss, None if not a finite number.
        eta_seconds: Estimated seconds left, None unless running.
        device: Device of the training, "" while not known.
        validation: Label name -> Dice on the held-out cases as last measured; a label that none of them has is absent.
        losses, validations: Curves: (step, loss) and (step, mean Dice).
        reason: What was decided about the version made, and why; "" where nothing was decided.
        version_made: Version that this training made, published or not.
        resumable: Whether there is a training that was stopped or interrupted, and can be gone on with.
        left_out: Case id -> why it was not used, though it has a label.
        notes: What the server says of its resolution, of the steps that its minutes allow, and of what they were too
            short for; only what it says.
    """

    state: str
    task_id: str = ""
    error: str = ""
    log: tuple[str, ...] = ()
    model: str = ""
    progress: float = 0.0
    phase: str = ""
    iteration: int | None = None
    iterations: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    device: str = ""
    validation: Mapping[str, float] | None = None
    losses: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    validations: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    reason: str = ""
    version_made: str | None = None
    resumable: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it is waiting for its turn or running."""
        return self.state in (SUBMITTED, RUNNING)


def parse_task(answer: object) -> TrainStatus:
    """Read the answer of `/train/` about the latest training; its numbers are told elsewhere, see `parse_train`.

    Raises:
        BadAnswer: It is not about a task.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
        raise BadAnswer(f"The server did not tell how its task is going: {str(answer)[:200]!r}. Look at its log.")
    state = answer["status"].lower()
    if state not in (SUBMITTED, RUNNING, DONE, ERROR, STOPPED):
        state = UNKNOWN
    log = texts(answer.get("details"))[-_LOG_LINES:]
    return TrainStatus(
        state=state,
        task_id=text(answer.get("id")),
        error=_error_from_log(log) if state == ERROR else "",
        log=log,
        model=text(mapping(answer.get("request")).get("model")),
    )


def parse_train(task: TrainStatus, stats: Mapping[str, object], stats_are_stale: bool | None) -> TrainStatus:
    """Combine a training task with the numbers that its process last wrote.

    The numbers outlive a training: until the next one has written any, they are those of the one before it, perhaps
    with 100 %. They are left out where they cannot be the present training's.

    Args:
        task: What the server's task list says of it.
        stats: The server's numbers about the latest training that wrote any.
        stats_are_stale: Whether they are known to be an earlier training's; None if not known.
    """
    phase, problem = text(stats.get("phase")), text(stats.get("error")).strip()
    resumable = bool(stats.get("resumable"))
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
    return replace(
        task,
        state=state,
        error=error,
        progress=progress,
        phase=phase,
        iteration=iteration,
        iterations=iterations,
        loss=number(stats.get("loss")),
        eta_seconds=number(stats.get("eta_seconds")) if state == RUNNING else None,
        device=text(stats.get("device")),
        validation=numbers_of(validation) if isinstance(validation, dict) else None,
        losses=points(stats.get("losses")),
        validations=points(stats.get("validations")),
        reason=text(mapping(decision).get("reason")),
        version_made=None if made is None else str(made),
        resumable=resumable and state not in (SUBMITTED, RUNNING),
        left_out=words_of(stats.get("skipped")),
        notes=tuple(filter(None, (text(stats.get(key)).strip() for key in _NOTES))),
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
