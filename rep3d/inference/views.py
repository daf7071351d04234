"""Test-time views: the same image as training might have shown it, so that the predictions can be averaged or compared.

Mirroring, the usual choice, is not among them: the network has never met a mirrored patient, and where labels come in
pairs (left kidney, right kidney) a mirrored view is a wrong one. What is varied is what the augmentation of
`rep3d.imaging.transforms` varies: contrast, brightness, a small rotation about the body's long axis, and where the
windows lie. The list is fixed, so that the same image always gives the same result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from monai.transforms import AdjustContrast
from torch.nn import functional

from rep3d.errors import ConfigError

__all__ = ["MAX_VIEWS", "VIEWS", "View", "check_views"]

_SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class View:
    """One way to look at an image.

    Attributes:
        gamma: exponent of the contrast curve.
        offset: added to the scaled intensities.
        degrees: rotation about the third axis, in the plane of the first two.
        shift: by which share of a window the windows are moved.
    """

    gamma: float = 1.0
    offset: float = 0.0
    degrees: float = 0.0
    shift: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the image, or the windows on it, lie elsewhere than they did."""
        return bool(self.degrees or self.shift)

    def shaded(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image with this view's contrast and brightness, in its place."""
        if self.gamma != 1.0:
            image = torch.as_tensor(AdjustContrast(self.gamma)(image)).as_subclass(torch.Tensor)
        return image + self.offset if self.offset else image

    def predict(
        self, image: torch.Tensor, window: tuple[int, ...], predict: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Return what the network says to this view, brought back onto the image's grid.

        Args:
            image: (1, D, H, W), scaled as the task says.
            window: the sliding window (D, H, W).
            predict: maps such an image to (C, D, H, W) class probabilities.
        """
        seen = self.shaded(image)
        before = [round(side * self.shift) for side in window]
        if any(before):
            padding = [width for side in reversed(before) for width in (side, 0)]
            seen = functional.pad(seen[None], padding, mode="replicate")[0]
        probabilities = predict(_rotated(seen, self.degrees))
        found = _rotated(probabilities, -self.degrees)
        return found[:, before[0] :, before[1] :, before[2] :]


VIEWS = (
    View(),
    View(gamma=0.8),
    View(degrees=6.0),
    View(gamma=1.25),
    View(degrees=-6.0),
    View(shift=0.25),
    View(offset=0.05),
    View(offset=-0.05),
)
MAX_VIEWS = len(VIEWS)


def check_views(views: int) -> int:
    """Return the number, if so many views can be had.

    Raises:
        ConfigError: if it is none from 1 (the plain image) to `MAX_VIEWS`.
    """
    if isinstance(views, bool) or not isinstance(views, int) or not 1 <= views <= MAX_VIEWS:
        raise ConfigError(f"views: expected a whole number from 1 (no augmentation) to {MAX_VIEWS}, got {views!r}")
    return views


def _rotated(volume: torch.Tensor, degrees: float) -> torch.Tensor:
    """Return a volume (C, D, H, W) rotated in the plane of D and H about its middle; outside, its rim goes on."""
    if not degrees:
        return volume
    angle = math.radians(degrees)
    channels, height, width, slices = volume.shape
    ratio = max(width - 1, 1) / max(height - 1, 1)  # grid_sample's coordinates run from -1 to 1 along either axis
    matrix = torch.tensor(
        [
            [math.cos(angle), math.sin(angle) / ratio, 0.0],
            [-math.sin(angle) * ratio, math.cos(angle), 0.0],
        ]
    )[None]
    grid = functional.affine_grid(matrix, [1, channels, height, width], align_corners=True)
    result = torch.empty_like(volume)
    for first in range(0, slices, _SLICES_AT_ONCE):
        part = volume[..., first : first + _SLICES_AT_ONCE]
        count = part.shape[-1]
        flat = part.permute(0, 3, 1, 2).reshape(1, channels * count, height, width).float()
        turned = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="border", align_corners=True)
        result[..., first : first + count] = turned.reshape(channels, count, height, width).permute(0, 2, 3, 1)
    return result
