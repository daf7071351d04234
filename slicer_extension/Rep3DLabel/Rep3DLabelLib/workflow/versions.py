"""The versions of the chosen model: list, publish, roll back."""

from __future__ import annotations

from ..client.answers_versions import Version
from ..i18n import tr
from ..view import INFO
from .context import Context
from .presenting import version_rows

__all__ = ["Versions"]


class Versions:
    """Versions of the chosen model."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def read(self) -> None:
        """List them anew."""
        context = self._context
        model = context.view.model

        def done(versions: tuple[Version, ...]) -> None:
            if model == context.view.model:
                context.update(versions=version_rows(versions))

        context.background("versions", {"model": model}, done)

    def publish(self, version: str) -> None:
        """Put a version into use."""
        if not self._context.refused("publish"):
            args = {"model": self._context.view.model, "version": version, "reason": tr("published from 3D Slicer")}
            self._context.once("publish", args, self._published)

    def roll_back(self) -> None:
        """Put the version that was in use before back into use."""
        if not self._context.refused("roll_back"):
            args = {"model": self._context.view.model, "reason": tr("rolled back from 3D Slicer")}
            self._context.once("roll_back", args, self._published)

    def _published(self, version: Version) -> None:
        self._context.say(INFO, tr("Version {version} is in use now.").format(version=version.version))
        self.read()
