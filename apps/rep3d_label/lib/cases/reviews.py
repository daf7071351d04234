"""Which labels a second person has looked at and found right.

A review belongs to a label's content: a new submission, or a file that is changed by hand, has none.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from lib.paths import utc_now
from rep3d.json_file import JsonFile, json_object

__all__ = ["Reviews"]


class Reviews:
    """All reviews, in one file. Safe to use from several threads.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        lost = "which labels were reviewed, and by whom: all count as not reviewed"
        self._file: JsonFile[dict[str, dict[str, Any]]] = JsonFile(path, _parsed, lost, dict, begins_anew=True)
        self._guard = threading.RLock()
        self._reviews = self._file.read()

    def of(self, image: str, digest: str | None) -> dict[str, Any] | None:
        """Return the review (``user``, ``time``, ``remark``) of an image's label, or None.

        Args:
            image: the image's id.
            digest: digest of the label as it is now; None where it is not known.
        """
        with self._guard:
            review = self._reviews.get(image)
        if review is None or digest is None or review.get("digest") != digest:
            return None
        return {key: review.get(key) for key in ("user", "time", "remark")}

    def add(self, image: str, digest: str, user: str | None, remark: str | None = None) -> None:
        """Record that a label was reviewed, now."""
        with self._guard:
            self._reviews[image] = {"user": user, "time": utc_now(), "digest": digest, "remark": remark}
            self._file.write(self._reviews)

    def remove(self, image: str) -> bool:
        """Take a review back; whether there was one."""
        with self._guard:
            if self._reviews.pop(image, None) is None:
                return False
            self._file.write(self._reviews)
            return True


def _parsed(content: Any) -> dict[str, dict[str, Any]]:
    return {image: json_object(review, digest=str) for image, review in json_object(content).items()}
