"""From segments to one label map: what is drawn where, what overlaps, and what each label measures.

A label map holds one value per voxel, segments may overlap: whoever flattens them without saying so loses voxels in
silence. So overlaps between different labels are counted here before anything is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from .grids import index_map, reorder
from .segnrrd import SegmentationData

__all__ = ["Composed", "Overlap", "compose", "on_grid"]

_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True)
class Overlap:
    """Voxels that two segments of different labels both claim; the first is the one that keeps them."""

    first: str
    second: str
    voxels: int


@dataclass(frozen=True, eq=False)
class Composed:
    """A label map.

    Attributes:
        label: (K, J, I) voxel values, uint8 or uint16; only the part of the reference grid that is drawn on.
        extent: i0, i1, j0, j1, k0, k1 of the array in the reference grid, both ends included.
        counts: Voxel value -> voxels, for each value asked for.
        overlaps: In the order of the segments.
        outside: Voxels drawn beyond the reference grid, which are left out.
    """

    label: numpy.ndarray
    extent: tuple[int, ...]
    counts: Mapping[int, int]
    overlaps: tuple[Overlap, ...]
    outside: int


def on_grid(data: SegmentationData, affine: numpy.ndarray, shape: Sequence[int], name: str) -> SegmentationData:
    """Return a segmentation in the axis order of another grid with the same voxels, without copying it.

    Args:
        data: The segmentation.
        affine: 4 x 4 matrix of the other grid.
        shape: Its I, J, K.
        name: Its name, for the error.

    Raises:
        BadAnswer: The voxels are not the same.
    """
    way = index_map(data.ijk_to_ras, affine, data.shape, name)
    moved = [reorder(layer, data.extent, way) for layer in data.layers]
    extent = moved[0][1] if moved else (0, -1, 0, -1, 0, -1)
    return SegmentationData(
        tuple(layer for layer, _ in moved),
        extent,
        (int(shape[0]), int(shape[1]), int(shape[2])),
        numpy.asarray(affine),
        data.segments,
    )


def compose(data: SegmentationData, values: Mapping[str, int], priority: Sequence[str]) -> Composed:
    """Flatten segments into one label map.

    Args:
        data: The segmentation.
        values: Segment id -> voxel value, 1 to 65535; segments that are not in it are left out.
        priority: Segment ids; where segments overlap, the one that comes first here keeps the voxel. Segments that are
            not in it come last, in the order of the segment list.

    Raises:
        ValueError: A value is not from 1 to 65535.
    """
    if any(not 1 <= value <= 65535 for value in values.values()):
        raise ValueError(f"Expected voxel values from 1 to 65535, got {dict(values)}.")
    rank = {name: place for place, name in reversed(list(enumerate(priority)))}
    chosen = [segment for segment in data.segments if segment.id in values and segment.layer < len(data.layers)]
    chosen = [segment for segment in chosen if segment.value != 0]  # 0 is background in any layer
    chosen.sort(key=lambda segment: rank.get(segment.id, len(rank)))
    ids = [segment.id for segment in chosen]
    sheets = _sheets(data, [(segment.layer, segment.value) for segment in chosen])
    inside, extent = _inside(data)
    result = numpy.array([0, *(values[name] for name in ids)], numpy.uint16)
    kind = numpy.uint8 if result.max() < 256 else numpy.uint16
    label = numpy.zeros(tuple(part.stop - part.start for part in inside), kind)
    kept = numpy.zeros(len(ids) + 1, numpy.int64)
    pairs: dict[tuple[int, int], int] = {}
    step = max(1, _SLAB_VOXELS // max(1, label[:1].size))
    for first in range(0, len(label), step):
        start = inside[0].start + first
        slab = (slice(start, min(start + step, inside[0].stop)), *inside[1:])
        codes = [code for code in (sheet.read(slab) for sheet in sheets) if code is not None]
        if codes:
            winner = _flatten(codes, result, pairs)
            numpy.take(result.astype(kind), winner, out=label[first : first + step])
            kept += numpy.bincount(winner[winner > 0], minlength=len(kept))
    counts = dict.fromkeys(sorted(set(values.values())), 0)
    for code, voxels in enumerate(kept[1:].tolist(), 1):
        counts[int(result[code])] += voxels
    overlaps = tuple(Overlap(ids[a - 1], ids[b - 1], voxels) for (a, b), voxels in sorted(pairs.items()))
    return Composed(label, extent, counts, overlaps, _outside(sheets, inside))


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A layer, and what its voxel values stand for: 0 for no segment, 1 for the first one, and so on."""

    voxels: numpy.ndarray
    codes: Mapping[int, int]
    kind: type

    def read(self, part: tuple[slice, ...]) -> numpy.ndarray | None:
        """Return a part of the layer as codes, None where nothing is drawn."""
        slab = self.voxels[part]
        if not slab.any():
            return None
        if slab.dtype.itemsize > 2:  # a table of all values would be too long
            found: numpy.ndarray = numpy.zeros(slab.shape, self.kind)
            for value, code in self.codes.items():
                found[slab == value] = code
            return found
        limits = numpy.iinfo(slab.dtype)
        table: numpy.ndarray = numpy.zeros(limits.max - limits.min + 1, self.kind)
        for value, code in self.codes.items():
            if limits.min <= value <= limits.max:
                table[value] = code  # a negative value counts from the end, here and in the look-up
        return numpy.take(table, slab, mode="wrap")


