"""Starting and stopping trainings from the server, for a client or by itself: one at a time."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import psutil
from monailabel.endpoints import train
from monailabel.utils.async_tasks.utils import processes, stop_background_task, tasks

from lib.errors import BusyError, ConflictError
from lib.names import known
from lib.storage.datastore import Rep3DDatastore
from lib.training.auto import AutoTrain
from lib.training.status import ALIVE, FINISHED_PHASES
from lib.training.task import Rep3DTrainTask

__all__ = ["TrainingControl"]

_STOP_SECONDS = 10.0


class TrainingControl:
    """Starts and stops trainings.

    Args:
        trainers: the train task of each model.
        datastore: images and labels.
        auto_train: what counts the labels since a model's last training.
    """

    def __init__(
        self, trainers: Mapping[str, Rep3DTrainTask], datastore: Rep3DDatastore, auto_train: AutoTrain
    ) -> None:
        self._trainers = trainers
        self._datastore = datastore
        self._auto_train = auto_train
        self._starting = threading.Lock()

    def task(self, model: str) -> Rep3DTrainTask:
        """Return the train task of a model; NotFoundError where there is none."""
        return known("model", model, self._trainers)

    def runs(self) -> bool:
        """Return whether a training of any model waits or runs."""
        if not any(task["status"] in ALIVE for task in tasks("train")):
            return False
        # The process of a training that is done takes a moment to go.
        return bool(self._phases() - FINISHED_PHASES)

    def blocks(self) -> bool:
        """Return whether a training waits or runs that a new one has to wait for."""
        return self.runs() and not self._only_scores()

    def _only_scores(self) -> bool:
        """Return whether the training that runs has published, and only scores: a new one need not wait for that."""
        return self.runs() and self._phases() - FINISHED_PHASES == {"scoring"}

    def _phases(self) -> set[str]:
        return {task.stats().get("phase", "done") for task in self._trainers.values()}

    def start(self, model: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training in a child process, after everything that can be refused at once has been.

        Returns:
            MONAI Label's description of the task.

        Raises:
            NotFoundError: for an unknown model.
            ConflictError: while a training runs.
            Rep3DError: see :meth:`lib.training.task.Rep3DTrainTask.check`.
        """
        task = self.task(model)
        with self._starting:
            if self._only_scores():
                task.check(params, self._datastore)  # what is refused ends nothing
                self.stop()
            if self.runs():
                raise ConflictError("A training is running already. Wait until it has ended, or stop it.")
            request = task.check(params, self._datastore)
            task.announce(request, self._datastore)
            self._auto_train.began(model)
            values = dict(params)
            gpus = request.settings.gpus
            if isinstance(gpus, tuple):
                # MONAI Label shows the child just these, and tells it to take all that it sees.
                values["gpus"] = _as_the_driver_counts(gpus)
                values["multi_gpu"] = True
            else:
                for key in ("gpus", "multi_gpu"):  # the child would take all GPUs for these, where one was asked for
                    values.pop(key, None)
                values["device"] = request.settings.device
            started: dict[str, Any] = train.run_model(model, values, enqueue=True)
            return started

    def stop(self) -> dict[str, Any] | None:
        """Kill the training that runs, with its children, and wait until they are gone.

        Returns:
            MONAI Label's description of the task; None where none runs.

        Raises:
            BusyError: if it could not be stopped in time.
        """
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            waiting = [task for task in tasks("train") if task["status"] in ALIVE]
            if not waiting:
                return None
            if any(task["status"] == "RUNNING" for task in waiting) and processes("train"):
                process = next(iter(processes("train").values()))
                with contextlib.suppress(psutil.NoSuchProcess, StopIteration):  # it ended by itself meanwhile
                    stopped = stop_background_task("train")
                    if stopped is not None:
                        process.wait(_STOP_SECONDS)
                        self.task(stopped["request"]["model"]).record_stop()
                        return dict(stopped)
            time.sleep(0.05)
        raise BusyError("The training is just beginning or ending. Try again in a moment.")


def _as_the_driver_counts(gpus: tuple[int | str, ...]) -> str:
    """GPUs for the child's CUDA_VISIBLE_DEVICES; where this process was given one itself, it counts within that."""
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    numbers = [int(str(gpu).removeprefix("cuda:")) for gpu in gpus]
    return ",".join(visible[number] if visible else str(number) for number in numbers)
