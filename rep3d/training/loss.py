"""What a training minimises: Dice of the classes that are there, and cross-entropy of all.

Small patches of a task with many labels hold few of them, and Dice of a class that is not there is 0 or 1 by a hair:
its share of the mean says nothing and drowns the others. Here absent classes are punished by cross-entropy alone.

Cross-entropy, in turn, is the mean over voxels, nearly all of which are background: for hundreds of steps a network can
do well by it with one large organ and nothing else. Weights that fall with the square root of a class's share of the
voxels let the small organs be found from the start.

Nothing is learned where nothing is known: voxels to ignore count nowhere. In a case in which only some labels were
annotated, background may be any of the others: their probabilities and background's are summed, which is the marginal
loss of Shi et al. (2021, Medical Image Analysis 70, 101979), and none of the others is punished there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import DiceCELoss
from torch.nn.functional import log_softmax

__all__ = ["PresentDiceCE", "class_weights", "loss_function"]

_SMOOTH = 1e-5  # MONAI's


class PresentDiceCE(torch.nn.Module):
    """1 - Dice, mean over the classes (background aside) that the batch's labels have, plus cross-entropy.

    Where all classes are there, it is MONAI's ``DiceCELoss(include_background=False, to_onehot_y=True, softmax=True,
    batch=True)``. No one-hot map is made: of 14 classes on 96^3 voxels it takes 0.57 of the time (one
    thread of a CPU, gradients included).

    A voxel of which it is only known that it is one of several classes is trained to be one of them, whichever: its
    cross-entropy is that of their probabilities' sum, and it counts in the Dice of the others alone. Where that may be
    any class, it counts nowhere.

    Args:
        weights: of the classes in the cross-entropy, (C,), as in ``torch.nn.functional.cross_entropy``; None for equal
            ones.
        possible: (G, C) which classes a voxel with the index C + g may be; the first row allows all. None where each
            voxel's class is known. A voxel that is not altogether unknown weighs as background.
        every: take Dice of each class in each patch, whether it is there or not, as ``DiceCELoss`` without ``batch``.
    """

    weights: torch.Tensor | None
    possible: torch.Tensor | None

    def __init__(
        self, weights: torch.Tensor | None = None, possible: torch.Tensor | None = None, every: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.register_buffer("possible", possible)
        self.every = every

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Args:
            logits: (B, C, D, H, W).
            label: (B, 1, D, H, W) channel indices, or C + g where the class is one of ``possible[g]``.
        """
        batch, channels = logits.shape[:2]
        index = label.long()
        log_share = log_softmax(logits.float(), 1)
        log_true = log_share.gather(1, index.clamp(max=channels - 1))
        share = log_share.exp()
        asked = torch.ones(batch, channels, dtype=torch.bool, device=logits.device)
        bins = (index + channels * torch.arange(batch, device=index.device).view(-1, 1, 1, 1, 1)).flatten()
        of_true = log_true.exp().flatten()
        if self.possible is not None:
            known = (index < channels).flatten()
            bins, of_true = bins[known], of_true[known]
            for number, classes in enumerate(self.possible):
                there = index == channels + number
                if there.any():
                    log_true = torch.where(there, log_share[:, classes].logsumexp(1, keepdim=True), log_true)
                    share = share.masked_fill(there & classes.view(1, -1, 1, 1, 1), 0.0)
                    if number:
                        asked &= ~(there.flatten(1).any(1, keepdim=True) & classes)
        voxels = torch.bincount(bins, minlength=batch * channels).to(share)
        overlap = torch.zeros_like(voxels).index_add(0, bins, of_true).view(batch, channels)
        voxels, found = voxels.view(batch, channels), share.flatten(2).sum(2)
        if not self.every:
            voxels, overlap, found = (each.sum(0, keepdim=True) for each in (voxels, overlap, found))
            asked = voxels > 0
        dice = (2 * overlap + _SMOOTH) / (found + voxels + _SMOOTH)
        counts = asked[:, 1:].to(dice)
        return ((1 - dice[:, 1:]) * counts).sum() / counts.sum().clamp(min=1) + self._entropy(log_true, index, channels)

    def _entropy(self, log_true: torch.Tensor, index: torch.Tensor, channels: int) -> torch.Tensor:
        if self.weights is None and self.possible is None:
            return -log_true.mean()
        weights = log_true.new_ones(channels) if self.weights is None else self.weights
        if self.possible is not None:
            unknown = weights[:1].repeat(len(self.possible))
            unknown[0] = 0.0
            weights = torch.cat([weights, unknown])
        weight = weights[index]
        return -(weight * log_true).sum() / weight.sum().clamp(min=_SMOOTH)


def class_weights(counts: Sequence[int]) -> torch.Tensor:
    """Return the square root of one over each class's share of the voxels; of a class that has none, the largest one.

    Args:
        counts: voxels of each class in what is trained on: patches that are centred on rare classes have more of them
            than the images, and weights by the images would count that twice.
    """
    voxels = torch.tensor(counts, dtype=torch.float64)
    known = voxels > 0
    weights = (voxels.sum() / voxels.clamp(min=1)).sqrt()
    return torch.where(known, weights, weights[known].max()).float()


def loss_function(
    name: str, counts: Callable[[], Sequence[int]], possible: torch.Tensor | None = None
) -> torch.nn.Module:
    """Return the loss of a training's settings.

    Args:
        name: ``"balanced"`` (Dice of present classes and weighted cross-entropy), ``"present"`` (the same without
            weights), or the paper's ``"dice_ce"``, which is MONAI's.
        counts: counts the voxels of each class in what is trained on; asked only where it matters.
        possible: see :class:`PresentDiceCE`; None where the class of each voxel is known.
    """
    if name == "dice_ce":
        if possible is not None:
            return PresentDiceCE(None, possible, every=True)
        return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    return PresentDiceCE(class_weights(counts()) if name == "balanced" else None, possible)
