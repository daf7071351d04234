"""A case on the task's grid, with the places where each class is found.

The image is kept in half precision: its steps are at most 1/2048 of an intensity window, or 1/256 of a standard
deviation, far below any image's noise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from rep3d.data.cases import Case
from rep3d.errors import LabelError
from rep3d.imaging.labels import check_label, nothing_known
from rep3d.imaging.transforms import preparation
from rep3d.inference.streaming import cut
from rep3d.tasks.config import TaskConfig

__all__ = ["MOST_POSITIONS", "Prepared", "class_positions", "make_ready"]

MOST_POSITIONS = 20_000
"""Voxels that are noted of each class of a case; where it has more, this many at random."""


@dataclass(frozen=True)
class Prepared:
    """A case on the task's grid.

    Attributes:
        image: (C, D, H, W) float16, scaled as the task says.
        label: (D, H, W) channel indices, uint8 or uint16; one more than the last where nothing is known.
        counts: how many voxels each channel has, background first.
        positions: (N, 3) int32 voxels, those of each channel after those of the one before, at most `MOST_POSITIONS` of
            each.
        known: the channels that were annotated, background left out; None for all. Of the others nothing is known: what
            is background may be one of them.
        mark: what the image is known by, see :func:`rep3d.imaging.marks.voxel_mark`.
        mapped: whether the arrays are those of a file, and not in memory.
    """

    image: np.ndarray
    label: np.ndarray
    counts: tuple[int, ...]
    positions: np.ndarray
    known: tuple[int, ...] | None = field(default=None, kw_only=True)
    mark: str = field(default="", kw_only=True)
    mapped: bool = field(default=False, kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.image.nbytes + self.label.nbytes + self.positions.nbytes

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(np.minimum(self.counts, MOST_POSITIONS))

    def voxel(self, channel: int, random: np.random.Generator) -> np.ndarray:
        """Return a random voxel (3) of a channel that the case has."""
        end = int(self._ends[channel])
        return self.positions[random.integers(end - min(self.counts[channel], MOST_POSITIONS), end)]

    def first_voxel(self, centre: Sequence[int] | np.ndarray, sides: Sequence[int]) -> list[int]:
        """Return where :meth:`patch` begins: with the volume's first voxel where that is smaller."""
        return [
            min(max(0, int(middle) - side // 2), max(0, length - side))
            for middle, side, length in zip(centre, sides, self.label.shape, strict=True)
        ]

    def patch(self, centre: Sequence[int] | np.ndarray, sides: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return ``"image"`` (C, D, H, W), float32, and ``"label"`` (1, D, H, W), of a patch.

        Args:
            centre: its middle voxel; it is moved so that the patch lies in the volume.
            sides: of the patch in voxels (D, H, W); what a smaller volume lacks is filled with zeros on both sides.
        """
        first = self.first_voxel(centre, sides)
        return {
            "image": torch.from_numpy(cut(self.image, first, sides).astype(np.float32)),
            "label": torch.from_numpy(cut(self.label, first, sides).astype(np.int32))[None],
        }


def make_ready(case: Case, task: TaskConfig, other_values: Collection[int] = ()) -> Prepared:
    """Read a case and bring it to the task's grid.

    Args:
        case: the case.
        task: the task.
        other_values: voxel values that the label may have beside the task's; they become background.

    Raises:
        LabelError, ImageError, OutOfMemoryError: if it cannot be used.
    """
    allowed = {*other_values} if task.ignore is None else {*other_values, task.ignore}
    check_label(case.label, case.channels, task.labels, allowed, task.in_channels)
    ready = preparation(task, with_label=True, other_values=other_values, annotated=case.annotated)(
        {"image": case.channels, "label": str(case.label)}
    )
    label = np.ascontiguousarray(ready.pop("label")[0].numpy())
    image = ready.pop("image").as_tensor().half().contiguous().numpy()
    if label.min() >= task.out_channels:
        raise nothing_known(case.label, task.ignore)
    counts, positions = class_positions(label, task.out_channels)
    annotated = case.known(task.labels)
    known = tuple(index for index, name in enumerate(task.label_names, 1) if name in annotated)
    if not known:
        raise LabelError(f"{case.label.name} says nothing: none of the task's labels was annotated in it.")
    all_known = len(known) == len(task.labels)
    return Prepared(image, label, counts, positions, known=None if all_known else known, mark=ready["mark"])


def class_positions(label: np.ndarray, channels: int) -> tuple[tuple[int, ...], np.ndarray]:
    """Return how often each channel occurs, and where, slice by slice: the places of all voxels would be gigabytes."""
    by_slice = np.stack([np.bincount(plane.ravel(), minlength=channels)[:channels] for plane in label])
    counts = by_slice.sum(0)
    random = np.random.default_rng(0)
    found = []
    for channel in np.flatnonzero(counts):
        before = np.concatenate([[0], np.cumsum(by_slice[:, channel])])
        chosen = np.sort(random.choice(counts[channel], min(counts[channel], MOST_POSITIONS), replace=False))
        slices = np.searchsorted(before, chosen, side="right") - 1
        for index in np.unique(slices):
            there = np.flatnonzero(label[index].ravel() == channel)[chosen[slices == index] - before[index]]
            found.append(np.column_stack([np.full(len(there), index), *np.unravel_index(there, label.shape[1:])]))
    return tuple(counts.tolist()), np.concatenate(found).astype(np.int32)
