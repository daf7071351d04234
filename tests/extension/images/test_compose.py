"""Segments to one label map, compared with a slow and obvious way to do it."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer
from Rep3DLabelLib.images.compose import Overlap, compose, on_grid
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry


def segment(name: str, layer: int, value: int) -> SegmentEntry:
    return SegmentEntry(name, name, (0, 0, 0), layer, value)


def slowly(data: SegmentationData, values: dict[str, int], order: list[str]) -> tuple[np.ndarray, dict, int]:
    """Return the label map on the whole grid, overlaps {(first, second): voxels}, and voxels outside."""
    k0, j0, i0 = data.extent[4], data.extent[2], data.extent[0]
    full = np.zeros(data.shape[::-1], int)
    masks: dict[str, np.ndarray] = {}
    outside = set()
    for entry in data.segments:
        if entry.id in values:
            mask = np.zeros(data.shape[::-1], bool)
            for k, j, i in np.argwhere(data.layers[entry.layer] == entry.value):
                place = (k + k0, j + j0, i + i0)
                if all(0 <= at < length for at, length in zip(place, data.shape[::-1], strict=True)):
                    mask[place] = True
                else:
                    outside.add(place)
            masks[entry.id] = mask
    for name in reversed(order):
        if name in masks:
            full[masks[name]] = values[name]
    overlaps = {}
    for one, other in itertools.combinations([name for name in order if name in masks], 2):
        both = int((masks[one] & masks[other]).sum())
        if both and values[one] != values[other]:
            overlaps[one, other] = both
    return full, overlaps, len(outside)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_any_segmentation(seed: int, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 4, (5, 6, 7)).astype(dtype) for _ in range(rng.integers(1, 4))]
    third = 3
    if np.iinfo(dtype).min < 0:
        third = -3
        for layer in layers:
            layer[layer == 3] = third
    segments = [segment(f"s{n}-{v}", n, v) for n in range(len(layers)) for v in (1, 2, third)]
    segments += [segment("same voxels as another", 0, 1), segment("empty", 0, 99)]
    highest = 5 if seed % 2 else 500
    values = {one.id: int(rng.integers(1, highest)) for one in segments if rng.random() < 0.8}
    order = [one.id for one in segments]
    rng.shuffle(order)
    named = order[: len(order) // 2]
    order = named + [one.id for one in segments if one.id not in named]
    i0, j0, k0 = rng.integers(-3, 3, 3).tolist()
    extent = (i0, i0 + 6, j0, j0 + 5, k0, k0 + 4)
    data = SegmentationData(tuple(layers), extent, (6, 6, 5), np.eye(4), tuple(segments))

    got = compose(data, values, named)
    full, overlaps, outside = slowly(data, values, order)
    a0, a1, b0, b1, c0, c1 = got.extent
    drawn = np.zeros_like(full)
    drawn[c0 : c1 + 1, b0 : b1 + 1, a0 : a1 + 1] = got.label
    assert np.array_equal(drawn, full)
    assert got.label.dtype == (np.uint8 if max(values.values()) < 256 else np.uint16)
    assert got.counts == {value: int((full == value).sum()) for value in set(values.values())}
    assert {(one.first, one.second): one.voxels for one in got.overlaps} == overlaps
    assert got.outside == outside


def test_overlaps_of_one_label_with_itself_are_none() -> None:
    layers = (np.ones((2, 2, 2), np.uint8), np.ones((2, 2, 2), np.uint8))
    data = SegmentationData(layers, (0, 1, 0, 1, 0, 1), (2, 2, 2), np.eye(4), (segment("a", 0, 1), segment("b", 1, 1)))
    assert compose(data, {"a": 4, "b": 4}, []).overlaps == ()
    assert compose(data, {"a": 4, "b": 5}, ["b", "a"]).overlaps == (Overlap("b", "a", 8),)
    assert compose(data, {"a": 4, "b": 5}, ["b"]).counts == {4: 0, 5: 8}
    assert compose(data, {"a": 4}, ["b", "a"]).overlaps == ()


def test_nothing_to_compose() -> None:
    empty = SegmentationData((), (0, -1, 0, -1, 0, -1), (4, 3, 2), np.eye(4), (segment("a", 0, 1),))
    got = compose(empty, {"a": 3}, ["a"])
    assert (got.label.size, got.counts, got.overlaps, got.outside) == (0, {3: 0}, (), 0)
    assert compose(empty, {}, []).counts == {}
    layer = np.ones((1, 1, 1), np.uint8)
    far = SegmentationData((layer,), (9, 9, 0, 0, 0, 0), (4, 3, 2), np.eye(4), (segment("a", 0, 1),))
    got = compose(far, {"a": 3}, [])
    assert (got.label.size, got.counts, got.outside) == (0, {3: 0}, 1)


def test_background_is_no_segment() -> None:
    data = SegmentationData(
        (np.zeros((2, 2, 2), np.uint8),), (0, 1, 0, 1, 0, 1), (2, 2, 2), np.eye(4), (segment("a", 0, 0),)
    )
    assert compose(data, {"a": 3}, []).counts == {3: 0}


@pytest.mark.parametrize("value", [0, -1, 65536])
def test_values_that_no_label_can_have(value: int) -> None:
    data = SegmentationData((), (0, -1, 0, -1, 0, -1), (4, 3, 2), np.eye(4), ())
    with pytest.raises(ValueError, match="from 1 to 65535"):
        compose(data, {"a": value}, [])


def test_300_segments_of_300_labels() -> None:
    layer = np.arange(1, 301, dtype=np.uint16).reshape(5, 6, 10)
    segments = tuple(segment(str(n), 0, n) for n in range(1, 301))
    data = SegmentationData((layer,), (0, 9, 0, 5, 0, 4), (10, 6, 5), np.eye(4), segments)
    got = compose(data, {str(n): 1000 + n for n in range(1, 301)}, [])
    assert np.array_equal(got.label, layer + 1000) and set(got.counts.values()) == {1}


def test_the_same_voxels_in_another_order() -> None:
    layer = np.random.default_rng(0).integers(0, 3, (4, 3, 2)).astype(np.uint8)
    data = SegmentationData(
        (layer,), (1, 2, 0, 2, 0, 3), (5, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0]), (segment("a", 0, 1),)
    )
    turned = np.array([[0, -2.0, 0, 8.0], [3.0, 0, 0, 0], [0, 0, -4.0, 12.0], [0, 0, 0, 1.0]])  # j is -i, k is -k
    got = on_grid(data, turned, (3, 5, 4), "image")
    assert got.extent == (0, 2, 2, 3, 0, 3) and got.shape == (3, 5, 4)
    for k, j, i in np.ndindex(layer.shape):
        ras = data.ijk_to_ras @ (i + 1, j, k, 1)
        a, b, c = np.rint(np.linalg.solve(turned, ras))[:3].astype(int)
        assert got.layers[0][c, b - 2, a] == layer[k, j, i]
    with pytest.raises(BadAnswer, match="voxels of image"):
        on_grid(data, np.eye(4), (5, 3, 4), "image")


@pytest.mark.timed
def test_a_large_segmentation_is_quick() -> None:
    layers = tuple(np.zeros((300, 512, 512), np.uint8) for _ in range(3))
    for number, layer in enumerate(layers):
        for value in range(1, 6):
            start = 40 * value + 5 * number
            layer[60:240, start : start + 38, 100:400] = value
    segments = tuple(segment(f"{n}-{v}", n, v) for n in range(3) for v in range(1, 6))
    data = SegmentationData(layers, (0, 511, 0, 511, 0, 299), (512, 512, 300), np.eye(4), segments)
    start = time.perf_counter()
    got = compose(data, {one.id: number for number, one in enumerate(segments, 1)}, [])
    assert time.perf_counter() - start < 6  # 1 s on a computer that does nothing else
    assert len(got.overlaps) > 10
