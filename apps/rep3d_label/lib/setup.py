"""What a server will work with, found out and checked before anything is written.

Labels come, in this order, from ``--conf labels``, from a ``dataset.json`` in the studies folder, from the published
model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.conf import AppConf
from lib.published import check_task
from lib.startup import StartupError
from lib.workspace import Workspace
from rep3d.checkpoint import read_checkpoint_task
from rep3d.errors import CheckpointError, TaskError
from rep3d.tasks import TaskConfig, labels_from_dataset_json, modality_from_dataset_json

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """A server's data, labels and machine.

    Attributes:
        folder: the studies folder.
        workspace: the app's own data below it.
        labels: label name to voxel value.
        device: where to compute.
        preset: network of the model, or of the first one to be trained.
        modality: ``"CT"``, ``"MRI"``, ..., if known.
    """

    folder: Path
    workspace: Workspace
    labels: Mapping[str, int]
    device: str
    preset: str
    modality: str | None

    @classmethod
    def find(cls, studies: str, conf: Mapping[str, str]) -> Setup:
        """Reads the settings and the studies folder; writes nothing.

        Raises:
            StartupError: if a server could not run with them.
        """
        settings = AppConf.parse(conf)
        if studies.startswith(("http://", "https://")):
            raise StartupError(
                "a local folder as --studies", repr(studies), "Give the path of a folder with NIfTI images."
            )
        folder = Path(studies).resolve()
        workspace = Workspace(folder / "rep3d")
        task, facts = _published(workspace.published)
        dataset = folder / "dataset.json"
        labels = settings.labels or _labels_from(dataset) or (task.labels if task else None)
        if not labels:
            raise StartupError(
                "to know the label names",
                f"no --conf labels, no dataset.json in {folder}, and no published model in {workspace.root}",
                "Give them in one of three ways: --conf labels a,b (or a=1,b=3); a dataset.json with 'labels' in the "
                "studies folder; or a published model at rep3d/published.pt in it.",
            )
        if task:
            _check_published(workspace.published, task, labels)
        return cls(
            folder=folder,
            workspace=workspace,
            labels=dict(labels),
            device=settings.device,
            preset=_preset(settings, facts, workspace.published),
            modality=settings.modality or _modality_from(dataset),
        )


def _published(path: Path) -> tuple[TaskConfig | None, dict[str, Any]]:
    if not path.exists():
        return None, {}
    try:
        return read_checkpoint_task(path)
    except CheckpointError as error:
        raise damaged_checkpoint(path, error) from error


def damaged_checkpoint(path: Path, error: CheckpointError) -> StartupError:
    """The refusal to start with a published model that cannot be used."""
    return StartupError(
        "a published model that can be loaded",
        f"'{error}'",
        f"Move {path} away (the server then starts without a model).",
    )


def _check_published(path: Path, task: TaskConfig, labels: Mapping[str, int]) -> None:
    try:
        check_task(path, task, labels)
    except CheckpointError as error:
        given = ",".join(f"{name}={value}" for name, value in task.labels.items())
        raise StartupError(
            f"a published model with the labels {dict(labels)}",
            f"a checkpoint of another task, with {dict(task.labels)}",
            f"Move {path} away, or start with the labels it was trained for: --conf labels {given}",
        ) from error


def _preset(settings: AppConf, facts: Mapping[str, Any], path: Path) -> str:
    preset = settings.preset_for(facts.get("preset"))
    if settings.preset not in (None, preset):
        raise StartupError(
            f"the preset of the published model, {preset!r}",
            f"--conf preset {settings.preset!r}",
            f"Leave --conf preset out, or move {path} away to begin anew with another network.",
        )
    return preset


def _labels_from(dataset: Path) -> dict[str, int] | None:
    if not dataset.is_file():
        return None
    try:
        return labels_from_dataset_json(dataset)
    except TaskError as error:
        raise StartupError(
            "labels in dataset.json", f"'{error}'", "Correct that file, or give the labels with --conf labels a,b."
        ) from error


def _modality_from(dataset: Path) -> str | None:
    """The modality that dataset.json names; a file that names none, or is not usable, leaves it open."""
    try:
        return modality_from_dataset_json(dataset) if dataset.is_file() else None
    except TaskError:
        return None
