"""Images whose header differs from that of nearly all others: mostly a mistake of a conversion, sometimes a real scan.

They can be used, since each image is brought to its task's orientation and voxel size by what its header says. If the
header is wrong, left and right are, or millimetres; so they are named, and a person looks at them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rep3d.imaging.grid import Geometry

__all__ = ["along_axes", "outliers"]

_FEWEST = 4  # images, of which an outlier can be told
_MOST_ALIKE = 0.8  # share of the images whose orientation must be the same for another one to be an outlier
_FAR = 3.0  # times the median voxel size


def along_axes(values: Sequence[float], axis_codes: Sequence[str], orientation: str = "RAS") -> list[float]:
    """Return a value of each stored axis (a voxel side, a length) in the order of an orientation's axes."""
    pairs = [next(pair for pair in ("RL", "AP", "SI") if letter in pair) for letter in orientation]
    return [values[next(axis for axis, code in enumerate(axis_codes) if code in pair)] for pair in pairs]


def outliers(grids: Mapping[str, Geometry]) -> dict[str, str]:
    """Return what is unusual in the headers of some images of a set, in words; fewer than four tell nothing.

    An orientation is, where eight in ten have another one; a voxel size is, where it is three times the median or more,
    or a third or less, along any axis of the body.

    Args:
        grids: the voxel grid of each image, by a name for it.
    """
    if len(grids) < _FEWEST:
        return {}
    found: dict[str, list[str]] = {}
    (usual, count), *_ = Counter("".join(grid.axis_codes) for grid in grids.values()).most_common()
    if count >= _MOST_ALIKE * len(grids):
        for name, grid in grids.items():
            if (codes := "".join(grid.axis_codes)) != usual:
                found.setdefault(name, []).append(f"its axes run {codes}, and those of {count} others {usual}")
    sides = np.array([along_axes(grid.spacing, grid.axis_codes) for grid in grids.values()])
    median = np.median(sides, axis=0)
    for name, own in zip(grids, sides, strict=True):
        if (np.maximum(own / median, median / own) >= _FAR).any():
            found.setdefault(name, []).append(f"its voxels are {_listed(own)} mm, and the median is {_listed(median)}")
    return {name: "; ".join(words) for name, words in found.items()}


def _listed(sides: np.ndarray) -> str:
    return " x ".join(f"{side:.3g}" for side in sides)
