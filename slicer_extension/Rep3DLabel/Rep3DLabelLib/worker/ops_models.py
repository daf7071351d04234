"""What the helper process asks about servers and models: what there is, how a training goes, versions, batches."""

from __future__ import annotations

from ..client.answers_status import BatchStatus, Overview
from ..client.answers_train import TrainStatus
from ..client.answers_versions import Version
from ..connection import ConnectionReport
from .task import Task

__all__ = [
    "batch_start",
    "batch_stop",
    "overview",
    "publish",
    "roll_back",
    "test",
    "train_start",
    "train_stop",
    "versions",
]


def test(task: Task) -> ConnectionReport:
    """Find out whether the server can be used."""
    return task.client.test_connection()


def train_start(task: Task) -> TrainStatus:
    """Start a training. Arguments: "model", "settings"."""
    return task.client.train_start(_model(task), task.args.get("settings") or {})


def train_stop(task: Task) -> bool:
    """Stop the training that runs."""
    return task.client.train_stop()


def overview(task: Task) -> Overview:
    """Tell what the server does. Arguments: "model"."""
    return task.client.overview(_model(task))


def _model(task: Task) -> str | None:
    return str(task.args.get("model") or "") or None


def versions(task: Task) -> tuple[Version, ...]:
    """List the versions of a model. Arguments: "model"."""
    return task.client.versions(_model(task))


def publish(task: Task) -> Version:
    """Put a version into use. Arguments: "model", "version", "reason"."""
    return task.client.publish(_model(task), str(task.args["version"]), str(task.args.get("reason") or ""))


def roll_back(task: Task) -> Version:
    """Put the version before into use. Arguments: "model", "reason"."""
    return task.client.roll_back(_model(task), str(task.args.get("reason") or ""))


def batch_start(task: Task) -> BatchStatus:
    """Segment all images without a label. Arguments: "model", "views"."""
    return task.client.batch_start(_model(task), views=int(task.args.get("views") or 1))


def batch_stop(task: Task) -> BatchStatus:
    """Stop it. Arguments: "model"."""
    return task.client.batch_stop(_model(task))
