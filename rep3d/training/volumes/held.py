"""Prepared cases held in memory by MONAI's CacheDataset, within a bound.

Patches of the others are cut from their files, which costs no more where these are on a disk of this machine that the
system keeps in memory anyway, and waits for each page where they are on a network drive or memory is short. What is
held is what would be read, so both give the same patches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Transform

from rep3d.training.volumes.prepared import Prepared

__all__ = ["HeldVolumes"]


class HeldVolumes(Sequence[Prepared]):
    """The cases of a training, of which those that are drawn most often, for their size, are held in memory.

    A case is read when it is first asked for, so that a training begins at once.

    Args:
        volumes: the cases. What is in memory already, for want of a disk with room, uses up the bound first.
        shares: how often each is drawn.
        most: bytes to hold at most, of images, labels and noted voxels.

    Attributes:
        held: indices of the cases that are held, or will be.
    """

    def __init__(self, volumes: Sequence[Prepared], shares: Sequence[float], most: int) -> None:
        self._volumes = volumes
        left = most - sum(volume.nbytes for volume in volumes if not volume.mapped)
        self.held: list[int] = []
        for index in sorted(range(len(volumes)), key=lambda index: -shares[index] / volumes[index].nbytes):
            if volumes[index].mapped and volumes[index].nbytes <= left:
                left -= volumes[index].nbytes
                self.held.append(index)
        self._places = {index: place for place, index in enumerate(self.held)}
        # Nothing changes a volume, patches are copies: so none is copied when it is taken from the cache.
        self._cache = CacheDataset(
            [volumes[index] for index in self.held], _Read(), progress=False, copy_cache=False, runtime_cache=True
        )

    def __len__(self) -> int:
        return len(self._volumes)

    def __getitem__(self, index: int) -> Prepared:  # type: ignore[override]
        place = self._places.get(index)
        return self._volumes[index] if place is None else self._cache[place]


class _Read(Transform):
    """Reads a case from its file into memory."""

    def __call__(self, data: Prepared) -> Prepared:
        image, label, positions = map(np.array, (data.image, data.label, data.positions))
        return dataclasses.replace(data, image=image, label=label, positions=positions, mapped=False)
