"""What was measured of single cases, kept as it comes: a line of JSON each, in a file that only grows.

A stop, a kill or a power cut costs the case at hand and no other. A line counts as long as all that it was measured on
is the same, to the byte: the model, the image, the label, the prediction, and what was asked for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rep3d.evaluation.scoring import LabelScore

__all__ = ["Record", "Records"]


@dataclass(frozen=True)
class Record:
    """What was measured of a case.

    Attributes:
        model: what tells the model from all others; see :func:`rep3d.evaluation.measuring.model_identity`.
        case: its id.
        image: SHA-256 of the image's files; empty where predictions were given, which no image is read for.
        label: SHA-256 of the label file.
        prediction: SHA-256 of the predicted label map's file.
        labels: label name to voxel value, of those that were annotated.
        tolerance_mm: of the surface Dice.
        scores: label name to its scores.
        ignore: value in the label file of which nothing is known.
        others: values that the maps may have beside those; None in records of releases that did not look.
    """

    model: str
    case: str
    image: str
    label: str
    prediction: str
    labels: dict[str, int]
    tolerance_mm: float
    scores: dict[str, LabelScore]
    ignore: int | None = None
    others: list[int] | None = None

    def same_measured(self, other: Record) -> bool:
        """Return whether another one was measured on the same."""
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self) if f.name != "scores")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "scores": {name: score.to_dict() for name, score in self.scores.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: if it is not one.
        """
        scores = {name: LabelScore.from_dict(score) for name, score in values["scores"].items()}
        return cls(**{**values, "scores": scores})


class Records:
    """The file.

    Attributes:
        damaged: how many of its lines are no records, such as one that a kill cut off. What they told is measured anew.

    Args:
        path: where it is; it may not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = 0
        self._known: dict[str, list[Record]] = {}
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b""
        self._torn = bool(content) and not content.endswith(b"\n")
        for line in content.splitlines():
            try:
                record = Record.from_dict(json.loads(line))
            except (AttributeError, KeyError, TypeError, ValueError):
                self.damaged += 1
            else:
                self._known.setdefault(record.case, []).append(record)

    @property
    def models(self) -> set[str]:
        """The models that it has records of."""
        return {record.model for records in self._known.values() for record in records}

    def of(self, case: str) -> list[Record]:
        """Return what was measured of a case, the latest first."""
        return self._known.get(case, [])[::-1]

    def add(self, record: Record) -> None:
        """Append a record, and bring it to the disk."""
        line = json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False)
        with self.path.open("ab") as file:
            file.write(f"{chr(10) if self._torn else ''}{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self._torn = False
        self._known.setdefault(record.case, []).append(record)
