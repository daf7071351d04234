"""Which cases models were trained on: told by the images' voxels, and by names where a model file knows no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rep3d.data.cases import Case
from rep3d.errors import Rep3DError
from rep3d.imaging.marks import image_mark
from rep3d.starter.images import starter_images

__all__ = ["Seen"]


class Seen:
    """What models were trained on.

    Args:
        infos: what each model file says of its training.

    Attributes:
        known: whether each says it.
    """

    def __init__(self, infos: Iterable[Mapping[str, Any]]) -> None:
        self.known = True
        self._names: set[str] = set()
        self._names_alone: set[str] = set()  # of those whose images are not known
        self._marks: set[str] = set()
        self._copies: list[str] = []
        self._namesakes: list[str] = []
        for info in infos:
            names = info.get("trained_on", info.get("cases"))
            marks = {**starter_images(info), **info.get("images", {})}
            self.known &= names is not None
            self._names.update(names or ())
            self._names_alone.update({*(names or ())} - {*marks})
            self._marks.update(*marks.values())

    def __call__(self, case: Case) -> bool:
        """Return whether a model was trained on a case; its image is read where that tells more than its name."""
        named = case.id in self._names
        if case.id in self._names_alone or not self._marks:
            return named
        try:
            seen = image_mark(case.channels) in self._marks
        except Rep3DError:
            return named
        if seen != named:
            (self._copies if seen else self._namesakes).append(case.id)
        return seen

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of the cases asked for, in sentences."""
        found = []
        if self._names_alone:
            found.append(
                f"Of {len(self._names_alone)} cases that were trained on only the names are known: under another name "
                f"such an image counts as new."
            )
        if self._copies:
            found.append(f"Trained on under other names, by their images: {', '.join(self._copies)}.")
        if self._namesakes:
            found.append(
                f"Called like cases that were trained on, with other images, so they count as new: "
                f"{', '.join(self._namesakes)}."
            )
        return tuple(found)
