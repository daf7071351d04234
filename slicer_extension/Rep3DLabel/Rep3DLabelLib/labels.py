"""The labels of a model, and which segment is which label.

Segment order, segment ids and voxel values inside Slicer say nothing about classes. Each segment that comes from the
server carries the server's name of its label in a tag; a segment that the user added is known by its name. Where tag
and name contradict each other, nobody guesses: the user is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["LABEL_TAG", "Assignment", "Code", "Label", "SegmentName", "assign", "plain_name", "segment_id"]

LABEL_TAG = "Rep3DLabel.Label"  # tag of a segment: the server's name of its label


@dataclass(frozen=True)
class Code:
    """A term of a terminology such as SNOMED CT: code, scheme, and meaning in words."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Label:
    """A label of a model.

    Attributes:
        name, value: Its name, and the value of its voxels in label maps.
        colour: Red, green, blue from 0 to 255; None if the server gives none.
        category, type, modifier, region: What it stands for; None where there is no code.
    """

    name: str
    value: int
    colour: tuple[int, int, int] | None = None
    category: Code | None = None
    type: Code | None = None
    modifier: Code | None = None
    region: Code | None = None


@dataclass(frozen=True)
class SegmentName:
    """A segment as far as its meaning goes: its id, its name as shown, and its tag ("" if it has none)."""

    id: str
    name: str
    label: str = ""


@dataclass(frozen=True)
class Assignment:
    """What the segments of a segmentation mean.

    Attributes:
        values: Segment id -> voxel value on the server, for the segments that are labels of the model.
        unknown: Segments that are none of the model's labels.
        conflicts: Segments made for one label and renamed to another one.
    """

    values: Mapping[str, int] = field(default_factory=dict)
    unknown: tuple[SegmentName, ...] = ()
    conflicts: tuple[SegmentName, ...] = ()

    @property
    def problems(self) -> tuple[SegmentName, ...]:
        """The segments that a label map would leave out or could get wrong."""
        return self.conflicts + self.unknown


def segment_id(value: int) -> str:
    """Return the id that a segment made for a label has, whatever its place in the list."""
    return f"rep3d_{value}"


def assign(segments: Iterable[SegmentName], labels: Mapping[str, int]) -> Assignment:
    """Find out which segment is which label.

    Args:
        segments: In the order of the list.
        labels: Label name -> voxel value on the server.
    """
    by_name = {plain_name(name): name for name in labels}
    values: dict[str, int] = {}
    unknown, conflicts = [], []
    for segment in segments:
        named = by_name.get(plain_name(segment.name))
        tagged = segment.label if segment.label in labels else None
        if tagged and named and named != tagged:
            conflicts.append(segment)
        elif tagged or named:
            values[segment.id] = labels[tagged or named or ""]
        else:
            unknown.append(segment)
    return Assignment(values, tuple(unknown), tuple(conflicts))


def plain_name(name: str) -> str:
    """Return a name without what does not tell labels apart: capitals and the number of spaces."""
    return " ".join(name.split()).casefold()
