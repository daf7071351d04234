"""The published model: the one checkpoint file that answers requests, loaded anew whenever it was replaced.

Training runs in another process and replaces the file atomically; the server notices by the file's time and size. A
request that runs when that happens ends with the network it began with. Requests share one network: their windows are
computed in turn, so that they neither mix, nor wait for each other's end, nor double the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.channels import ONE, Channels
from lib.errors import NoModelError
from rep3d.checkpoint import load_checkpoint, read_checkpoint_task
from rep3d.errors import CheckpointError
from rep3d.files import file_state
from rep3d.inference.predictor import Predictor
from rep3d.tasks.config import TaskConfig

__all__ = ["PublishedModel"]


def _check(path: Path, task: TaskConfig, labels: Mapping[str, int], channels: Channels) -> None:
    """Refuse a checkpoint that knows none of the labels (names count, voxel values do not), or is for other images.

    Raises:
        CheckpointError: naming both.
    """
    if not set(task.labels) & set(labels):
        raise CheckpointError(
            f"The model in {path} was trained for the labels {', '.join(sorted(task.labels))}, and this server has "
            f"{', '.join(sorted(labels))}. Train a model for these, or start the server with the model's labels."
        )
    if Channels.of(task) != channels:
        raise CheckpointError(
            f"The model in {path} takes images of {Channels.of(task)}, and this server has images of {channels}. Train "
            f"a model for these, or start a server for the model's images."
        )


class PublishedModel:
    """The model in use.

    Args:
        path: the checkpoint file; it may not exist yet.
        labels: label name to voxel value that the server works with. They are written whatever values the checkpoint
            was trained with; labels that only the checkpoint knows become background.
        device: where to compute.
        channels: of the server's images.
    """

    def __init__(self, path: Path, labels: Mapping[str, int], device: str, channels: Channels = ONE) -> None:
        self.path = path
        self.labels = labels
        self.device = device
        self.channels = channels
        self._facts_lock = threading.Lock()
        self._facts_stamp: tuple[int, int, int] | None = None
        self._facts: dict[str, Any] = {}
        self._predictor_lock = threading.Lock()
        self._predictor_stamp: tuple[int, int, int] | None = None
        self._predictor: Predictor | None = None

    def check(self, path: Path) -> None:
        """Make sure that another checkpoint could answer requests in place of this one.

        Raises:
            CheckpointError: if the file is damaged, knows none of the labels, or is for images of other channels.
        """
        _check(path, read_checkpoint_task(path)[0], self.labels, self.channels)

    def facts(self) -> dict[str, Any]:
        """Return what the checkpoint says about its origin (``version``, ``cases``, ...); empty where none is
        published.

        Raises:
            CheckpointError: if the file is damaged, knows none of the labels, or is for images of other channels.
        """
        with self._facts_lock:
            stamp = file_state(self.path)
            if stamp is None:
                return {}
            if stamp != self._facts_stamp:
                task, facts = read_checkpoint_task(self.path)
                _check(self.path, task, self.labels, self.channels)
                self._facts, self._facts_stamp = facts, stamp
            return self._facts

    def predictor(self) -> Predictor:
        """Return the network in use; it may be used by several threads at once.

        Keep it for the time of one request only: the next one may have to use a newer version.

        Raises:
            CheckpointError: if the file is damaged, knows none of the labels, or is for images of other channels.
            NoModelError: if there is no trained model yet.
        """
        with self._predictor_lock:
            stamp = file_state(self.path)
            if stamp is None:
                self._predictor = None
                raise NoModelError
            if self._predictor is None or stamp != self._predictor_stamp:
                checkpoint = load_checkpoint(self.path)
                _check(self.path, checkpoint.task, self.labels, self.channels)
                self._predictor = None  # free the old network, unless a request still runs with it
                self._predictor = Predictor(checkpoint, self.device, values=self.labels)
                self._predictor_stamp = stamp
            return self._predictor

    def missing_labels(self, predictor: Predictor) -> list[str]:
        """Return the server's labels that a network has not learned yet; it can never find them."""
        return [name for name in self.labels if name not in predictor.task.labels]
