"""What a client takes for granted when it submits a label: the image that it was drawn on, the label that it replaces.

Both may have become others while somebody drew. Whoever says what is expected is told, instead of storing one image's
label with another, or replacing a label that nobody has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.channels import Channels
from lib.errors import ImageReplacedError, LabelReplacedError, RequestError

__all__ = ["Expected", "image_mark"]


def image_mark(image: Path, channels: Channels) -> str:
    """Return what becomes another text when one of an image's files does; it is cheap, and tells no voxels."""
    return "-".join(f"{number:x}" for number in channels.stamp(image))


@dataclass(frozen=True)
class Expected:
    """What a client expects.

    Attributes:
        drawn_on: mark of the image that the label was drawn on, see :func:`image_mark`; None: not said.
        replaces: ``time`` and ``submission`` of the label that is there, as a case says them; empty where there should
            be none; None: not said.
    """

    drawn_on: str | None = None
    replaces: Mapping[str, Any] | None = None

    @classmethod
    def taken(cls, values: dict[str, Any]) -> Expected:
        """Take it out of what came with a label; RequestError for anything else."""
        drawn_on, replaces = values.pop("drawn_on", None), values.pop("replaces", None)
        if not isinstance(drawn_on, str | None):
            raise RequestError(f"drawn_on must be the mark that came with the image, not {str(drawn_on)[:200]!r}.")
        if not isinstance(replaces, dict | None):
            raise RequestError(f"replaces must be a JSON object with time and submission, not {str(replaces)[:200]!r}.")
        return cls(drawn_on, replaces)

    def check(self, image_id: str, mark: str, label: Mapping[str, Any] | None) -> None:
        """Compare with what is there.

        Args:
            image_id: the image's id.
            mark: what it has now, see :func:`image_mark`.
            label: the facts about its label; None without one.

        Raises:
            ImageReplacedError, LabelReplacedError: if it is another.
        """
        if self.drawn_on is not None and self.drawn_on != mark:
            raise ImageReplacedError(
                f"The file of image {image_id} was changed or replaced after this label was begun, so nothing was "
                f"stored. Open the image again and look whether the label still belongs to it."
            )
        found = {} if label is None else {key: label.get(key) for key in ("time", "submission")}
        if self.replaces is not None and dict(self.replaces) != found:
            raise LabelReplacedError(
                f"Somebody changed the label of image {image_id} meanwhile, so nothing was stored. Look at the label "
                f"that is there now, then submit yours again."
            )
