"""NRRD files as other programs write them, odd ones included: by hand, since writers repair what they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.app.data import AFFINE

__all__ = ["segments", "write_nrrd"]


def segments(*given: tuple[str, int, int]) -> list[tuple[str, str]]:
    """Return the keys of segments, each as (name, layer, value)."""
    return [
        (f"Segment{number}_{key}", str(value))
        for number, facts in enumerate(given)
        for key, value in zip(("Name", "Layer", "LabelValue"), facts, strict=True)
    ]


def write_nrrd(
    path: Path,
    layers: Sequence[np.ndarray],
    keys: Sequence[tuple[str, str]] = (),
    fields: Mapping[str, str | None] | None = None,
    body: bytes | None = None,
    list_last: bool = False,
) -> Path:
    """Write layers (X, Y, Z) on the grid of the test images.

    Args:
        path: the file.
        layers: one or several.
        keys: the writer's own keys and values.
        fields: header fields to replace; None to leave one out.
        body: bytes of the voxels, where they are not the raw ones.
        list_last: whether the axis of several layers is the last one, not the first.
    """
    flip = np.diag([-1.0, -1.0, 1.0])
    vectors = ["(" + ",".join(map(repr, (flip @ AFFINE[:3, axis]).tolist())) + ")" for axis in range(3)]
    sizes, kinds, array = [*map(str, layers[0].shape)], ["domain"] * 3, layers[0]
    if len(layers) > 1:
        place = 3 if list_last else 0
        sizes.insert(place, str(len(layers)))
        kinds.insert(place, "list")
        vectors.insert(place, "none")
        array = np.stack(layers, place)
    header: dict[str, str | None] = {
        "type": array.dtype.name,
        "dimension": str(len(sizes)),
        "space": "left-posterior-superior",
        "sizes": " ".join(sizes),
        "space directions": " ".join(vectors),
        "kinds": " ".join(kinds),
        "endian": "little",
        "encoding": "raw",
        "space origin": "(" + ",".join(map(repr, (flip @ AFFINE[:3, 3]).tolist())) + ")",
        **(fields or {}),
    }
    lines = ["NRRD0004", *(f"{key}: {value}" for key, value in header.items() if value is not None)]
    lines += [f"{key}:={value}" for key, value in keys]
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    path.write_bytes(text + b"\n\n" + (array.tobytes(order="F") if body is None else body))
    return path
