"""What a segmentation task is: its labels, their meaning, spacing, intensity and orientation, defined once.

Training, inference, evaluation, the server and the clients all read this one definition, and a checkpoint carries it,
so that a model never meets images prepared in another way than those it learned from. No torch here: a table of tasks
must be cheap to read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rep3d.errors import TaskError
from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json

__all__ = [
    "Channel",
    "Code",
    "Intensity",
    "TaskConfig",
    "Term",
    "check_spacing",
    "labels_from_dataset_json",
    "modality_from_dataset_json",
]

_AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
_NEW = ("channels", "ignore")  # not written where they say nothing, so that earlier releases read it
_TERM_CODES = ("category", "type", "modifier", "region")


@dataclass(frozen=True)
class Intensity:
    """How voxel values become network inputs.

    Attributes:
        mode: ``"window"`` maps the values ``low`` .. ``high`` (HU, say) to 0 .. 1 and clips; ``"zscore"`` clips to the
            image's own percentiles ``low`` .. ``high`` and brings the rest to mean 0 and standard deviation 1, for
            images without calibrated values such as MR.
        low: lower end, an intensity or a percentile.
        high: upper end, an intensity or a percentile.
    """

    mode: str = "zscore"
    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if self.mode not in ("window", "zscore"):
            raise TaskError(f"intensity mode: expected 'window' or 'zscore', got {self.mode!r}")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise TaskError(f"intensity range: expected finite low < high, got {self.low!r} .. {self.high!r}")
        if self.mode == "zscore" and not (self.low >= 0 and self.high <= 100):
            raise TaskError(f"intensity percentiles: expected 0 to 100, got {self.low!r} .. {self.high!r}")


@dataclass(frozen=True)
class Channel:
    """One of several channels of an image.

    Attributes:
        name: such as ``"T1"``.
        intensity: how its voxel values are scaled.
    """

    name: str
    intensity: Intensity

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise TaskError(f"channel name: expected a non-empty text, got {self.name!r}")


@dataclass(frozen=True)
class Code:
    """A coded concept, as DICOM and 3D Slicer's terminologies write it.

    Attributes:
        value: the code, such as ``"10200004"``.
        scheme: who defines it, such as ``"SCT"`` (SNOMED CT).
        meaning: what it means, for people.
    """

    value: str
    scheme: str
    meaning: str

    def __post_init__(self) -> None:
        for name in ("value", "scheme", "meaning"):
            text = getattr(self, name)
            if not isinstance(text, str) or not text.strip():
                raise TaskError(f"code {name}: expected a non-empty text, got {text!r}")


@dataclass(frozen=True)
class Term:
    """What a label stands for, and how it is shown.

    Attributes:
        colour: red, green, blue from 0 to 255.
        category: kind of thing, such as "Anatomical Structure"; None where no code says what the label is.
        type: the thing itself, such as "Liver".
        modifier: which of several, such as "Left".
        region: where it is, for things that occur in many places, such as a tumour.
    """

    colour: tuple[int, int, int]
    category: Code | None = None
    type: Code | None = None
    modifier: Code | None = None
    region: Code | None = None

    def __post_init__(self) -> None:
        colour = tuple(self.colour)
        whole = all(isinstance(part, int) and not isinstance(part, bool) for part in colour)
        if len(colour) != 3 or not whole or not all(0 <= part <= 255 for part in colour):
            raise TaskError(f"term colour: expected red, green, blue from 0 to 255, got {self.colour!r}")
        object.__setattr__(self, "colour", colour)
        if (self.category is None) != (self.type is None):
            raise TaskError(f"term: expected both category and type or neither, got {self.category} and {self.type}")
        if self.type is None and (self.modifier or self.region):
            raise TaskError(f"term: expected a type beside a modifier or a region, got {self.modifier or self.region}")

    @property
    def codes(self) -> dict[str, Code]:
        """The codes that are given, under their names here."""
        found = {name: getattr(self, name) for name in _TERM_CODES}
        return {name: code for name, code in found.items() if code is not None}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; codes that are not given are left out."""
        return {"colour": list(self.colour), **{name: asdict(code) for name, code in self.codes.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Term:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            TaskError: if the colour or a code is impossible.
            KeyError, TypeError: if a field is missing or unknown.
        """
        codes = {name: Code(**code) for name, code in values.items() if name != "colour"}
        return cls(tuple(values["colour"]), **codes)


@dataclass(frozen=True)
class TaskConfig:
    """One segmentation task.

    Attributes:
        name: short name, such as ``"msd_hippocampus"``.
        labels: foreground label name to voxel value in label files, such as ``{"Anterior": 1, "Posterior": 2}``. Values
            are positive and distinct but need not be contiguous; background is 0 and is not listed.
        spacing: voxel size in mm of the grid the network works on, along R, A, S of ``orientation``.
        intensity: how voxel values are scaled; of several channels, those of the first one.
        orientation: axis codes of the grid the network works on, such as ``"RAS"``.
        roi_size: side lengths in voxels (D, H, W) of training patches and of the sliding window.
        description: one line for people.
        terms: label name to what it stands for; labels may be without.
        modality: ``"CT"``, ``"MRI"`` or ``""`` where unknown.
        channels: of images with several, in their order; none for images with one.
        ignore: voxel value in label files of which nothing is known: such voxels are neither trained nor measured on.
            None where there is none, and such a value is refused like any other unexpected one.
    """

    name: str
    labels: Mapping[str, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    intensity: Intensity = field(default_factory=Intensity)
    orientation: str = "RAS"
    roi_size: tuple[int, int, int] = (96, 96, 96)
    description: str = ""
    terms: Mapping[str, Term] = field(default_factory=dict)
    modality: str = ""
    channels: tuple[Channel, ...] = ()
    ignore: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", dict(_checked_labels(self.labels)))
        object.__setattr__(self, "spacing", tuple(float(s) for s in self.spacing))
        object.__setattr__(self, "roi_size", tuple(int(s) for s in self.roi_size))
        if not self.name:
            raise TaskError("task name: expected a non-empty name, got ''")
        check_spacing(self.spacing)
        if sorted(_AXES.get(c, -1) for c in self.orientation) != [0, 1, 2]:
            raise TaskError(f"task orientation: expected three axis codes such as 'RAS', got {self.orientation!r}")
        if len(self.roi_size) != 3 or not all(s > 0 for s in self.roi_size):
            raise TaskError(f"task roi_size: expected three positive voxel counts, got {self.roi_size!r}")
        object.__setattr__(self, "channels", tuple(self.channels))
        if len(self.channels) == 1 or not all(isinstance(channel, Channel) for channel in self.channels):
            raise TaskError(f"task channels: expected two Channels or more, or none for one, got {self.channels!r}")
        if self.channels:
            object.__setattr__(self, "intensity", self.channels[0].intensity)
        if self.ignore is not None and (
            isinstance(self.ignore, bool) or not isinstance(self.ignore, int) or not 1 <= self.ignore <= 65535
        ):
            raise TaskError(f"task ignore: expected a voxel value from 1 to 65535, got {self.ignore!r}")
        if self.ignore in self.labels.values():
            raise TaskError(f"task ignore: expected a voxel value that no label has, got {self.ignore}")
        object.__setattr__(self, "terms", dict(self.terms))
        strangers = sorted(set(self.terms) - set(self.labels))
        if strangers or not all(isinstance(term, Term) for term in self.terms.values()):
            raise TaskError(f"task terms: expected a Term for some of {list(self.labels)}, got {dict(self.terms)!r}")

    def with_labels(self, labels: Mapping[str, int]) -> TaskConfig:
        """Return the same task for other labels; the terms of those that stay are kept."""
        return replace(self, labels=labels, terms={name: term for name, term in self.terms.items() if name in labels})

    @property
    def label_names(self) -> tuple[str, ...]:
        """Foreground label names in the order of the network's output channels 1, 2, ... (by voxel value)."""
        return tuple(sorted(self.labels, key=lambda name: self.labels[name]))

    @property
    def label_values(self) -> tuple[int, ...]:
        """Voxel values in the order of :attr:`label_names`."""
        return tuple(self.labels[name] for name in self.label_names)

    @property
    def intensities(self) -> tuple[Intensity, ...]:
        """How the voxel values of each channel are scaled."""
        return tuple(channel.intensity for channel in self.channels) or (self.intensity,)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of an image's channels, in their order; none where there is one."""
        return tuple(channel.name for channel in self.channels)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return len(self.intensities)

    @property
    def out_channels(self) -> int:
        """Output channels of a network for this task: the labels and background."""
        return len(self.labels) + 1

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; channels and the value to ignore only where there are any."""
        lists = {"spacing": list(self.spacing), "roi_size": list(self.roi_size)}
        found = {**asdict(self), **lists, "terms": {name: term.to_dict() for name, term in self.terms.items()}}
        found["channels"] = list(found["channels"])
        return {name: value for name, value in found.items() if name not in _NEW or value not in ([], None)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TaskConfig:
        """Return the inverse of :meth:`to_dict`; ``terms``, ``modality``, ``channels`` and ``ignore`` may be absent.

        Raises:
            TaskError: if a field is missing, unknown or impossible.
        """
        try:
            fields = dict(values)
            fields["intensity"] = Intensity(**fields["intensity"])
            fields["spacing"] = tuple(fields["spacing"])
            fields["roi_size"] = tuple(fields["roi_size"])
            fields["channels"] = tuple(
                Channel(channel["name"], Intensity(**channel["intensity"])) for channel in fields.get("channels", ())
            )
            fields["terms"] = {name: Term.from_dict(term) for name, term in fields.get("terms", {}).items()}
            return cls(**fields)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TaskError(f"task: expected the fields of TaskConfig, got {values!r} ({error})") from error


def check_spacing(spacing: Sequence[float]) -> None:
    """Refuse (TaskError) what is no size of a voxel."""
    if len(spacing) != 3 or not all(math.isfinite(side) and side > 0 for side in spacing):
        raise TaskError(f"task spacing: expected three positive lengths in mm, got {spacing!r}")


def _checked_labels(labels: Mapping[str, int]) -> dict[str, int]:
    if not labels:
        raise TaskError("A task needs at least one label beside the background.")
    for name, value in labels.items():
        if not isinstance(name, str) or not name.strip():
            raise TaskError(f"task labels: expected non-empty names, got {name!r}")
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
            raise TaskError(f"task label {name!r}: expected a voxel value from 1 to 65535, got {value!r}")
    if len(set(labels.values())) != len(labels):
        raise TaskError(f"task labels: expected distinct voxel values, got {dict(labels)!r}")
    return dict(labels)
