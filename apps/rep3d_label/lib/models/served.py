"""A model that this server serves: its settings, its published checkpoint, its versions."""

from __future__ import annotations

from dataclasses import dataclass

from lib.boot.published import damaged_checkpoint
from lib.boot.setup import ModelSetup
from lib.models.published import PublishedModel
from rep3d.checkpoint import load_checkpoint
from rep3d.errors import CheckpointError
from rep3d.versions.store import VersionStore

__all__ = ["ServedModel"]


@dataclass(frozen=True)
class ServedModel:
    """One served model.

    Attributes:
        setup: its labels, task and place.
        published: the checkpoint that answers requests.
        versions: all that were made.
    """

    setup: ModelSetup
    published: PublishedModel
    versions: VersionStore

    @property
    def name(self) -> str:
        """Its name in addresses."""
        return self.setup.name

    def load(self) -> None:
        """Make the published model ready, so that the first request does not wait for it.

        Raises:
            StartupError: if it cannot be used.
        """
        try:
            if self.published.path.exists():
                head = self.setup.head
                if head and not head.kept:
                    load_checkpoint(self.published.path)  # it answers nothing, but the next training begins from it
                else:
                    self.published.predictor()
        except CheckpointError as error:
            raise damaged_checkpoint(self.published.path, error) from error

    def begin(self) -> None:
        """Take in a checkpoint that was put there, or where nothing was trained a starter model."""
        self.versions.adopt()
        if self.setup.starter and self.versions.begin_with(self.setup.starter):
            self.load()
