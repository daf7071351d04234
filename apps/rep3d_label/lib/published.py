"""The published model: the one checkpoint file that answers requests, loaded anew whenever it was replaced.

Training runs in another process and replaces the file atomically; the server notices by the file's time and size. One
lock lets a single request use the network at a time, so that two requests neither mix nor double the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import HTTPException

from rep3d.checkpoint import load_checkpoint, read_checkpoint_task
from rep3d.errors import CheckpointError
from rep3d.inference import Predictor, Segmentation
from rep3d.tasks import TaskConfig

__all__ = ["PublishedModel", "check_task"]


def check_task(path: Path, task: TaskConfig, labels: Mapping[str, int]) -> None:
    """Refuses a checkpoint that was made for other labels.

    Raises:
        CheckpointError: naming both sets of labels.
    """
    if dict(task.labels) != dict(labels):
        raise CheckpointError(
            f"checkpoint of another task: expected the labels {dict(labels)}, got {dict(task.labels)} in {path}. "
            f"Move that file away, or start the server with the labels it was trained for."
        )


class PublishedModel:
    """The model in use.

    Args:
        path: the checkpoint file; it may not exist yet.
        labels: label name to voxel value that the server works with.
        device: where to compute.
    """

    def __init__(self, path: Path, labels: Mapping[str, int], device: str) -> None:
        self.path = path
        self.labels = labels
        self.device = device
        self._facts_lock = threading.Lock()
        self._facts_stamp: tuple[int, int] | None = None
        self._facts: dict[str, Any] = {}
        self._network_lock = threading.Lock()
        self._predictor_stamp: tuple[int, int] | None = None
        self._predictor: Predictor | None = None

    def _stamp(self) -> tuple[int, int] | None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_size

    def facts(self) -> dict[str, Any]:
        """What the checkpoint says about its origin (``version``, ``cases``, ...); empty where none is published.

        Raises:
            CheckpointError: if the file is damaged or belongs to another task.
        """
        with self._facts_lock:
            stamp = self._stamp()
            if stamp is None:
                return {}
            if stamp != self._facts_stamp:
                task, facts = read_checkpoint_task(self.path)
                check_task(self.path, task, self.labels)
                self._facts, self._facts_stamp = facts, stamp
            return self._facts

    def load(self) -> None:
        """Makes the model ready, so that the first request does not wait for it.

        Raises:
            CheckpointError: if the file is damaged or belongs to another task.
            HTTPException: 409, if there is none.
        """
        with self._network_lock:
            self._current()

    def segment(self, image: Path, output: Path) -> tuple[Segmentation, str]:
        """Segments an image file.

        Returns:
            The result, and the version of the model that made it.

        Raises:
            ImageError: if the file is no readable image.
            CheckpointError: if the published file is damaged or belongs to another task.
            HTTPException: 409, if there is no trained model yet.
        """
        with self._network_lock:
            predictor = self._current()
            return predictor.segment(image, output), predictor.version

    def uncertainty(self, image: Path) -> float:
        """How unsure the model is about an image, from 0 to 1; raises as :meth:`segment`."""
        with self._network_lock:
            return self._current().uncertainty(image)

    def _current(self) -> Predictor:
        stamp = self._stamp()
        if stamp is None:
            raise HTTPException(
                409, "no trained model yet: submit at least one label, start a training, ask again when it has ended"
            )
        if self._predictor is None or stamp != self._predictor_stamp:
            checkpoint = load_checkpoint(self.path)
            check_task(self.path, checkpoint.task, self.labels)
            self._predictor = None  # free the old network before the new one takes its place
            self._predictor = Predictor(checkpoint, self.device)
            self._predictor_stamp = stamp
        return self._predictor
