"""Training by itself after every so many submitted labels (``--conf train_every``)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from rep3d.errors import Rep3DError
from rep3d.json_file import JsonFile, json_object

__all__ = ["AutoTrain"]

logger = logging.getLogger(__name__)


class AutoTrain:
    """Counts submissions for each model, and starts its training when there are enough.

    The counts outlive the server. They begin anew with each training, however it was started; labels that come while
    one runs count for the next. A training that is due waits for the one that runs.

    Args:
        path: the JSON file that keeps the counts.
        every: so many submissions start a training; 0 for never.
        start: starts the training of a model.
        runs: whether a training runs.
        seconds: between two looks at what is due.
    """

    def __init__(
        self,
        path: Path,
        every: int,
        start: Callable[[str], object],
        runs: Callable[[], bool],
        seconds: float = 1.0,
    ) -> None:
        lost = "how many labels came since the last training: counted from 0 again"
        self._file: JsonFile[dict[str, int]] = JsonFile(path, _parsed, lost, dict, begins_anew=True)
        self._every = every
        self._start = start
        self._runs = runs
        self._seconds = seconds
        self._guard = threading.RLock()
        self._submitted = threading.Event()
        self._refused: dict[str, int] = {}  # count at which a model's training was refused

    def watch(self) -> None:
        """Begin to start trainings, in a thread; nothing to do where that is off."""
        if self._every:
            self._submitted.set()
            threading.Thread(target=self._watch, name="auto-train", daemon=True).start()

    def submitted(self, models: Collection[str]) -> None:
        """Count a label that was submitted.

        Args:
            models: the models that it says something to.
        """
        with self._guard:
            counts = self.counts()
            self._write({**counts, **{name: counts.get(name, 0) + 1 for name in models}})
        self._submitted.set()

    def began(self, model: str) -> None:
        """Begin to count anew, since a training of that model begins."""
        with self._guard:
            self._write({**self.counts(), model: 0})
            self._refused.pop(model, None)

    def counts(self) -> dict[str, int]:
        """Model to the submissions since its last training began."""
        with self._guard:
            return self._file.read()

    def start_due(self) -> str | None:
        """Start the training that has been due the most, unless one runs.

        Returns:
            The model whose training was started.
        """
        with self._guard:
            counts = self.counts()
            due = {name: n for name, n in counts.items() if self._every <= n != self._refused.get(name)}
        if not due or not self._every or self._runs():
            return None
        model = max(due, key=lambda name: due[name])
        try:
            self._start(model)
        except Rep3DError as error:
            logger.warning("training of %s was due after %d labels, but was refused: %s", model, due[model], error)
            if not self._runs():
                self._refused[model] = due[model]  # until the next label: it may be what was missing
            return None
        logger.info("started the training of %s by itself, after %d labels", model, due[model])
        return model

    def _watch(self) -> None:
        while True:
            self._submitted.wait()
            self._submitted.clear()
            while any(n >= self._every for n in self.counts().values()):
                try:
                    self.start_due()
                except Exception:  # a watch that has ended silently would be worse than one that complains
                    logger.exception("a training was due, but could not be started; the next try is in a minute")
                    self._submitted.wait(60)
                if self._submitted.wait(self._seconds):
                    self._submitted.clear()

    def _write(self, counts: dict[str, int]) -> None:
        if counts != self.counts():
            self._file.write(counts)


def _parsed(content: Any) -> dict[str, int]:
    return {name: int(count) for name, count in json_object(content).items()}
