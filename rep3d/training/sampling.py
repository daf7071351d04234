"""Which case comes next in training, and where the random patch is that is cut from it.

There are two ways to draw. In the paper's, patches are centred on labelled voxels and on background 1:1 (as by MONAI's
RandCropByPosNegLabeld), and of an abdomen the liver is seen a hundred times as often as an adrenal gland. Balanced,
each label is as likely as another, as in nnU-Net's patches with a label (Isensee et al. 2021, Nature Methods 18), and
cases that have rare ones come more often.

Everything drawn is a function of the seed and of the number of the draw. So a run that was interrupted goes on with the
same patches without any random state being kept, and processes that train together share one sequence.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose
from torch.utils.data import IterableDataset

from rep3d.data.cases import Case
from rep3d.errors import ConfigError
from rep3d.training.settings import TrainSettings
from rep3d.training.volumes.held import HeldVolumes
from rep3d.training.volumes.prepared import Prepared

__all__ = ["NEW_CASE_WEIGHT", "Patches", "Widening", "case_order", "case_weights", "centre_shares"]

NEW_CASE_WEIGHT = 3.0
"""How often a case that the model has not learned from yet is drawn, for each time that an old one is."""

_LOWEST, _HIGHEST = 1e-3, 1e3
_COUNTED = 64  # patches


def case_weights(cases: Sequence[Case], weights: Mapping[str, float] | None) -> list[float]:
    """Return how often each case is drawn, relative to the others; 1 where nothing is said.

    Args:
        cases: the training cases.
        weights: case id to weight; ids of other cases do not matter.

    Raises:
        ConfigError: if a weight is no number from 0.001 to 1000.
    """
    found = [(weights or {}).get(case.id, 1.0) for case in cases]
    for case, weight in zip(cases, found, strict=True):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight)
        if not number or not _LOWEST <= weight <= _HIGHEST:
            raise ConfigError(f"weight of {case.id}: expected a number from {_LOWEST} to {_HIGHEST:g}, got {weight!r}")
    return [float(weight) for weight in found]


def case_order(weights: Sequence[float], seed: int) -> Iterator[int]:
    """Endless indices of cases, in rounds that are shuffled.

    In a round a case comes once for each time its weight holds the smallest weight; what is left over is rounded at
    random, so that the proportions hold over many rounds. With equal weights each case comes once per round.

    Args:
        weights: positive weight of each case.
        seed: determines all.
    """
    times = np.asarray(weights, dtype=np.float64) / min(weights)
    for number in itertools.count():
        random = np.random.default_rng([seed, number])
        repeats = np.floor(times + random.random(len(times))).astype(int)
        yield from random.permutation(np.repeat(np.arange(len(times)), repeats)).tolist()


def centre_shares(counts: Sequence[Sequence[int]], weights: Sequence[float], settings: TrainSettings) -> np.ndarray:
    """Return which share of the patches is cut from each case around a voxel of each channel.

    Args:
        counts: voxels of each channel, background first, of each case.
        weights: positive weight of each case.
        settings: ``sampling`` and ``background_share``.

    Returns:
        (cases, channels), with the sum 1. A label that no case has gets nothing; a case without any label is drawn for
        its background, one without background for its labels.
    """
    voxels = np.asarray(counts, dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)[:, None] / sum(weights)
    labelled = voxels[:, 1:].sum(1, keepdims=True)
    if settings.sampling == "paper":
        of_labels = np.divide(voxels[:, 1:], labelled, out=np.zeros_like(voxels[:, 1:]), where=labelled > 0)
        on_background = np.select([labelled == 0, voxels[:, :1] == 0], [1.0, 0.0], 0.5)
        return weight * np.hstack([on_background, (1 - on_background) * of_labels])
    there = weight * (voxels[:, 1:] > 0)
    known = there.sum(0) > 0
    if not known.any():
        return np.hstack([weight, there])
    shares = np.zeros_like(there)
    shares[:, known] = (1 - settings.background_share) * there[:, known] / there[:, known].sum(0) / known.sum()
    background = settings.background_share * weight
    full = voxels[:, :1] == 0
    shares += np.where(full, background, 0.0) * (there > 0) / np.maximum(1, (there > 0).sum(1, keepdims=True))
    return np.hstack([np.where(full, 0.0, background), shares])


class Widening:
    """Augmentation that widens over the first draws.

    A network that has seen little learns faster from patches that differ little, and one that has seen much learns to
    find structures of other sizes and poses from patches that differ a lot.

    Args:
        made: the augmentation of a width from 0 to 1, see :func:`rep3d.imaging.transforms.augmentation`.
        trained: whether the network has learned already; then it is wide from the beginning.
    """

    draws = 300
    """Until it is as wide as it gets."""
    _LEVELS = 10

    def __init__(self, made: Callable[[float], Compose], trained: bool = False) -> None:
        self._made = made
        self._trained = trained
        self._by_level: dict[int, Compose] = {}

    def __call__(self, number: int) -> Compose:
        """Return the augmentation of a draw."""
        level = self._LEVELS if self._trained else min(self._LEVELS, self._LEVELS * number // self.draws)
        if level not in self._by_level:
            self._by_level[level] = self._made(level / self._LEVELS)
        return self._by_level[level]


class Patches(IterableDataset):
    """Endless batches of augmented patches, each of its own draw; ``"paper"`` takes those of a batch from one case.

    Labels are channel indices 0 .. C - 1, and C + g where the class is one of ``possible[g]``: C where nothing is
    known, and an index for each set of labels that was not annotated in some case, in whose background they may be.

    Args:
        prepared: the cases.
        weights: how often each is drawn, see :func:`case_order`.
        augment: changes a patch at random; by the number of the draw, see :class:`Widening`.
        sides: of a patch, in voxels (D, H, W).
        settings: how to draw, how many at a time, and with which seed.
        first: number of the first draw.
        step: from one draw to the next; processes that train together take turns.
        held_most: bytes of the cases to hold in memory, see :class:`~rep3d.training.volumes.held.HeldVolumes`.

    Attributes:
        possible: (G, C) bool, see :class:`rep3d.training.loss.PresentDiceCE`; None where each voxel's class is known.
    """

    def __init__(
        self,
        prepared: Sequence[Prepared],
        weights: Sequence[float],
        augment: Callable[[int], Compose],
        sides: Sequence[int],
        settings: TrainSettings,
        first: int = 0,
        step: int = 1,
        held_most: int = 0,
    ) -> None:
        self.prepared = prepared
        self.augment = augment
        self.sides = tuple(sides)
        self.settings = settings
        self.first = first
        self.step = step
        channels = len(prepared[0].counts)
        known = sorted({volume.known for volume in prepared if volume.known is not None})
        self._background = {each: channels + number for number, each in enumerate(known, 1)}
        self.possible: torch.Tensor | None = None
        if known or any(sum(volume.counts) < volume.label.size for volume in prepared):
            self.possible = torch.tensor([[not row or c not in row for c in range(channels)] for row in ((), *known)])
        shares = centre_shares([volume.counts for volume in prepared], weights, settings)
        # Rounded, so that equal shares make rounds in which each case comes once.
        self.case_shares = (shares.sum(1) / shares.sum(1).min()).round(9).tolist()
        self.channel_shares = shares / shares.sum(1, keepdims=True)
        self.held = HeldVolumes(prepared, self.case_shares, held_most)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        seed = self.settings.seed
        crops = self.settings.crops
        cases = 1 if self.settings.sampling == "paper" else crops
        batches = zip(*[case_order(self.case_shares, seed)] * cases, strict=True)
        for number, indices in itertools.islice(enumerate(batches), self.first, None, self.step):
            augment = self.augment(number)
            augment.set_random_state(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
            random = np.random.default_rng([seed, number, 1])  # the third keeps it apart from those of the order
            yield [augment(self._patch(index, random)) for index in indices for _ in range(crops // cases)]

    def counts(self) -> list[int]:
        """Return how many voxels of each channel patches have, without what surrounds a smaller volume, and before they
        are augmented; counted in the same few ones of a run, wherever that goes on from."""
        total = np.zeros(len(self.prepared[0].counts), np.int64)
        for number, index in enumerate(itertools.islice(case_order(self.case_shares, self.settings.seed), _COUNTED)):
            volume = self.prepared[index]
            if self._is_whole(volume):
                total += volume.counts
                continue
            centre = self._centre(index, np.random.default_rng([self.settings.seed, number, 2]))
            begins = volume.first_voxel(centre, self.sides)
            part = tuple(slice(first, first + side) for first, side in zip(begins, self.sides, strict=True))
            total += np.bincount(volume.label[part].ravel(), minlength=len(total))[: len(total)]
        return total.tolist()

    def _patch(self, index: int, random: np.random.Generator) -> dict[str, Any]:
        volume = self.held[index]
        patch = volume.patch(self._centre(index, random), self.sides)
        if volume.known is not None:
            patch["label"][patch["label"] == 0] = self._background[volume.known]
        return patch

    def _centre(self, index: int, random: np.random.Generator) -> Sequence[int] | np.ndarray:
        """Return the middle of a case's next patch; where it holds the whole volume, nothing is left to draw."""
        volume = self.held[index]
        if self._is_whole(volume):
            return (0, 0, 0)
        channel = int(random.choice(len(volume.counts), p=self.channel_shares[index]))
        return volume.voxel(channel, random)

    def _is_whole(self, volume: Prepared) -> bool:
        """Return whether a patch holds a whole volume."""
        return all(length <= side for length, side in zip(volume.label.shape, self.sides, strict=True))
