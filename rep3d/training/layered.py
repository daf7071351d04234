"""Patches for a fine stage: the image, and beside it what the coarse stage says of each label.

The coarse stage was trained on the very cases that the fine one learns from, and is better there than it will be on new
ones. So that the fine stage does not trust it blindly, it is often blurred and shifted by a voxel or two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, RandomizableTransform
from torch.nn import functional

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.imaging.resampling import AxisMap, interpolate_axis
from rep3d.imaging.transforms import augmentation
from rep3d.inference.fine import coarse_weight
from rep3d.inference.predictor import Predictor
from rep3d.tasks.config import TaskConfig
from rep3d.training.volumes.prepared import MOST_POSITIONS, Prepared

__all__ = ["LayeredVolume", "layered_augmentation", "with_coarse"]

_BLURRED, _SHIFTED = 0.3, 0.5  # of the patches
_BLUR, _SHIFT = 5, 2  # fine voxels: side of the mean, and how far at most


@dataclass(frozen=True)
class LayeredVolume(Prepared):
    """A case on the fine grid, with what the coarse stage says.

    Attributes:
        coarse: (C - 1, d, h, w) float16 probabilities of the labels, on the coarse grid.
        steps: coarse voxels from one fine voxel to the next, along each axis. Both grids begin at the same place.
        found: (N, 3) int32 fine voxels where the fine stage will look.
    """

    coarse: torch.Tensor
    steps: tuple[float, float, float]
    found: np.ndarray

    def voxel(self, channel: int, random: np.random.Generator) -> np.ndarray:
        """Return a random voxel of a channel; of background, one where the fine stage will look."""
        if channel == 0 and len(self.found):
            return self.found[random.integers(len(self.found))]
        return super().voxel(channel, random)

    def patch(self, centre: Sequence[int] | np.ndarray, sides: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the patch of :meth:`Prepared.patch` and ``"beside"`` (C - 1, D, H, W), the coarse probabilities."""
        beside = self.coarse
        for axis, first in enumerate(self.first_voxel(centre, sides)):
            short = max(0, sides[axis] - self.label.shape[axis])
            place = np.arange(sides[axis]) + first - short // 2
            position = np.clip(place * self.steps[axis], 0, self.coarse.shape[1 + axis] - 1)
            beside = interpolate_axis(beside, 1 + axis, AxisMap(axis, position))
        return {**super().patch(centre, sides), "beside": beside.float()}


def with_coarse(
    ready: Sequence[tuple[Case, Prepared]],
    coarse: Checkpoint,
    task: TaskConfig,
    device: str,
    report: Callable[[], None],
) -> list[tuple[Case, Prepared]]:
    """Return the cases with what the coarse stage says of each.

    Args:
        ready: the cases on the fine grid.
        coarse: the coarse stage.
        task: of the fine one.
        device: where to compute.
        report: called before each case; may raise to stop.
    """
    predictor = Predictor(coarse, device)
    found: list[tuple[Case, Prepared]] = []
    random = np.random.default_rng(0)
    for case, volume in ready:
        report()
        said = predictor.probabilities(case.channels)
        spacing = said.affine[:3, :3].norm(dim=0).tolist()
        x, y, z = (fine / side for fine, side in zip(task.spacing, spacing, strict=True))
        places = np.argwhere((coarse_weight(said)[0] > 0).numpy())
        places = places[random.permutation(len(places))[:MOST_POSITIONS]]
        voxels = np.minimum(np.rint(places / (x, y, z)), np.array(volume.label.shape) - 1).astype(np.int32)
        voxels = voxels[volume.label[tuple(voxels.T)] < task.out_channels]  # something is known there
        layered = LayeredVolume(
            *(volume.image, volume.label, volume.counts, volume.positions),
            *(said.as_tensor()[1:].half(), (x, y, z), voxels),
            known=volume.known,
            mark=volume.mark,
            mapped=volume.mapped,
        )
        found.append((case, layered))
    return found


def layered_augmentation(task: TaskConfig, width: float = 1.0) -> Compose:
    """Return :func:`~rep3d.imaging.transforms.augmentation` with doubts about the coarse stage; the channels joined."""
    return Compose([*augmentation(task, width).transforms, _Doubtedd(), _joined])


class _Doubtedd(RandomizableTransform):
    """Blurs or shifts what the coarse stage says of a patch, at random."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        beside: torch.Tensor = result["beside"]
        if self.R.random() < _BLURRED:
            beside = functional.avg_pool3d(beside[None], _BLUR, 1, _BLUR // 2, count_include_pad=False)[0]
        if self.R.random() < _SHIFTED:
            by = self.R.randint(-_SHIFT, _SHIFT + 1, 3).tolist()
            beside = torch.roll(beside, by, (1, 2, 3))
        result["beside"] = beside
        return result


def _joined(data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """Return a patch whose image has the coarse probabilities as further channels."""
    result = dict(data)
    result["image"] = torch.cat([result["image"], result.pop("beside")])
    return result
