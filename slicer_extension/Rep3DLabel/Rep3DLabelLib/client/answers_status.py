"""What runs on the server now, as typed values: its overall state, batch segmentations, and single segmentations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BadAnswer
from .answers_values import integer, mapping, number, text, words_of

__all__ = [
    "BatchStatus",
    "LabelColour",
    "ModelStatus",
    "RunningRequest",
    "ServerStatus",
    "parse_batch",
    "parse_request",
    "parse_requests",
    "parse_status",
]

_ACTIVE = frozenset({"running", "stopping"})


@dataclass(frozen=True)
class BatchStatus:
    """State of a batch segmentation of a model.

    Attributes:
        model: Name of the model.
        phase: "never", "running", "stopping", "stopped", "done" or "error".
        progress: Part done, 0 to 1. It is 1.0 in phase "done" only.
        total: Images to segment.
        done, kept, labelled: Images segmented now, segmented earlier by the same version, and labelled by a person
            meanwhile.
        failed: Image id -> why it could not be segmented.
        current: The image that is being segmented, "" if none.
        eta_seconds: Estimated seconds left, None unless running and known.
        version: Version of the model that segments, None if not known.
        error: Why it ended, "" if it did not or ended well.
        raw: The whole answer.
    """

    model: str
    phase: str
    progress: float
    total: int
    done: int
    kept: int
    labelled: int
    failed: Mapping[str, str]
    current: str
    eta_seconds: float | None
    version: str | None
    error: str
    raw: Mapping[str, object] = field(repr=False)

    @property
    def is_active(self) -> bool:
        """Whether it is running or about to stop."""
        return self.phase in _ACTIVE


@dataclass(frozen=True)
class RunningRequest:
    """A segmentation that runs now: its id, model, image, who asked ("" if not known), since when, and its state."""

    id: str
    model: str
    image_id: str
    user: str
    started: str
    state: str


@dataclass(frozen=True)
class LabelColour:
    """A label: its name, voxel value, and colour (red, green, blue from 0 to 255; None if it is not usable)."""

    name: str
    value: int
    colour: tuple[int, int, int] | None


@dataclass(frozen=True)
class ModelStatus:
    """State of a model.

    Attributes:
        labels: Its labels by value.
        preset: Size of the network.
        version: Published version, None if there is none.
        created: When that was made, "" if not known.
        error: Why it cannot be used, "" if it can.
        versions_stamp: Changes when the list of versions does.
        training: The server's own numbers about the latest training.
        batch: The latest batch segmentation.
        scores: The server's own words about scores of unlabelled images.
    """

    labels: tuple[LabelColour, ...]
    preset: str
    version: str | None
    created: str
    error: str
    versions_stamp: str
    training: Mapping[str, object] = field(repr=False)
    batch: BatchStatus
    scores: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class ServerStatus:
    """State of the server.

    Attributes:
        version: Version of the app.
        folder: Name of the studies folder.
        device, device_name: What it computes on, such as "cuda" and "NVIDIA H100".
        time: The server's time, UTC, ISO 8601.
        total, completed: Images, and images with a final label.
        cases_stamp: Changes when the list of cases does.
        default_model: The model that the server serves by default.
        models: State of each model, by name.
        raw: The whole answer.
    """

    version: str
    folder: str
    device: str
    device_name: str
    time: str
    total: int
    completed: int
    cases_stamp: str
    default_model: str
    models: Mapping[str, ModelStatus]
    raw: Mapping[str, object] = field(repr=False)


def parse_status(answer: object) -> ServerStatus:
    """Read the answer of `/rep3d/status`.

    Raises:
        BadAnswer: It is not the state of a server.
    """
    known = mapping(answer)
    server, cases, models = mapping(known.get("server")), mapping(known.get("cases")), known.get("models")
    if not server or not isinstance(models, dict):
        raise BadAnswer(f"Expected the state of the server, got {str(answer)[:200]!r}.")
    return ServerStatus(
        version=text(server.get("version")),
        folder=text(server.get("folder")),
        device=text(server.get("device")),
        device_name=text(server.get("device_name")),
        time=text(server.get("time")),
        total=integer(cases.get("total")) or 0,
        completed=integer(cases.get("labelled")) or 0,
        cases_stamp=text(cases.get("stamp")),
        default_model=text(known.get("default_model")),
        models={str(name): _parse_model(str(name), mapping(entry)) for name, entry in models.items()},
        raw=known,
    )


def _parse_model(name: str, known: Mapping[str, object]) -> ModelStatus:
    labels, version = known.get("labels"), known.get("version")
    return ModelStatus(
        labels=tuple(_parse_label(mapping(one)) for one in labels) if isinstance(labels, list) else (),
        preset=text(known.get("preset")),
        version=None if version is None else str(version),
        created=text(known.get("created")),
        error=text(known.get("error")),
        versions_stamp=text(known.get("versions_stamp")),
        training=mapping(known.get("training")),
        batch=parse_batch({"model": name, "phase": "never", **mapping(known.get("batch"))}),
        scores=mapping(known.get("scores")),
    )


def _parse_label(known: Mapping[str, object]) -> LabelColour:
    value, colour = known.get("value"), text(known.get("colour"))
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadAnswer(
            f"Expected a whole voxel value above 0 for label '{known.get('name')}', got {value!r}. Check the task of "
            "the server's app."
        )
    usable = re.fullmatch(r"#([0-9a-fA-F]{6})", colour)
    red_green_blue = tuple(bytes.fromhex(usable.group(1))) if usable else None
    return LabelColour(text(known.get("name")), value, red_green_blue)  # type: ignore[arg-type]


def parse_batch(answer: object) -> BatchStatus:
    """Read the answer of `/rep3d/models/MODEL/batch`.

    Raises:
        BadAnswer: It is not the state of a batch segmentation.
    """
    known = mapping(answer)
    if not isinstance(known.get("phase"), str):
        raise BadAnswer(f"Expected the state of a batch segmentation, got {str(answer)[:200]!r}.")
    phase, version, failed = text(known["phase"]), known.get("version"), words_of(known.get("failed"))
    total, done, kept, labelled = (integer(known.get(key)) or 0 for key in ("total", "done", "kept", "labelled"))
    progress = 0.0
    if phase == "done":
        progress = 1.0
    elif total > 0:
        progress = min(max((done + kept + labelled + len(failed)) / total, 0.0), 0.99)
    return BatchStatus(
        model=text(known.get("model")),
        phase=phase,
        progress=progress,
        total=total,
        done=done,
        kept=kept,
        labelled=labelled,
        failed=failed,
        current=text(known.get("current")),
        eta_seconds=number(known.get("eta_seconds")) if phase == "running" else None,
        version=None if version is None else str(version),
        error=text(known.get("error")),
        raw=known,
    )


def parse_requests(answer: object) -> tuple[RunningRequest, ...]:
    """Read the answer of `/rep3d/requests`.

    Raises:
        BadAnswer: It is no list of segmentations.
    """
    if not isinstance(answer, list):
        raise BadAnswer(f"Expected the list of running segmentations, got {str(answer)[:200]!r}.")
    return tuple(map(parse_request, answer))


def parse_request(answer: object) -> RunningRequest:
    """Read what the server says about one running segmentation.

    Raises:
        BadAnswer: It has no id.
    """
    known = mapping(answer)
    if not isinstance(known.get("id"), str):
        raise BadAnswer(f"Expected a running segmentation with its id, got {str(answer)[:200]!r}.")
    keys = ("id", "model", "image", "user", "started", "state")
    return RunningRequest(*(text(known.get(key)) for key in keys))
