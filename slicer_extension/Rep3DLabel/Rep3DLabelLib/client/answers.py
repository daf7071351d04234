"""The server's answers as typed values, and the checks that turn its JSON into them.

The JSON comes from MONAI Label 0.8.5 (`/info/`, `/train/`, `/scoring/`, `/datastore/`) with what the Rep3D Label app
adds. A key that the client relies on is checked here, once, so that nothing else has to guess what is in a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BadAnswer, WrongAppError
from .answers_train import (
    DONE,
    ERROR,
    IDLE,
    RUNNING,
    STOPPED,
    SUBMITTED,
    UNKNOWN,
    TaskStatus,
    TrainStatus,
    parse_task,
    parse_train,
)
from .answers_values import descriptions, integer, mapping, text

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
    "Code",
    "InferResult",
    "LabelTerm",
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


@dataclass(frozen=True)
class Code:
    """A term of a terminology such as SNOMED CT: code, scheme, and meaning in words."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class LabelTerm:
    """What a label stands for.

    Attributes:
        colour: Red, green, blue from 0 to 255; None if the server gives none.
        category, type, modifier, region: Codes; None where there is none.
    """

    colour: tuple[int, int, int] | None = None
    category: Code | None = None
    type: Code | None = None
    modifier: Code | None = None
    region: Code | None = None


@dataclass(frozen=True)
class ModelInfo:
    """A model that the server offers.

    Attributes:
        name: Name.
        description: One line.
        raw: MONAI Label's own dictionary about it.
        labels: Foreground label names and their voxel values, in the order of the values.
        terms: Label name -> what it stands for, for the labels that the server knows a term of.
        version: Version of the published model, None before the first training.
        error: Why the published model cannot be used, "" if it can.
        preset: Size of the network, "" if the server does not say.
        notes: What the server's log says about its set-up, for an engineer.
        trainable: Whether it can be trained.
    """

    name: str
    description: str
    raw: Mapping[str, object] = field(repr=False, default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    terms: Mapping[str, LabelTerm] = field(repr=False, default_factory=dict)
    version: str | None = None
    error: str = ""
    preset: str = ""
    notes: tuple[str, ...] = ()
    trainable: bool = False


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
        default_strategy: The strategy that the server uses where none is named, "" if it does not say.
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
    default_strategy: str = ""


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
            name, offered = text(answer.get("name")) or "without a name", ", ".join(map(str, models)) or "none"
            raise WrongAppError(
                f"Expected a server with the Rep3D Label app, but this is the app '{name}' with the models: {offered}. "
                "Start the server with the rep3d_label app, or enter another address."
            )
        own = {"labels": mapping(models[model]).get("labels")}
    default = text(own.get("default_model")) or model
    stats, store, version = answer.get("train_stats"), mapping(answer.get("datastore")), own.get("version")
    trainers = descriptions(answer.get("trainers"))
    return ServerInfo(
        name=text(answer.get("name")),
        version=text(answer.get("version")),
        description=text(answer.get("description")),
        labels=_parse_labels(own.get("labels")),
        models={
            str(name): _parse_model(str(name), mapping(entry), own, default, trainers) for name, entry in models.items()
        },
        strategies=descriptions(answer.get("strategies")),
        default_model=default,
        trainers=trainers,
        scoring=descriptions(answer.get("scoring")),
        published_version=None if version is None else str(version),
        model_error=text(own.get("error")),
        device=text(own.get("device")),
        total=integer(store.get("total")) or 0,
        completed=integer(store.get("completed")) or 0,
        label_tags={str(k): integer(v) or 0 for k, v in mapping(store.get("label_tags")).items()},
        train_stats={str(k): mapping(v) for k, v in mapping(stats).items()},
        raw=answer,
        default_strategy=text(own.get("default_strategy")),
    )


def _parse_model(
    name: str, entry: Mapping[str, object], own: Mapping[str, object], default: str, trainers: Mapping[str, str]
) -> ModelInfo:
    facts = mapping(mapping(own.get("models")).get(name))
    if not facts and name == default:
        facts = dict(own)
    version, notes = facts.get("version"), facts.get("notes")
    return ModelInfo(
        name=name,
        description=text(entry.get("description")),
        raw=entry,
        labels=_parse_labels(facts.get("labels")),
        terms={str(label): _parse_term(term) for label, term in mapping(facts.get("terms")).items()},
        version=None if version is None else str(version),
        error=text(facts.get("error")),
        preset=text(facts.get("preset")),
        notes=tuple(map(str, notes)) if isinstance(notes, list) else (),
        trainable=name in trainers,
    )


def _parse_term(term: object) -> LabelTerm:
    """Read a term; a part of it that is not usable is left out, because a wrong code would be worse than none."""
    known = mapping(term)
    colour = known.get("colour")
    codes = {key: _parse_code(known.get(key)) for key in ("category", "type", "modifier", "region")}
    usable = isinstance(colour, list) and len(colour) == 3 and all(_is_byte(part) for part in colour)
    return LabelTerm(tuple(colour) if usable else None, **codes)  # type: ignore[arg-type]


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _parse_code(code: object) -> Code | None:
    known = mapping(code)
    parts = [known.get(key) for key in ("value", "scheme", "meaning")]
    if not all(isinstance(part, str) and part for part in parts):
        return None
    return Code(*parts)  # type: ignore[arg-type]


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
    objects = mapping(answer).get("objects")
    if not isinstance(objects, dict):
        raise BadAnswer(f"Expected the list of images of the data store, got {str(answer)[:200]!r}.")
    cases = []
    for name in sorted(objects):
        entry = mapping(objects[name])
        info = mapping(mapping(entry.get("image")).get("info"))
        cases.append(CaseEntry(str(name), tuple(sorted(map(str, mapping(entry.get("labels"))))), info))
    return Datastore(text(mapping(answer).get("name")), tuple(cases))
