"""Calls about cases: what is known of each, who works on it, its earlier labels, reviews."""

from __future__ import annotations

from ..errors import NotFoundError
from .answers import SubmittedLabel, parse_submitted
from .answers_cases import Case, HistoryEntry, Lease, parse_case, parse_cases, parse_history, parse_lease
from .calls_base import Calls, segment_of

__all__ = ["CaseCalls"]


class CaseCalls(Calls):
    """Cases."""

    def cases(self, model: str | None = None) -> tuple[Case, ...]:
        """List all cases by id, with the scores of a model (None: of the server's default one)."""
        return parse_cases(self._transport.get_json("/rep3d/cases", {} if model is None else {"model": model}))

    def history(self, image_id: str) -> tuple[HistoryEntry, ...]:
        """List the current label of an image, then the earlier ones, the latest first."""
        return parse_history(self._transport.get_json(f"{_case_path(image_id)}/history"))

    def restore(self, image_id: str, entry: str) -> SubmittedLabel:
        """Make an earlier label the current one again; the present one goes into the history.

        Args:
            image_id: The image.
            entry: Name of the earlier label in the history.

        Raises:
            ConflictError: The image is reserved for somebody else.
        """
        path = f"{_case_path(image_id)}/history/{segment_of(entry, 'label in the history')}/restore"
        return parse_submitted(self._post_json(path, self._who()), image_id)

    def review(self, image_id: str) -> Case:
        """Record that the current label of an image was reviewed.

        Raises:
            ConflictError: It has no final label.
        """
        return parse_case(self._post_json(f"{_case_path(image_id)}/review", self._who()))

    def take_review_back(self, image_id: str) -> Case:
        """Take the review of a label back.

        Raises:
            NotFoundError: There is no such image, or no review.
        """
        return parse_case(self._delete_json(f"{_case_path(image_id)}/review"))

    def take_lease(self, image_id: str) -> Lease:
        """Keep an image from being given to others, or prolong that.

        Raises:
            ConflictError: It is reserved for somebody else.
        """
        return parse_lease(self._post_json(f"/rep3d/leases/{segment_of(image_id, 'image')}", self._who()))

    def release_lease(self, image_id: str) -> bool:
        """Give an image back, so that others may get it; return False if it was not reserved.

        The server without keys does not check whose lease it is: release only what this client has taken.

        Raises:
            NotAllowedError: It is reserved for somebody else.
        """
        try:
            self._delete_json(f"/rep3d/leases/{segment_of(image_id, 'image')}")
        except NotFoundError:
            return False
        return True


def _case_path(image_id: str) -> str:
    return f"/rep3d/cases/{segment_of(image_id, 'image')}"
