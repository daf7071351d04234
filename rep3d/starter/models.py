"""The starter models that are there, and which one fits a server's labels."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rep3d.checkpoint import load_checkpoint, read_checkpoint_task
from rep3d.errors import CheckpointError
from rep3d.starter.facts import is_starter
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.registry import same_modality

__all__ = ["FOLDER", "Starter", "matching_starter", "starters"]

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
"""Where those that come with Rep3D are. Until one was trained (``scripts/make_starter.py``) there is none."""


@dataclass(frozen=True)
class Starter:
    """A starter model.

    Attributes:
        path: its checkpoint; the model card lies beside it, with the ending ``.md``.
        task: what it is for.
        info: its facts, see :class:`rep3d.checkpoint.Checkpoint` and :mod:`rep3d.starter.facts`.
    """

    path: Path
    task: TaskConfig
    info: dict[str, Any]

    @property
    def trained_on(self) -> frozenset[str]:
        """Ids of the cases that it was trained on."""
        return frozenset([*self.info.get("trained_on", []), *self.info.get("cases", [])])


def starters(folder: Path = FOLDER) -> list[Starter]:
    """Return the starter models of a folder, by name; files that are none, or damaged, are left out, and logged."""
    found = []
    for path in sorted(folder.glob("*.pt")):
        try:
            task, info = read_checkpoint_task(path)
        except CheckpointError as error:
            logger.error("a starter model is not offered: %s", error)
            continue
        if is_starter(info):
            found.append(Starter(path, task, info))
        else:
            logger.warning("%s is no starter model: it does not say which data it was made of.", path)
    return found


def matching_starter(labels: Collection[str], modality: str | None = None, folder: Path = FOLDER) -> Starter | None:
    """Return the starter model with just these labels, or None.

    Args:
        labels: names; voxel values do not matter.
        modality: ``"CT"``, ``"MRI"``, ... of the images, if known; a model for another one does not match.
        folder: where to look.
    """
    for starter in starters(folder):
        if set(starter.task.labels) == set(labels) and same_modality(modality, starter.task.modality):
            try:
                load_checkpoint(starter.path)
            except CheckpointError as error:
                logger.error("a starter model is not offered: %s", error)
                continue
            return starter
    return None
