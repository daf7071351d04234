"""A model that this server serves: its settings, its published checkpoint, its versions."""

from __future__ import annotations

from dataclasses import dataclass

from lib.boot.setup import ModelSetup
from lib.models.published import PublishedModel
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
