"""The checkpoint that a model will answer with: the published one, or a starter model where none was trained yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.boot.conf import AppConf
from lib.channels import Channels
from lib.errors import StartupError
from lib.paths import ModelWorkspace, Workspace
from rep3d.checkpoint import read_checkpoint_task
from rep3d.errors import CheckpointError
from rep3d.starter.models import FOLDER, matching_starter
from rep3d.tasks.config import TaskConfig
from rep3d.versions.store import VersionStore

__all__ = ["Published", "damaged_checkpoint", "with_starter"]


@dataclass(frozen=True)
class Published:
    """The checkpoint that a model will answer with.

    Attributes:
        path: the file; it may not exist.
        task: its task, or None where there is none.
        facts: what it says about its origin.
        is_offered: whether it is a starter model, which is to become the first version.
        note: what the user should know about that, or "".
    """

    path: Path
    task: TaskConfig | None
    facts: Mapping[str, Any]
    is_offered: bool = False
    note: str = ""

    @classmethod
    def read(cls, workspace: Workspace, name: str, adopts: bool) -> Published:
        """Return the published checkpoint of a model, or one that somebody put there for it.

        Raises:
            StartupError: if it is damaged.
        """
        path = workspace.model(name).published
        if adopts and workspace.adopted.exists():
            path = workspace.adopted
        if not path.exists():
            return cls(path, None, {})
        try:
            return cls(path, *read_checkpoint_task(path))
        except CheckpointError as error:
            raise damaged_checkpoint(path, error) from error


def damaged_checkpoint(path: Path, error: CheckpointError) -> StartupError:
    """Return the refusal to start with a published model that cannot be used."""
    return StartupError(
        f"The published model cannot be loaded. {error}",
        f"Move {path} away (the server then starts without a model).",
    )


def with_starter(
    published: Published,
    space: ModelWorkspace,
    labels: Collection[str],
    modality: str | None,
    channels: Channels,
    settings: AppConf,
) -> Published:
    """Return a starter model in the place of none, if one has just these labels; what is there is never replaced.

    Args:
        published: what there is.
        space: the model's files: with a version, published or not, or a training under way, it is no new model.
        labels: names of the model's labels.
        modality: ``"CT"``, ``"MRI"``, ..., if known.
        channels: of its images.
        settings: who asks for another network or encoder, or for no starter, gets what was asked for.

    Raises:
        StartupError: if ``--conf starter`` names no folder.
    """
    if settings.starter == "off":
        return published
    folder = FOLDER if settings.starter == "on" else Path(settings.starter)
    if not folder.is_dir():
        raise StartupError(
            f"--conf starter must be on, off or a folder of starter models, and there is no folder {folder}.",
            "Correct it, or leave it out.",
        )
    begun = published.task or space.run.exists() or space.run_set_aside.exists()
    if begun or not VersionStore(space.root).is_new():
        return published
    starter = matching_starter(labels, modality, folder)
    if starter is None or Channels.of(starter.task) != channels:
        return published
    asked = [
        f"--conf {key} {value}"
        for key, value, usual in (
            ("preset", settings.preset, starter.info.get("preset")),
            ("variant", settings.variant, AppConf.variant),
            ("start_from", settings.start_from, None),
            ("task", settings.task.task.name if settings.task else None, None),
        )
        if value not in (None, usual)
    ]
    if asked:
        name = starter.info["starter"]["name"]
        return replace(published, note=f"the starter model {name} is not used, because of {', '.join(asked)}")
    note = "begins with a starter model, as none was trained yet (--conf starter off keeps it away)"
    return Published(starter.path, starter.task, starter.info, is_offered=True, note=note)
