"""The second stage of a version: it looks again, at its own spacing, only where the coarse stage found something.

Where the coarse stage gives all labels together a probability of `FOUND` or more, and `MARGIN_MM` around that, windows
are computed whose input is the image and the coarse stage's probability of each label, interpolated. Elsewhere the
coarse result stands. Between both the probabilities are blended, so that there is neither a seam nor a hole: what is
kept is a weighted mean of the two at each voxel, with a weight that falls to zero before the windows end.

As `FOUND` is less than a half, a voxel where the coarse stage finds a label always lies where the fine one looks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage
from torch.nn import functional

from rep3d.errors import OutOfMemoryError
from rep3d.imaging.grid import Place
from rep3d.imaging.resampling import AxisMap, axis_maps, interpolate_axis
from rep3d.imaging.transforms import ImageSteps
from rep3d.inference.region import cropped, placed, widened
from rep3d.inference.sliding import WindowTurns, check_memory, sliding_probabilities
from rep3d.inference.stage import Stage, kept_type
from rep3d.inference.views import VIEWS

__all__ = ["FOUND", "MARGIN_MM", "FineStage", "coarse_weight", "corrected"]

FOUND = 0.1  # probability of all labels together
MARGIN_MM = 12.0
_LEAST = 0.01  # probability that the coarse stage leaves to a class that it does not find


class FineStage(Stage):
    """The fine stage of a version; arguments as those of :class:`~rep3d.inference.stage.Stage`."""

    @torch.inference_mode()
    def refine(self, image: MetaTensor, coarse: MetaTensor, views: int, turns: WindowTurns) -> MetaTensor | None:
        """Look again at an image.

        Args:
            image: (K, X, Y, Z) as :meth:`rep3d.imaging.transforms.ImageSteps.read` gives it.
            coarse: (C, D, H, W) probabilities of the coarse stage.
            views: test-time views; those of them that do not move the image are averaged.
            turns: computes the windows; where memory does not suffice, its ``fallback`` says so.

        Returns:
            (C, D, H, W) probabilities on a part of the fine grid, outside of which the coarse ones stand; None where
            they stand everywhere.

        Raises:
            InferenceCancelled: if the request was cancelled.
        """
        weight = coarse_weight(coarse)
        found: list[Place] = ndimage.find_objects((weight[0] > 0).numpy().astype(np.uint8))
        if not found:
            return None
        steps = ImageSteps(self.task)
        try:
            whole = steps.scaled(steps.spaced(image))
            place = placed(cropped(coarse, found[0]), whole)
            window = self.window(tuple(whole.shape[1:]))
            part = cropped(whole, widened(place, window, tuple(whole.shape[1:])))
            del whole
            return MetaTensor(self._computed(part, coarse, weight, views, turns), affine=part.affine)
        except OutOfMemoryError as error:
            turns.fallback = f"{error} What the coarse stage found was kept instead."
            return None

    def _computed(
        self, part: MetaTensor, coarse: MetaTensor, weight: torch.Tensor, views: int, turns: WindowTurns
    ) -> torch.Tensor:
        shape = tuple(part.shape[1:])
        window = self.window(shape)
        channels, kind = self.task.out_channels, kept_type(self.task.out_channels, shape)
        seen = [view for view in VIEWS[:views] if not view.moves]
        padded = tuple(max(side, length) for side, length in zip(window, shape, strict=True))
        check_memory(channels, padded, maps=min(len(seen), 2), each=kind.itemsize, window=window)
        beneath = _Beneath(coarse, weight, part)
        self.settle_engine(turns, len(seen) * self.work(shape))
        total: torch.Tensor | None = None
        for view in seen:
            with self.in_use(turns.engine):
                found = sliding_probabilities(
                    view.shaded(part.as_tensor()),
                    window,
                    turns,
                    channels,
                    wanted=beneath.is_found,
                    beside=beneath.labels,
                    correct=corrected,
                    finish=beneath.blend,
                    dtype=kind,
                    overlap=self.way.overlap,
                )
            total = found if total is None else total.add_(found)
        assert total is not None, "the plain view is always among them"
        return total.div_(len(seen)) if len(seen) > 1 else total


def corrected(logits: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Return what a fine network's logits mean: by how much each class is likelier than the coarse stage says.

    So a network that says nothing yet is as good as the coarse stage, and a short training can only add to that.

    Args:
        logits: (B, C, D, H, W) of the network.
        seen: (B, K + C - 1, D, H, W) what it saw: the image's channels, and the coarse probability of each label.
    """
    labels = seen[:, seen.shape[1] - logits.shape[1] + 1 :]
    said = torch.cat([1.0 - labels.sum(1, keepdim=True), labels], 1)
    return logits + said.clamp(min=_LEAST).log().to(logits.dtype)


