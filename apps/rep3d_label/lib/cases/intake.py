"""Taking labels in: what happens when one is accepted, whichever way it came.

A label comes as a file, as voxels, or out of the history. Who has the image reserved is asked first; the rest follows
when it is stored, and cannot make it unstored.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from lib.cases.leases import LeaseBook
from lib.cases.reviews import Reviews
from lib.storage.datastore import Submission
from lib.storage.entries import FINAL

__all__ = ["LabelIntake"]

logger = logging.getLogger(__name__)


class LabelIntake:
    """Stores labels, and does what follows from that.

    Args:
        leases: who works on what.
        reviews: which labels were reviewed.
        count: counts a person's label for the training that may start by itself.
    """

    def __init__(self, leases: LeaseBook, reviews: Reviews, count: Callable[[Submission], None]) -> None:
        self._leases = leases
        self._reviews = reviews
        self._count = count

    def take(
        self, image: str, tag: str, names: Collection[str], override: bool, store: Callable[[], Submission]
    ) -> Submission:
        """Store a label. A person's one ends the lease, makes an earlier review void, and counts for training.

        Args:
            image: the image's id.
            tag: the label's tag; only ``"final"`` is a person's.
            names: all names of who sends it, see :class:`lib.api.annotators.Annotator`.
            override: store it although the image may be reserved for somebody else, whose lease then ends, too.
            store: checks the label and stores it.

        Raises:
            ReservedError: if the image is reserved for somebody else.
        """
        if tag != FINAL:
            return store()
        overridden = self._leases.holder(image) if override else None
        if not override:
            self._leases.check(image, names)
        accepted = store()
        # Not a lease that somebody else took while the label was being received.
        ending = {*names, overridden.user} if overridden else names
        self._follow(lambda: self._leases.release(image, ending))
        if not accepted.duplicate:
            self._follow(lambda: self._reviews.remove(image))
            self._follow(lambda: self._count(accepted))
        return accepted

    def _follow(self, what: Callable[[], object]) -> None:
        try:
            what()
        except Exception:  # the label is stored: that must not look like a failure
            logger.exception("a label was stored, but not all that follows from it was done")
