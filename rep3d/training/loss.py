"""What a training minimises: Dice of the classes that are there, and cross-entropy of all.

Small patches of a task with many labels hold few of them, and Dice of a class that is not there is 0 or 1 by a hair:
its share of the mean says nothing and drowns the others. Here absent classes are punished by cross-entropy alone.
"""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss
from torch.nn.functional import log_softmax

__all__ = ["PresentDiceCE", "loss_function"]

_SMOOTH = 1e-5  # MONAI's


class PresentDiceCE(torch.nn.Module):
    """1 - Dice, mean over the classes (background aside) that the batch's labels have, plus cross-entropy.

    Where all classes are there, it is MONAI's ``DiceCELoss(include_background=False, to_onehot_y=True, softmax=True,
    batch=True)``. No one-hot map is made, so that with many classes it takes about half the time.
    """

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Args:
            logits: (B, C, D, H, W).
            label: (B, 1, D, H, W) channel indices.
        """
        channels = logits.shape[1]
        index = label.long()
        log_share = log_softmax(logits.float(), 1)
        log_true = log_share.gather(1, index)
        flat = index.flatten()
        voxels = torch.bincount(flat, minlength=channels).to(log_true)
        overlap = torch.zeros_like(voxels).index_add(0, flat, log_true.exp().flatten())
        found = log_share.exp().transpose(0, 1).flatten(1).sum(1)
        dice = (2 * overlap + _SMOOTH) / (found + voxels + _SMOOTH)
        present = (voxels[1:] > 0).to(dice)
        return ((1 - dice[1:]) * present).sum() / present.sum().clamp(min=1) - log_true.mean()


def loss_function(name: str) -> torch.nn.Module:
    """Return the loss of a training's settings: ``"present"``, or the paper's ``"dice_ce"``, which is MONAI's."""
    return (
        PresentDiceCE() if name == "present" else DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    )
