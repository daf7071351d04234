"""The server's answers as typed values, and the checks that turn its JSON into them.

The JSON comes from MONAI Label 0.8.5 (`/info/`, `/train/`, `/scoring/`, `/datastore/`) with what the Rep3D Label app
adds. A key that the client relies on is checked here, once, so that nothing else has to guess what is in a dictionary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BadAnswer, WrongAppError

__all__ = [
    "DONE",
    "ERROR",
    "IDLE",
    "RUNNING",
    "STOPPED",
    "SUBMITTED",
    "UNKNOWN",
    "CaseEntry",
    "Datastore",
    "InferResult",
    "ModelInfo",
    "Sample",
    "ServerInfo",
    "SubmittedLabel",
    "TaskStatus",
    "TrainStatus",
    "parse_case_list",
    "parse_info",
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
_GOOD_END = frozenset({"done", "finished", "completed"})
_EXCEPTION_LINE = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Interrupt)\b.*)$")


@dataclass(frozen=True)
class ModelInfo:
    """A model that the server offers: name, one-line description, and the server's own dictionary about it."""

    name: str
    description: str
    raw: Mapping[str, object] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class ServerInfo:
    """What a Rep3D Label server says about itself.

    Attributes:
        name: Name of the app.
        version: Version of the app.
        description: One line about the app.
        labels: Foreground label names and their voxel values; the only source of these values for the client.
        models: Models by name; without "rep3d" while no model has been published, if the server leaves it out then.
        strategies: Strategies that choose the next sample, name -> description.
        default_model: The model that the server serves by default.
        trainers: Models that can be trained, name -> description.
        scoring: Scoring methods, name -> description.
        published_version: Version of the published model, None before the first training.
        model_error: Why the published model cannot be used, "" if it can.
        device: Device that the server computes on, such as "cuda" or "cpu"; "" if it does not say.
        total: Images in the data store.
        completed: Images with a final label.
        label_tags: Number of labels per tag.
        train_stats: Per trainer, the server's own numbers about its latest training.
        raw: The whole answer.
    """

    name: str
    version: str
    description: str
    labels: Mapping[str, int]
    models: Mapping[str, ModelInfo]
    strategies: Mapping[str, str]
    default_model: str
    trainers: Mapping[str, str]
    scoring: Mapping[str, str]
    published_version: str | None
    model_error: str
    device: str
    total: int
    completed: int
    label_tags: Mapping[str, int]
    train_stats: Mapping[str, Mapping[str, object]] = field(repr=False)
    raw: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class Sample:
    """The image to be labelled next: its id, a name to show, and the server's dictionary about it."""

    id: str
    name: str
    info: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class InferResult:
    """A segmentation: the file it was written to, and the server's numbers about it (volumes, uncertainty, seconds)."""

    label_path: Path
    params: Mapping[str, object]


@dataclass(frozen=True)
class SubmittedLabel:
    """A label that the server has accepted; `answer` is all that it said about it."""

    image_id: str
    label_id: str
    tag: str
    answer: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class CaseEntry:
    """One image of the data store, the tags of its labels ("final", "original", ...) and what is recorded about it."""

    id: str
    tags: tuple[str, ...]
    info: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class Datastore:
    """The images on the server, sorted by id."""

    name: str
    cases: tuple[CaseEntry, ...]

    def with_tag(self, tag: str) -> tuple[CaseEntry, ...]:
        """Return the cases that have a label under this tag."""
        return tuple(case for case in self.cases if tag in case.tags)


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
    """

    state: str
    task_id: str = ""
    error: str = ""
    log: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""

    @property
    def is_active(self) -> bool:
        """Whether the task is waiting for its turn or running."""
        return self.state in (SUBMITTED, RUNNING)


@dataclass(frozen=True)
class TrainStatus(TaskStatus):
    """State of a training.

    Attributes:
        progress: Part done, 0 to 1. It is 1.0 in state DONE only, and stays below 1 in every other state.
        phase: What the training is doing, in the server's words.
        iteration, iterations: Steps done and planned, None while not known.
        loss: Latest training loss, None while not known or not a finite number.
        eta_seconds: Estimated seconds left, None unless running and known.
        device: Device of the training, "" while not known.
        version: Version of the published model that the server reports with the training, None if there is none.
    """

    progress: float = 0.0
    phase: str = ""
    iteration: int | None = None
    iterations: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    device: str = ""
    version: str | None = None


def parse_info(answer: object, model: str) -> ServerInfo:
    """Read the answer of `/info/`.

    Args:
        answer: Decoded JSON.
        model: The model that makes a server one of ours.

    Raises:
        WrongAppError: The answer is another program's, or another MONAI Label app's.
        BadAnswer: It is ours, but the label map in it is not usable.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("models"), dict):
        raise WrongAppError(
            "Expected a MONAI Label server with the Rep3D Label app, but the answer is not that of a MONAI Label "
            "server. Check the address and the port."
        )
    models, own = answer["models"], answer.get("rep3d")
    if not isinstance(own, dict):
        if model not in models:
            name, offered = _text(answer.get("name")) or "without a name", ", ".join(map(str, models)) or "none"
            raise WrongAppError(
                f"Expected a server with the Rep3D Label app, but this is the app '{name}' with the models: {offered}. "
                "Start the server with the rep3d_label app, or enter another address."
            )
        own = {"labels": _mapping(models[model]).get("labels")}
    default = _text(own.get("default_model")) or model
    stats, store, version = answer.get("train_stats"), _mapping(answer.get("datastore")), own.get("version")
    return ServerInfo(
        name=_text(answer.get("name")),
        version=_text(answer.get("version")),
        description=_text(answer.get("description")),
        labels=_parse_labels(own.get("labels")),
        models={
            str(k): ModelInfo(str(k), _text(_mapping(v).get("description")), _mapping(v)) for k, v in models.items()
        },
        strategies=_descriptions(answer.get("strategies")),
        default_model=default,
        trainers=_descriptions(answer.get("trainers")),
        scoring=_descriptions(answer.get("scoring")),
        published_version=None if version is None else str(version),
        model_error=_text(own.get("error")),
        device=_text(own.get("device")),
        total=_integer(store.get("total")) or 0,
        completed=_integer(store.get("completed")) or 0,
        label_tags={str(k): _integer(v) or 0 for k, v in _mapping(store.get("label_tags")).items()},
        train_stats={str(k): _mapping(v) for k, v in _mapping(stats).items()},
        raw=answer,
    )


