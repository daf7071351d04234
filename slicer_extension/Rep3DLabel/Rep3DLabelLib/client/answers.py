"""What a server says about itself, about a sample, a segmentation and a label that was sent, as typed values.

The JSON comes from MONAI Label 0.8.5 with what the Rep3D Label app adds. What the client relies on is checked here,
once, so that nothing else has to guess what is in a dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BadAnswer, WrongAppError
from ..labels import Code, Label
from .answers_values import descriptions, integer, mapping, number, numbers_of, text, texts

__all__ = [
    "ModelInfo",
    "Sample",
    "SegmentationFacts",
    "ServerInfo",
    "SubmittedLabel",
    "parse_info",
    "parse_sample",
    "parse_segmentation",
    "parse_submitted",
]


@dataclass(frozen=True)
class ModelInfo:
    """A model that the server offers.

    Attributes:
        name: Name.
        description: One line.
        labels: Its labels, in the order of their values.
        version: Version of the published model, None before the first training.
        error: Why the published model cannot be used, "" if it can.
        trainable: Whether it can be trained.
    """

    name: str
    description: str
    labels: tuple[Label, ...] = ()
    version: str | None = None
    error: str = ""
    trainable: bool = False


@dataclass(frozen=True)
class ServerInfo:
    """What a Rep3D Label server says about itself.

    Attributes:
        name: Name of the app.
        version: Version of the app.
        labels: All labels of its models and their voxel values, which no two of them share.
        models: Models by name; without "rep3d" while no model has been published, if the server leaves it out then.
        strategies: Strategies that choose the next sample, name -> description.
        default_model: The model that the server serves by default.
        default_strategy: The strategy that the server uses where none is named, "" if it does not say.
        device, device_name: What the server computes on, such as "cuda" and "NVIDIA H100"; "" if it does not say.
        total: Images in the data store.
        completed: Images with a final label.
        published_version, model_error: Of the default model, see `ModelInfo`.
    """

    name: str
    version: str
    labels: Mapping[str, int]
    models: Mapping[str, ModelInfo]
    strategies: Mapping[str, str]
    default_model: str
    default_strategy: str
    device: str
    device_name: str
    total: int
    completed: int
    published_version: str | None
    model_error: str

    def labels_of(self, model: str) -> tuple[Label, ...]:
        """Return the labels of a model, in the order of their values; none for a model that is not offered."""
        known = self.models.get(model)
        return known.labels if known else ()


@dataclass(frozen=True)
class Sample:
    """An image to be labelled.

    Attributes:
        id, name: The server's id of it, and what to show.
        strategy: The strategy that chose it, "" if the user did.
        reason: Why, in words.
        leased_until: Until when nobody else gets it, UTC, ISO 8601; "" if not known.
    """

    id: str
    name: str
    strategy: str = ""
    reason: str = ""
    leased_until: str = ""


@dataclass(frozen=True)
class SegmentationFacts:
    """What the server tells about a segmentation beside its voxels.

    Attributes:
        labels: Names of the labels in the label map and their values.
        version: Version of the model, "" if not known.
        device: What computed it.
        seconds: How long it took, None if not known.
        confidence: Label name -> mean probability of its voxels, 0 to 1.
        uncertainty: Mean uncertainty, None where it was not asked for.
        missing: Labels that the model does not know.
        note: What was not as usual, in words; "" if nothing.
        uncertainty_error: Why there is no uncertainty map although one was asked for, "" if there is.
        attribution: Of which data the model was made, and their licence, where that has to be said; else "".
    """

    labels: Mapping[str, int]
    version: str = ""
    device: str = ""
    seconds: float | None = None
    confidence: Mapping[str, float] = field(default_factory=dict)
    uncertainty: float | None = None
    missing: tuple[str, ...] = ()
    note: str = ""
    uncertainty_error: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class SubmittedLabel:
    """A label that the server has accepted.

    Attributes:
        image_id: The image.
        duplicate: Whether the server had exactly this label already.
        remapped: Whether values were changed to the server's, by name.
        resampled: Whether it was resampled onto the image.
    """

    image_id: str
    duplicate: bool = False
    remapped: bool = False
    resampled: bool = False


def parse_info(answer: object, model: str) -> ServerInfo:
    """Read the answer of `/info/`.

    Args:
        answer: Decoded JSON.
        model: The model that makes a server one of ours.

    Raises:
        WrongAppError: The answer is another program's, or another MONAI Label app's.
        BadAnswer: It is ours, but a label map in it is not usable.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("models"), dict):
        raise WrongAppError(
            "This is not a Rep3D Label server: it does not answer as MONAI Label does. Check the address and the port."
        )
    models, own = answer["models"], answer.get("rep3d")
    if not isinstance(own, dict):
        if model not in models:
            name, offered = text(answer.get("name")) or "without a name", ", ".join(map(str, models)) or "none"
            raise WrongAppError(
                f"This is a MONAI Label server with another app, '{name}' (models: {offered}). Start it with the app "
                "rep3d_label, or enter another address."
            )
        own = {"labels": mapping(models[model]).get("labels")}
    default = text(own.get("default_model")) or model
    store, trainers = mapping(answer.get("datastore")), mapping(answer.get("trainers"))
    labels = _parse_labels(own.get("labels"))
    known = {
        str(name): _parse_model(str(name), mapping(entry), own, default, str(name) in trainers)
        for name, entry in models.items()
    }
    return ServerInfo(
        name=text(answer.get("name")),
        version=text(answer.get("version")),
        labels={**labels, **{label.name: label.value for entry in known.values() for label in entry.labels}},
        models=known,
        strategies=descriptions(answer.get("strategies")),
        default_model=default,
        default_strategy=text(own.get("default_strategy")),
        device=text(own.get("device")),
        device_name=text(own.get("device_name")),
        total=integer(store.get("total")) or 0,
        completed=integer(store.get("completed")) or 0,
        published_version=text(own.get("version")) or None,
        model_error=text(own.get("error")),
    )


