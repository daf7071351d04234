"""The train task: from the submitted labels to a new version of the model.

Runs in a child process that MONAI Label starts, so that the server goes on answering and the memory is free
afterwards. It begins from the published version, reads the studies folder but never writes to its images and labels,
and replaces the published version only by one that was measured to be better.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks

from lib.errors import in_words
from lib.models.audit import note_run
from lib.models.served import ServedModel
from lib.storage.datastore import Rep3DDatastore
from lib.training.request import TrainRequest
from lib.training.resumption import changes_since, interrupted_run, resumable_run
from lib.training.run import TrainRun
from lib.training.standby_process import took_up_at
from lib.training.status import FINISHED_PHASES, TrainStatus, process_mark, read_status, status_file
from lib.training.watch import watch_server
from rep3d.errors import NoCasesError, VersionError

__all__ = ["Rep3DTrainTask", "TrainRequest"]

_STOPPED = {"phase": "stopped", "error": "Stopped on request."}


class Rep3DTrainTask(TrainTask):
    """Training on the final labels of one model.

    Args:
        served: the model to train.
    """

    def __init__(self, served: ServedModel) -> None:
        super().__init__("Rep3D: trains on from the published version with every final label; publishes what is better")
        self._served = served
        self._workspace = served.setup.workspace
        self._defaults = served.setup.train_settings()

    def config(self) -> dict[str, Any]:
        """Return the settings that a request may give, with their defaults."""
        return {
            **dataclasses.asdict(self._defaults),
            "score_minutes": self._served.setup.conf.score_minutes,
            "resume": "auto",
            "multi_gpu": False,
        }

    def stats(self) -> dict[str, Any]:
        """Return what the last training does or did; see :func:`lib.training.status.read_status`.

        ``resumable`` says, where none runs, which training was stopped or interrupted and can be resumed.
        """
        own = [task for task in tasks("train") if task["request"].get("model") == self._served.name]
        status = read_status(self._workspace.train_status, own)
        if status and status.get("phase") in FINISHED_PHASES:
            known = resumable_run(self._workspace.run)
            status["resumable"] = known and {
                "started": known["started"],
                "settings": known["request"]["settings"],
                "cases": len(known["training"]),
                "trained": (self._workspace.run / "trained.pt").exists(),
            }
        return status

    def parse(self, request: Mapping[str, Any]) -> TrainRequest:
        """Return what a request asks for.

        Raises:
            ConfigError: for settings that are not possible.
        """
        return TrainRequest.parse(request, self._defaults, self._served.setup.conf.score_minutes)

    def check(self, request: Mapping[str, Any], datastore: Rep3DDatastore) -> TrainRequest:
        """Return what can be refused before a process is started.

        Raises:
            ConfigError: for settings that are not possible.
            NoCasesError: without any final label.
            VersionError: if there is nothing to resume, or it can no longer be resumed.
            CheckpointError: if the published model, from which training would begin, is damaged.
        """
        parsed = self.parse(request)
        if not datastore.get_labeled_images():
            raise NoCasesError("There is no label to learn from yet. Submit a label (tag 'final') first.")
        published = self._served.versions.published()
        if parsed.resume is True:
            known = interrupted_run(self._workspace)
            if known is None:
                raise VersionError("There is no stopped or interrupted training to resume. Start a new one.")
            # What takes longer to compare is compared by the training itself, and told in its status.
            refusal = changes_since(known, {"start": published, "labels": dict(self._served.setup.labels)})
            if refusal is not None:
                raise VersionError(refusal)
        return parsed

    def announce(self, request: TrainRequest, datastore: Rep3DDatastore) -> None:
        """Record that a training is about to start, so that no client takes the record of the last one for it."""
        before = status_file(self._workspace.train_status).read()
        status = TrainStatus(self._workspace.train_status)
        status.take_up(before, 0 if request.resume is False else int(before.get("iterations", 0)))
        status.update(
            {
                "requested": time.time(),
                "iterations": request.settings.iterations,
                "device": request.settings.device,
                "cases": len(datastore.get_labeled_images()),
                "version": self._served.versions.published(),
            }
        )

    def record_stop(self) -> None:
        """Record that the training was stopped on request; a server that starts later knows it, too."""
        status = status_file(self._workspace.train_status).read()
        if status and status.get("phase") not in FINISHED_PHASES:
            stopped = TrainStatus(self._workspace.train_status)
            stopped.take_up(status, status["iterations"])
            # What is scored after the publication is not needed: the training itself is done.
            ended = {"phase": "done"} if status["phase"] == "scoring" else _STOPPED
            stopped.update({**status, **ended, "eta_seconds": None})

    def __call__(self, request: Mapping[str, Any], datastore: Rep3DDatastore) -> dict[str, Any]:
        """Train, measure, publish what is better, score; see :class:`lib.training.run.TrainRun`."""
        before = status_file(self._workspace.train_status).read()
        mark = process_mark()
        status = TrainStatus(self._workspace.train_status, process=mark)
        status.update({})
        watch_server(status)
        try:
            began = _began(before, max(mark["created"], took_up_at()))
            return TrainRun(self._served, self.parse(request), datastore, status, before, began)()
        except Exception as error:
            status.update({"phase": "error", "eta_seconds": None, "error": in_words(error)})
            note_run(self._served, "training", "training ended", result="failed")
            raise


def _began(before: Mapping[str, Any], process_began: float) -> float:
    """Return when the minutes of this training began to count, in monotonic seconds.

    That is when it was requested, so that the start of the process counts; where it waited for another training to end,
    it is when the process began with it.
    """
    waited = time.time() - max(float(before.get("requested") or 0.0), process_began)
    return time.monotonic() - max(0.0, waited)