def _parse_labels(labels: object) -> dict[str, int]:
    """Check the label map: a wrong voxel value here would mislabel every case, so nothing is guessed."""
    expected = "Expected label names with whole voxel values above 0 from the server, each value once"
    todo = "Check the task of the server's app."
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise BadAnswer(f"{expected}, got {str(labels)[:200]!r}. {todo}")
    for name, value in labels.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadAnswer(f"{expected}, got {value!r} for '{name}'. {todo}")
    if len(set(labels.values())) != len(labels):
        raise BadAnswer(f"{expected}, got {labels}. {todo}")
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def parse_case_list(answer: object) -> Datastore:
    """Read the answer of `/datastore/?output=all`.

    Raises:
        BadAnswer: It does not list objects.
    """
    objects = _mapping(answer).get("objects")
    if not isinstance(objects, dict):
        raise BadAnswer(f"Expected the list of images of the data store, got {str(answer)[:200]!r}.")
    cases = []
    for name in sorted(objects):
        entry = _mapping(objects[name])
        info = _mapping(_mapping(entry.get("image")).get("info"))
        cases.append(CaseEntry(str(name), tuple(sorted(map(str, _mapping(entry.get("labels"))))), info))
    return Datastore(_text(_mapping(answer).get("name")), tuple(cases))


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
        task_id=_text(answer.get("id")),
        error=_error_from_log(log) if state == ERROR else "",
        log=log,
        started=_text(answer.get("start_ts")),
        ended=_text(answer.get("end_ts")),
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
    phase, problem = _text(stats.get("phase")), _text(stats.get("error")).strip()
    version = stats.get("version")
    state, error = task.state, task.error
    if stats_are_stale is None:  # not known: where the numbers contradict the task, they are another training's
        stats_are_stale = state in (ERROR, STOPPED) and phase.lower() in _GOOD_END
    if stats_are_stale or state in (IDLE, SUBMITTED):
        stats, phase, problem = {}, "", ""
    if problem and state in (DONE, ERROR):
        state, error = ERROR, problem
    iteration, iterations = _integer(stats.get("iteration")), _integer(stats.get("iterations"))
    progress = 0.0
    if state == DONE:
        progress = 1.0
    elif iteration is not None and iterations:
        progress = min(max(iteration / iterations, 0.0), 0.99)
    return TrainStatus(
        state=state,
        task_id=task.task_id,
        error=error,
        log=task.log,
        started=task.started,
        ended=task.ended,
        progress=progress,
        phase=phase,
        iteration=iteration,
        iterations=iterations,
        loss=_number(stats.get("loss")),
        eta_seconds=_number(stats.get("eta_seconds")) if state == RUNNING else None,
        device=_text(stats.get("device")),
        version=None if version is None else str(version),
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


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _descriptions(value: object) -> dict[str, str]:
    return {str(name): _text(_mapping(entry).get("description")) for name, entry in _mapping(value).items()}


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _integer(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
