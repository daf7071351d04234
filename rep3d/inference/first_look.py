"""A first look at half the resolution, so that a network is computed only around what it found there.

It is the same network, which has never met such an image: it may overlook what is small, or faint. So a version takes a
first look only where that was measured to change nothing (`rep3d.inference.tuned`). Where nothing at all is found, all
of the image is computed.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch.nn import functional

from rep3d.imaging.body import BodyMask
from rep3d.inference.fine import FOUND, MARGIN_MM
from rep3d.inference.region import cropped, widened
from rep3d.inference.sliding import WindowTurns, sliding_probabilities
from rep3d.inference.stage import Stage

__all__ = ["worth_computing"]

_PAYS = 3  # how much more work the whole image must be than the first look at it and one window


@torch.inference_mode()
def worth_computing(stage: Stage, part: MetaTensor, body: BodyMask, turns: WindowTurns) -> tuple[MetaTensor, BodyMask]:
    """Return what of an image is worth computing, and which windows in it.

    Args:
        stage: the network.
        part: (K, D, H, W) as the network sees it.
        body: where the patient is in it.
        turns: computes the windows.

    Returns:
        The smallest part that holds all that was found and a margin, never narrower than a window, and a mask of that.
        What was given, where the image is too small for it to pay, or nothing was found.

    Raises:
        InferenceCancelled: if the request was cancelled.
    """
    spacing = part.affine[:3, :3].norm(dim=0).tolist()
    # Slices that lie far apart stay as they are: a network knows voxels of about one shape.
    size = tuple(2 if side < 2 * min(spacing) else 1 for side in spacing)
    shape = tuple(part.shape[1:])
    seen = tuple(math.ceil(length / count) for length, count in zip(shape, size, strict=True))
    if stage.work(shape) < _PAYS * (stage.work(seen) + math.prod(stage.window(shape))):
        return part, body
    small = functional.avg_pool3d(part.as_tensor()[None], size, ceil_mode=True, count_include_pad=False)[0]
    stage.settle_engine(turns, stage.work(seen))
    with stage.in_use(turns.engine):
        found = sliding_probabilities(
            small, stage.window(seen), turns, stage.task.out_channels, overlap=stage.way.overlap
        )
    labelled = (found[0] <= 1 - FOUND).numpy()
    if not labelled.any():
        return part, body
    reach = [2 * math.ceil(MARGIN_MM / (side * count)) + 1 for side, count in zip(spacing, size, strict=True)]
    around = ndimage.maximum_filter(labelled.view(np.uint8), reach).astype(bool)
    mask = BodyMask(around, (size[0], size[1], size[2]))
    place = widened(mask.box(shape), stage.window(shape), shape)
    return cropped(part, place), mask.within(place)
