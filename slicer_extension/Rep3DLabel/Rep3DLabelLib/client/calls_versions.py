"""Calls about the versions of a model: list, publish, roll back."""

from __future__ import annotations

from .answers_versions import Version, parse_version, parse_versions
from .calls_base import Calls, segment_of

__all__ = ["VersionCalls"]


class VersionCalls(Calls):
    """Versions of a model. A model that is None is the server's default one."""

    def versions(self, model: str | None = None) -> tuple[Version, ...]:
        """List the versions, oldest first, with their scores and what was decided about each."""
        return parse_versions(self._transport.get_json(f"{self._model_path(model)}/versions"))

    def publish(self, model: str | None, version: str, reason: str = "") -> Version:
        """Put a version into use by hand.

        Args:
            model: The model.
            version: Name of the version, such as "v3".
            reason: Kept by the server with the record, at most 500 characters.

        Raises:
            ConflictError: Its weights were deleted, or are damaged.
        """
        path = f"{self._model_path(model)}/versions/{segment_of(version, 'version')}/publish"
        return parse_version(self._post_json(path, self._words(reason)))

    def roll_back(self, model: str | None = None, reason: str = "") -> Version:
        """Put the version back into use that was published before the present one, and return it.

        Raises:
            ConflictError: There is none.
        """
        return parse_version(self._post_json(f"{self._model_path(model)}/rollback", self._words(reason)))

    def _model_path(self, model: str | None) -> str:
        return f"/rep3d/models/{segment_of(self._model(model), 'model')}"

    def _words(self, reason: str) -> dict[str, object]:
        by = {"by": self._client_id} if self._client_id else {}
        return {**by, "reason": reason}
