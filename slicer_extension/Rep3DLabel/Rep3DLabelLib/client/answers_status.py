"""What runs on the server now, as typed values: its overall state, and batch segmentations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BadAnswer
from .answers_train import TrainStatus
from .answers_values import integer, mapping, number, text, texts, words_of

__all__ = ["BatchStatus", "Overview", "ServerState", "parse_batch", "parse_state"]

_NAMED = 5  # files of one reason
_ACTIVE = frozenset({"running", "stopping"})


@dataclass(frozen=True)
class BatchStatus:
    """State of a batch segmentation of a model.

    Attributes:
        phase: "never", "running", "stopping", "stopped", "done" or "error".
        progress: Part done, 0 to 1. It is 1.0 in phase "done" only.
        total: Images to segment.
        done: Images segmented.
        failed: Image id -> why it could not be segmented.
        current: The image that is being segmented, "" if none.
        eta_seconds: Estimated seconds left, None unless running and known.
        error: Why it ended, "" if it did not or ended well.
    """

    phase: str = "never"
    progress: float = 0.0
    total: int = 0
    done: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    current: str = ""
    eta_seconds: float | None = None
    error: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it is running or about to stop."""
        return self.phase in _ACTIVE


@dataclass(frozen=True)
class ServerState:
    """State of the server and of one of its models.

    Attributes:
        total, completed: Images that can be used, and those of them with a final label.
        cases_stamp: Changes when the list of cases does.
        model: Name of the model.
        version: Its published version, None if there is none.
        versions_stamp: Changes when the list of its versions does.
        batch: Its latest batch segmentation.
        problems: What keeps the server from saving things, such as a full disk.
        left_out: What it does not use, or has lost, each with the reason.
    """

    total: int
    completed: int
    cases_stamp: str
    model: str
    version: str | None = None
    versions_stamp: str = ""
    batch: BatchStatus = BatchStatus()
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Overview:
    """What the server does, and how the latest training of a model is going."""

    state: ServerState
    train: TrainStatus


def parse_state(answer: object, model: str | None) -> tuple[ServerState, dict[str, object]]:
    """Read the answer of `/rep3d/status`.

    Args:
        answer: Decoded JSON.
        model: The model that is asked about, None for the server's default one.

    Returns:
        The state, and the server's own numbers about the model's latest training, see `parse_train`.

    Raises:
        BadAnswer: It is not the state of a server.
    """
    known = mapping(answer)
    cases, models = mapping(known.get("cases")), known.get("models")
    if not mapping(known.get("server")) or not isinstance(models, dict):
        raise BadAnswer(f"The server did not tell its state: {str(answer)[:200]!r}. Look at its log.")
    name = model or text(known.get("default_model"))
    facts = mapping(models.get(name))
    state = ServerState(
        total=(integer(cases.get("total")) or 0) - (integer(cases.get("unusable")) or 0),
        completed=integer(cases.get("labelled")) or 0,
        cases_stamp=text(cases.get("stamp")),
        model=name,
        version=text(facts.get("version")) or None,
        versions_stamp=text(facts.get("versions_stamp")),
        batch=parse_batch({"phase": "never", **mapping(facts.get("batch"))}),
        problems=texts(mapping(known.get("server")).get("problems")),
        left_out=(*_lost(known.get("damaged")), *_passed_over(mapping(known.get("passed_over")).get("groups"))),
    )
    return state, mapping(facts.get("training"))


def _lost(damaged: object) -> list[str]:
    files = [mapping(one) for one in damaged] if isinstance(damaged, list) else []
    return [f"{text(one.get('file'))} is damaged. Lost: {text(one.get('lost'))}." for one in files]


def _passed_over(groups: object) -> list[str]:
    said = []
    for group in map(mapping, groups if isinstance(groups, list) else ()):
        files = texts(group.get("files"))
        more = (integer(group.get("count")) or 0) - len(files[:_NAMED])
        names = ", ".join(files[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        said.append(f"{names}: {text(group.get('reason'))} {text(group.get('remedy'))}".strip())
    return said


def parse_batch(answer: object) -> BatchStatus:
    """Read the answer of `/rep3d/models/MODEL/batch`.

    Raises:
        BadAnswer: It is not the state of a batch segmentation.
    """
    known = mapping(answer)
    if not isinstance(known.get("phase"), str):
        raise BadAnswer(f"The server did not tell the state of the batch: {str(answer)[:200]!r}. Look at its log.")
    phase, failed = text(known["phase"]), words_of(known.get("failed"))
    total, done, kept, labelled = (integer(known.get(key)) or 0 for key in ("total", "done", "kept", "labelled"))
    progress = 0.0
    if phase == "done":
        progress = 1.0
    elif total > 0:
        progress = min(max((done + kept + labelled + len(failed)) / total, 0.0), 0.99)
    return BatchStatus(
        phase=phase,
        progress=progress,
        total=total,
        done=done,
        failed=failed,
        current=text(known.get("current")),
        eta_seconds=number(known.get("eta_seconds")) if phase == "running" else None,
        error=text(known.get("error")),
    )
