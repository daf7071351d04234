"""What the helper process asks about servers and models: what there is, how a training goes, versions, batches."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..client.answers import Code, LabelTerm, ServerInfo
from ..client.answers_status import BatchStatus, ServerStatus
from ..client.answers_train import TrainStatus
from ..client.answers_values import integer, mapping, text
from ..connection import READY
from ..errors import ClientError
from .task import Task

__all__ = [
    "batch_start",
    "batch_status",
    "batch_stop",
    "overview",
    "publish",
    "roll_back",
    "test",
    "train_start",
    "train_status",
    "train_stop",
    "versions",
]

_LOG_LINES = 40


def test(task: Task) -> dict[str, Any]:
    """Find out whether the server can be used."""
    report = task.client.test_connection()
    status: ServerStatus | None = None
    told: dict[str, Any] = {"state": report.state, "message": report.message, "url": task.client.url, "info": None}
    if report.state == READY and report.info is not None:
        with contextlib.suppress(ClientError):  # an older server: colours and the device's name are missing, no more
            status = task.client.server_status()
        told["info"] = _info(report.info, status)
    return told


def _info(info: ServerInfo, status: ServerStatus | None) -> dict[str, Any]:
    facts = mapping(mapping(info.raw.get("rep3d")).get("models"))
    models = {}
    for name, model in info.models.items():
        known = mapping(facts.get(name))
        labels = {str(key): integer(value) or 0 for key, value in mapping(known.get("labels")).items()}
        labels = labels or (dict(info.labels) if name == info.default_model else {})
        shown = status.models.get(name) if status is not None else None
        colours = {label.name: label.colour for label in shown.labels} if shown is not None else {}
        version = known.get("version", info.published_version if name == info.default_model else None)
        models[name] = {
            "description": model.description,
            "labels": labels,
            "version": None if version is None else str(version),
            "error": text(known.get("error")),
            "preset": text(known.get("preset")),
            "trainable": name in info.trainers,
            "entries": _entries(labels, colours, model.terms),
        }
    return {
        "name": info.name,
        "version": info.version,
        "description": info.description,
        "labels": dict(info.labels),
        "default_model": info.default_model,
        "device": info.device,
        "device_name": status.device_name if status is not None else "",
        "total": info.total,
        "completed": info.completed,
        "strategies": dict(info.strategies),
        "default_strategy": info.default_strategy,
        "models": models,
    }


def _entries(
    labels: Mapping[str, int], colours: Mapping[str, Any], terms: Mapping[str, LabelTerm]
) -> list[dict[str, Any]]:
    entries = []
    for name, value in sorted(labels.items(), key=lambda item: item[1]):
        term = terms.get(name, LabelTerm())
        colour = colours.get(name) or term.colour
        codes = {key: None if code is None else dict(vars(code)) for key, code in _codes(term)}
        entries.append(
            {
                "name": name,
                "value": value,
                "colour": None if colour is None else list(colour),
                "term": codes if any(codes.values()) else None,
            }
        )
    return entries


def _codes(term: LabelTerm) -> list[tuple[str, Code | None]]:
    return [("category", term.category), ("type", term.type), ("modifier", term.modifier), ("region", term.region)]


def train_start(task: Task) -> dict[str, Any]:
    """Start a training. Arguments: "model", "settings"."""
    return _train(task.client.train_start(_model(task), task.args.get("settings") or {}))


def train_status(task: Task) -> dict[str, Any]:
    """Tell how it goes. Arguments: "model"."""
    return _train(task.client.train_status(_model(task)))


def train_stop(task: Task) -> dict[str, Any]:
    """Stop it, and tell how it goes. Arguments: "model", which may be missing."""
    task.client.train_stop()
    return _train(task.client.train_status(_model(task)))


def overview(task: Task) -> dict[str, Any]:
    """Tell what the server does. Arguments: "model"."""
    status, train = task.client.overview(_model(task))
    known = status.models.get(_model(task) or status.default_model)
    return {
        "train": _train(train),
        "batch": _batch(known.batch) if known is not None else None,
        "version": known.version if known is not None else None,
        "total": status.total,
        "completed": status.completed,
        "cases_stamp": status.cases_stamp,
        "versions_stamp": known.versions_stamp if known is not None else "",
    }


def _model(task: Task) -> str | None:
    return str(task.args.get("model") or "") or None


def _train(status: TrainStatus) -> dict[str, Any]:
    told = dict(vars(status))
    told["log"] = list(status.log[-_LOG_LINES:])
    told["losses"] = [list(point) for point in status.losses]
    told["validations"] = [list(point) for point in status.validations]
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in told.items()}


def versions(task: Task) -> dict[str, Any]:
    """List the versions of a model. Arguments: "model"."""
    return dict(task.client.versions(_model(task)).raw)


def publish(task: Task) -> dict[str, Any]:
    """Put a version into use. Arguments: "model", "version", "reason"."""
    version, reason = str(task.args["version"]), str(task.args.get("reason") or "")
    return dict(task.client.publish(_model(task), version, reason).raw)


def roll_back(task: Task) -> dict[str, Any]:
    """Put the version before into use. Arguments: "model", "reason"."""
    return dict(task.client.roll_back(_model(task), str(task.args.get("reason") or "")).raw)


def batch_start(task: Task) -> dict[str, Any]:
    """Segment many images. Arguments: "model", "images", "views"."""
    images, views = str(task.args.get("images") or "unlabeled"), int(task.args.get("views") or 1)
    return _batch(task.client.batch_start(_model(task), images, views))


def batch_status(task: Task) -> dict[str, Any]:
    """Tell how that goes. Arguments: "model"."""
    return _batch(task.client.batch_status(_model(task)))


def batch_stop(task: Task) -> dict[str, Any]:
    """Stop it. Arguments: "model"."""
    return _batch(task.client.batch_stop(_model(task)))


def _batch(status: BatchStatus) -> dict[str, Any]:
    """Return the server's own words, with what the client makes of them."""
    told = {key: value for key, value in vars(status).items() if key != "raw"}
    return {**status.raw, **told, "failed": dict(status.failed), "active": status.is_active}
