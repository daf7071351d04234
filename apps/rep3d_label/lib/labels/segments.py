"""The segments that a file names, and its layers of voxels, made one label map in which each name has one value.

What a file says of its own values is believed or refused, never half: a voxel that no segment names would else get the
server's own meaning of its value, which may be another organ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from rep3d.errors import LabelError
from rep3d.imaging.labels import label_counts
from rep3d.imaging.values import LARGEST_VALUE

__all__ = ["Segment", "one_map"]


@dataclass(frozen=True)
class Segment:
    """A named part of a segmentation: the voxels of one layer that have one value."""

    name: str
    layer: int
    value: int


def one_map(
    layers: Sequence[np.ndarray], segments: Sequence[Segment], file: str
) -> tuple[np.ndarray, dict[str, int], list[str]]:
    """Return the label map that some segments are.

    Args:
        layers: (X, Y, Z) voxel values, of one shape.
        segments: what they mean.
        file: the file's name, for messages.

    Returns:
        The label map; name to value in it, of the segments that have voxels: the file's own value, where no other name
        has it; the names whose voxels had several values or layers.

    Raises:
        LabelError: if voxels have no name or two, or segments of different names overlap.
    """
    counts = [label_counts(layer) for layer in layers]
    meaning = _meaning(segments, len(layers), file)
    for number, found in enumerate(counts):
        nameless = {value: voxels for value, voxels in found.items() if value and (number, value) not in meaning}
        if nameless:
            value, voxels = next(iter(nameless.items()))
            raise LabelError(
                f"{file} has {voxels} voxels with the value {value}{_place(number, layers)} that no segment names. Its "
                f"segments are {_listed(meaning, layers)}. Save it again in the program that drew it."
            )
    places: dict[str, list[tuple[int, int]]] = {}
    for place, name in meaning.items():
        if place[1] in counts[place[0]]:
            places.setdefault(name, []).append(place)
    values = _one_value_each(places)
    result = np.zeros(layers[0].shape, np.uint16)
    for number, (layer, found) in enumerate(zip(layers, counts, strict=True)):
        table = np.zeros(max(found) + 1, np.uint16)
        for value in set(found) - {0}:
            table[value] = values[meaning[number, value]]
        drawn = table[layer]
        both = (drawn != 0) & (result != 0) & (drawn != result)
        if both.any():
            names = {value: name for name, value in values.items()}
            first, second = names[int(result[both][0])], names[int(drawn[both][0])]
            raise LabelError(
                f"{file} has segments that overlap, such as {first!r} and {second!r} ({int(both.sum())} voxels in "
                f"all); a label map has one label for each voxel. Take the overlap away from one of them."
            )
        np.maximum(result, drawn, out=result)
    return result, values, sorted(name for name, own in places.items() if len(own) > 1)


def _meaning(segments: Sequence[Segment], layers: int, file: str) -> dict[tuple[int, int], str]:
    """Return the name of each layer's values."""
    meaning: dict[tuple[int, int], str] = {}
    for segment in segments:
        if not 0 <= segment.layer < layers:
            raise LabelError(
                f"{file} says that segment {segment.name!r} is in layer {segment.layer}, but has only the layers 0 to "
                f"{layers - 1}. Save it again in the program that drew it."
            )
        if segment.value == 0 and segment.name.casefold() == "background":
            continue
        if not 1 <= segment.value <= LARGEST_VALUE:
            raise LabelError(
                f"{file} has the voxel value {segment.value} for {segment.name!r}; expected one from 1 to "
                f"{LARGEST_VALUE}, since 0 is for the background. Save it again with another value."
            )
        other = meaning.setdefault((segment.layer, segment.value), segment.name)
        if other != segment.name:
            raise LabelError(
                f"{file} has two names for the voxel value {segment.value}, {other!r} and {segment.name!r}. Give each "
                f"its own value."
            )
    return meaning


def _one_value_each(places: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    values: dict[str, int] = {}
    for name, own in places.items():
        free = [value for _, value in own if value not in values.values()]
        values[name] = free[0] if free else next(value for value in count(1) if value not in values.values())
    return values


def _place(number: int, layers: Sequence[np.ndarray]) -> str:
    return f" in layer {number}" if len(layers) > 1 else ""


def _listed(meaning: dict[tuple[int, int], str], layers: Sequence[np.ndarray]) -> str:
    return ", ".join(f"{name} {value}{_place(layer, layers)}" for (layer, value), name in meaning.items()) or "none"
