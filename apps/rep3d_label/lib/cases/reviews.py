"""Which labels a second person has looked at and found right.

A review belongs to a label's content: a new submission, or a file that is changed by hand, has none.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from lib.paths import read_json, utc_now, write_text

__all__ = ["Reviews"]


class Reviews:
    """All reviews, in one file. Safe to use from several threads.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._guard = threading.RLock()
        self._reviews: dict[str, dict[str, Any]] = {k: v for k, v in read_json(path).items() if isinstance(v, dict)}

    def of(self, image: str, digest: str | None) -> dict[str, Any] | None:
        """The review (``user``, ``time``) of an image's label, or None.

        Args:
            image: the image's id.
            digest: digest of the label as it is now; None where it is not known.
        """
        with self._guard:
            review = self._reviews.get(image)
        if review is None or digest is None or review.get("digest") != digest:
            return None
        return {"user": review.get("user"), "time": review.get("time")}

    def add(self, image: str, digest: str, user: str | None) -> None:
        """Records that a label was reviewed, now."""
        with self._guard:
            self._reviews[image] = {"user": user, "time": utc_now(), "digest": digest}
            self._save()

    def remove(self, image: str) -> bool:
        """Takes a review back; whether there was one."""
        with self._guard:
            if self._reviews.pop(image, None) is None:
                return False
            self._save()
            return True

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, json.dumps(self._reviews, indent=2))