def _parse_model(
    name: str, entry: Mapping[str, object], own: Mapping[str, object], default: str, trainable: bool
) -> ModelInfo:
    facts = mapping(mapping(own.get("models")).get(name))
    if not facts and name == default:
        facts = dict(own)
    terms, colours = mapping(facts.get("terms")), mapping(facts.get("colours"))
    return ModelInfo(
        name=name,
        description=text(entry.get("description")),
        labels=tuple(
            _parse_label(label, value, mapping(terms.get(label)), colours.get(label))
            for label, value in _parse_labels(facts.get("labels")).items()
        ),
        version=text(facts.get("version")) or None,
        error=text(facts.get("error")),
        trainable=trainable,
    )


def _parse_label(name: str, value: int, term: Mapping[str, object], colour: object) -> Label:
    """Read a label; a part of its term that is not usable is left out: a wrong code would be worse than none."""
    shown = term.get("colour") if colour is None else colour
    parts = tuple(shown) if isinstance(shown, list) else ()
    usable = len(parts) == 3 and all(type(part) is int and 0 <= part <= 255 for part in parts)
    codes = [_parse_code(term.get(key)) for key in ("category", "type", "modifier", "region")]
    return Label(name, value, parts if usable else None, *codes)


def _parse_code(code: object) -> Code | None:
    known = mapping(code)
    parts = [known.get(key) for key in ("value", "scheme", "meaning")]
    if not all(isinstance(part, str) and part for part in parts):
        return None
    return Code(*parts)  # type: ignore[arg-type]


def _parse_labels(labels: object) -> dict[str, int]:
    """Check a label map: a wrong voxel value here would mislabel every case, so nothing is guessed."""
    problem = "The server's labels cannot be used: expected names with whole voxel values above 0, each value once"
    todo = "Check the task of the server's app."
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise BadAnswer(f"{problem}, got {str(labels)[:200]!r}. {todo}")
    for name, value in labels.items():
        if type(value) is not int or value < 1:
            raise BadAnswer(f"{problem}, got {value!r} for '{name}'. {todo}")
    if len(set(labels.values())) != len(labels):
        raise BadAnswer(f"{problem}, got {labels}. {todo}")
    return dict(sorted(labels.items(), key=lambda item: item[1]))


def parse_sample(answer: object, strategy: str) -> Sample:
    """Read the answer of `/activelearning/STRATEGY`.

    Raises:
        BadAnswer: It names no image.
    """
    known = mapping(answer)
    if not isinstance(known.get("id"), str) or not known["id"]:
        raise BadAnswer(f"The server did not say which image comes next: {str(answer)[:200]!r}. Look at its log.")
    id_ = str(known["id"])
    return Sample(
        id=id_,
        name=text(known.get("name")) or id_,
        strategy=text(known.get("used_strategy")) or strategy,
        reason=text(known.get("reason")),
        leased_until=text(known.get("leased_until")),
    )


def parse_segmentation(answer: object) -> SegmentationFacts:
    """Read what comes with a label map.

    Raises:
        BadAnswer: It does not say what the values of the label map mean.
    """
    known = mapping(answer)
    names = known.get("label_names")
    if not isinstance(names, dict) or not all(type(value) is int and value > 0 for value in names.values()):
        raise BadAnswer(f"The server did not say which label has which value: {names!r}. Look at its log.")
    return SegmentationFacts(
        labels=names,
        version=text(known.get("version")),
        device=text(known.get("device")),
        seconds=number(mapping(known.get("latencies")).get("total")),
        confidence=numbers_of(known.get("confidence")),
        uncertainty=number(known.get("uncertainty")),
        missing=texts(known.get("missing_labels")),
        note=text(known.get("fallback")),
        attribution=text(known.get("attribution")),
    )


def parse_submitted(answer: object, image_id: str) -> SubmittedLabel:
    """Read the answer to a label that was sent.

    Raises:
        BadAnswer: It is no confirmation.
    """
    if not isinstance(answer, dict):
        raise BadAnswer(f"The server did not confirm the label: {str(answer)[:200]!r}. Look at its log.")
    return SubmittedLabel(image_id, *(bool(answer.get(key)) for key in ("duplicate", "remapped", "resampled")))
