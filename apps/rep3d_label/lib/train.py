"""The train task: from the submitted labels to a newly published model.

Runs in a child process that MONAI Label starts, so that the server goes on answering and the memory is free
afterwards. It begins from the published model, reads the studies folder but never writes it, and replaces the
published model only by a run that ended well.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from typing import Any

import psutil
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.utils.async_tasks.utils import tasks

from lib.datastore import Rep3DDatastore
from lib.published import PublishedModel, check_task
from lib.scoring import score_unlabelled
from lib.train_status import TrainStatus, read_status
from lib.workspace import Workspace
from rep3d.cases import Case
from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import ConfigError, NoCasesError, Rep3DError, TrainingError
from rep3d.training import TrainProgress, TrainSettings, task_for_cases, train
from rep3d.volumes import check_label

__all__ = ["Rep3DTrainTask", "TrainRequest"]

logger = logging.getLogger(__name__)

_SCORE_MINUTES = 5.0
# What MONAI Label and its clients add to a request; none of it is a setting of ours.
_FOREIGN_KEYS = frozenset({"model", "gpus", "local_rank", "client_id", "bundle_path"})


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """A training that was asked for.

    Attributes:
        settings: how to train.
        score_minutes: how long to score unlabelled images after publication; 0 for not at all.
    """

    settings: TrainSettings
    score_minutes: float = _SCORE_MINUTES

    @classmethod
    def parse(cls, request: Mapping[str, Any], defaults: TrainSettings) -> TrainRequest:
        """Checks what a client asked for.

        Raises:
            ConfigError: for an unknown setting or an impossible value.
        """
        values = {key: value for key, value in request.items() if key not in _FOREIGN_KEYS}
        minutes = values.pop("score_minutes", _SCORE_MINUTES)
        known = {field.name for field in dataclasses.fields(TrainSettings)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"training: expected settings among {sorted(known | {'score_minutes'})}, got {unknown}")
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 <= minutes <= 1e5:
            raise ConfigError(f"score_minutes: expected a number from 0 to 100000, got {minutes!r}")
        if values.get("preset", defaults.preset) != defaults.preset:
            raise ConfigError(
                f"preset: expected {defaults.preset!r}, with which this server runs, got {values['preset']!r}. "
                f"Start the server with --conf preset, in a folder without a published model."
            )
        return cls(dataclasses.replace(defaults, **values), float(minutes))


class Rep3DTrainTask(TrainTask):
    """Training on all final labels.

    Args:
        name: name of the task, for a first training.
        workspace: where the model and the status go.
        model: the published model.
        defaults: settings where a request gives none.
        modality: ``"CT"``, ``"MRI"`` or None, for a first training.
    """

    def __init__(
        self, name: str, workspace: Workspace, model: PublishedModel, defaults: TrainSettings, modality: str | None
    ) -> None:
        super().__init__("Rep3D: trains on from the published model with every final label")
        self._name = name
        self._workspace = workspace
        self._model = model
        self._defaults = defaults
        self._modality = modality

    def config(self) -> dict[str, Any]:
        """The settings that a request may give, with their defaults."""
        return {**dataclasses.asdict(self._defaults), "score_minutes": _SCORE_MINUTES}

    def stats(self) -> dict[str, Any]:
        """What the last training does or did; see :func:`lib.train_status.read_status`."""
        return read_status(self._workspace.train_status, tasks("train"))

    def check(self, request: Mapping[str, Any], datastore: Rep3DDatastore) -> TrainRequest:
        """What can be refused before a process is started.

        Raises:
            ConfigError: for settings that are not possible.
            NoCasesError: without any final label.
            CheckpointError: if the published model, from which training would begin, is damaged.
        """
        parsed = TrainRequest.parse(request, self._defaults)
        if not datastore.get_labeled_images():
            raise NoCasesError(
                "training: expected at least one labelled case, got none. Submit a label (tag 'final') first."
            )
        self._model.facts()
        return parsed

    def announce(self, request: TrainRequest, datastore: Rep3DDatastore) -> None:
        """Records that a training is about to start, so that no client takes the record of the last one for it."""
        TrainStatus(self._workspace.train_status).update(
            {
                "iterations": request.settings.iterations,
                "device": request.settings.device,
                "cases": len(datastore.get_labeled_images()),
                "version": self._model.facts().get("version"),
            }
        )

    def __call__(self, request: Mapping[str, Any], datastore: Rep3DDatastore) -> dict[str, Any]:
        """Trains, publishes, scores.

        Returns:
            Version, number of cases and the cases left out, with the reason.
        """
        status = TrainStatus(self._workspace.train_status)
        try:
            return self._run(TrainRequest.parse(request, self._defaults), datastore, status)
        except Exception as error:
            words = str(error) if isinstance(error, Rep3DError) else f"{type(error).__name__}: {error}"
            status.update({"phase": "error", "eta_seconds": None, "error": words})
            raise

    def _run(self, request: TrainRequest, datastore: Rep3DDatastore, status: TrainStatus) -> dict[str, Any]:
        start = load_checkpoint(self._workspace.published) if self._workspace.published.exists() else None
        if start:
            check_task(self._workspace.published, start.task, self._model.labels)
        cases, skipped = self._cases(datastore)
        begun_from = start.version if start else None
        status.update({"phase": "preparing", "cases": len(cases), "skipped": skipped, "version": begun_from})
        if not cases:
            raise NoCasesError(
                f"training: expected at least one usable labelled case, got none: {skipped or 'no labels'}"
            )
        server = os.getppid()

        def on_progress(progress: TrainProgress) -> None:
            _stop_without(server)
            status.update(dataclasses.asdict(progress))

        checkpoint = self._train(cases, request, start, on_progress)
        logger.info("published %s, trained on %d cases", checkpoint.version, len(cases))
        status.update({"phase": "scoring", "eta_seconds": None, "version": checkpoint.version})

        def on_scored(done: int, todo: int) -> None:
            _stop_without(server)
            status.update({"scored": done, "to_score": todo})

        if request.score_minutes:
            seconds = 60.0 * request.score_minutes
            score_unlabelled(datastore, self._model, self._workspace, seconds, on_scored)
        status.update({"phase": "done", "eta_seconds": 0.0})
        return {"version": checkpoint.version, "cases": len(cases), "skipped": skipped}

    def _train(
        self, cases: list[Case], request: TrainRequest, start: Checkpoint | None, on_progress: Any
    ) -> Checkpoint:
        if start:
            task = start.task
        else:
            images = [case.image for case in cases]
            task = task_for_cases(self._name, dict(self._model.labels), images, self._modality)
        return train(cases, task, request.settings, self._workspace.published, start, on_progress)

    def _cases(self, datastore: Rep3DDatastore) -> tuple[list[Case], dict[str, str]]:
        """The usable labelled cases, and why others are not: files may have been put into the folder by hand."""
        cases, skipped = [], {}
        for case in datastore.labelled_cases():
            try:
                check_label(case.label, case.image, self._model.labels)
            except Rep3DError as error:
                logger.warning("training: case %s left out: %s", case.id, error)
                skipped[case.id] = str(error)
            else:
                cases.append(case)
        return cases, skipped


def _stop_without(server: int) -> None:
    """Ends a training whose server (by process id) was killed: nobody could stop it, or see its progress, any more."""
    # A process without its parent gets another one, except on Windows.
    if os.getppid() != server or not psutil.pid_exists(server):
        raise TrainingError("training: its server is gone, so it was ended; nothing more was published")