def coarse_weight(coarse: MetaTensor) -> torch.Tensor:
    """Return (1, D, H, W) how much the fine stage counts: 1 around what was found, falling to 0 at the margin."""
    spacing = coarse.affine[:3, :3].norm(dim=0).tolist()
    weight = (coarse.as_tensor()[0] <= 1 - FOUND).float()[None, None]
    reach = [math.ceil(MARGIN_MM / side) for side in spacing]
    for axis in range(3):  # along one axis after the other, as in `rep3d.inference.uncertainty`
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * reach[axis] + 1, reach[axis]
        weight = functional.max_pool3d(weight, kernel, 1, padding)
    for axis in range(3):
        kernel, padding = [1, 1, 1], [0, 0, 0]
        kernel[axis], padding[axis] = 2 * (reach[axis] // 2) + 1, reach[axis] // 2
        weight = functional.avg_pool3d(weight, kernel, 1, padding, count_include_pad=False)
    return weight[0]


class _Beneath:
    """What the coarse stage says at places of the fine grid.

    Args:
        coarse: (C, D, H, W) its probabilities.
        weight: (1, D, H, W) how much the fine stage counts there.
        fine: (1, d, h, w) a volume on the fine grid; places are seen from its first corner.
    """

    def __init__(self, coarse: MetaTensor, weight: torch.Tensor, fine: MetaTensor) -> None:
        shape = tuple(coarse.shape[1:])
        maps = axis_maps(shape, coarse.affine.numpy(), tuple(fine.shape[1:]), fine.affine.numpy())
        assert maps is not None and [along.source for along in maps] == [0, 1, 2], "both are grids of one image"
        self._maps = maps
        self._coarse = coarse.as_tensor()
        self._weight = weight

    def is_found(self, place: Place) -> bool:
        """Return whether the fine stage counts anywhere in a place."""
        ranges = [self._range(axis, part) for axis, part in enumerate(place)]
        weight = self._weight[(slice(None), *(slice(low, high + 1) for low, high, _ in ranges))]
        return bool((weight > 0).any())

    def labels(self, place: Place) -> torch.Tensor:
        """Return the coarse probabilities of all labels, background left out, at a place (C - 1, d, h, w)."""
        return self._interpolated(self._coarse[1:], place)

    def blend(self, fine: torch.Tensor, place: Place) -> torch.Tensor:
        """Return the weighted mean of the fine probabilities (C, d, h, w) and the coarse ones."""
        coarse = self._interpolated(self._coarse, place)
        return coarse.lerp(fine, self._interpolated(self._weight, place))

    def _range(self, axis: int, part: slice) -> tuple[int, int, np.ndarray]:
        """Return the first and last coarse voxel that a place needs, and the positions of its voxels among all."""
        position = self._maps[axis].position
        # A window may reach over the rim, beyond which the rim goes on.
        position = position[np.clip(np.arange(part.start, part.stop), 0, len(position) - 1)]
        last = self._coarse.shape[1 + axis] - 1
        return int(position.min()), min(math.ceil(position.max()), last), position

    def _interpolated(self, volume: torch.Tensor, place: Place) -> torch.Tensor:
        ranges = [self._range(axis, part) for axis, part in enumerate(place)]
        found = volume[(slice(None), *(slice(low, high + 1) for low, high, _ in ranges))]
        for axis, (low, _, position) in enumerate(ranges):
            found = interpolate_axis(found, 1 + axis, AxisMap(axis, position - low))
        return found.float()