def _sheets(data: SegmentationData, places: Sequence[tuple[int, int]]) -> list[_Sheet]:
    """Return sheets in which each segment, given by layer and value, has a code.

    Two segments with one value in one layer have the same voxels; the second is read from a sheet of its own.
    """
    tables: list[tuple[int, dict[int, int]]] = []
    for code, (layer, value) in enumerate(places, 1):
        free = next((table for of, table in tables if of == layer and value not in table), None)
        if free is None:
            free = {}
            tables.append((layer, free))
        free[value] = code
    kind = numpy.uint8 if len(places) < 256 else numpy.uint16
    return [_Sheet(data.layers[layer], codes, kind) for layer, codes in tables]


def _flatten(codes: Sequence[numpy.ndarray], result: numpy.ndarray, pairs: dict[tuple[int, int], int]) -> numpy.ndarray:
    """Return the lowest code above 0 of each voxel, and add up what overlaps with what."""
    if len(codes) == 1:
        return codes[0]
    one = codes[0].dtype.type(1)
    covered = (codes[0] > 0).astype(numpy.uint8)
    winner = codes[0] - one  # so that 0, which is no segment, becomes the largest number
    for code in codes[1:]:
        covered += code > 0
        winner = numpy.minimum(winner, code - one)
    winner += one
    shared = numpy.flatnonzero(covered > 1)
    if shared.size:
        claims = [code.ravel()[shared].astype(numpy.int32) for code in codes]
        for number, claim in enumerate(claims):
            for other in claims[number + 1 :]:
                both = (claim > 0) & (other > 0) & (result[claim] != result[other])
                low, high = numpy.minimum(claim[both], other[both]), numpy.maximum(claim[both], other[both])
                tally = numpy.bincount(low * len(result) + high)
                for key in numpy.flatnonzero(tally).tolist():
                    pair = divmod(key, len(result))
                    pairs[pair] = pairs.get(pair, 0) + int(tally[key])
    return winner


def _inside(data: SegmentationData) -> tuple[tuple[slice, slice, slice], tuple[int, ...]]:
    """Return the part of the layers inside the reference grid, and its extent."""
    parts, ends = [], []
    for axis in range(3):
        low, high = data.extent[2 * axis], data.extent[2 * axis + 1]
        first = max(low, 0)
        last = max(min(high, data.shape[axis] - 1), first - 1)
        parts.append(slice(first - low, last + 1 - low))
        ends += [first, last]
    if not data.layers:
        parts = [slice(0, 0)] * 3
    return (parts[2], parts[1], parts[0]), tuple(ends)


def _outside(sheets: Sequence[_Sheet], inside: tuple[slice, slice, slice]) -> int:
    """Count the voxels that segments with a value have beyond the reference grid."""
    if not sheets or sheets[0].voxels[inside].size == sheets[0].voxels.size:
        return 0
    drawn = numpy.zeros(sheets[0].voxels.shape, bool)
    for sheet in sheets:
        codes = sheet.read((slice(None),))
        if codes is not None:
            drawn |= codes > 0
    return int(drawn.sum()) - int(drawn[inside].sum())
