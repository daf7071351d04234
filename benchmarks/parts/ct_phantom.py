"""Large CTs to measure on: a body with organs, lungs and an arm, on a table, in air; in HU, with a scanner's noise."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

__all__ = ["LABELS", "Rule", "WINDOW", "write_ct"]

LABELS = {f"organ_{number:02}": number for number in range(1, 14)}
WINDOW = (-125.0, 275.0)
_LEVELS = np.linspace(-10, 230, 13)  # HU of the organs
_FAT, _AIR, _LUNG, _COUCH = -100.0, -1000.0, -820.0, -60.0
_NOISE = 6.0
_NOWHERE = 4000.0  # HU that no voxel has


def write_ct(path: Path, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Path:
    """Write a CT slice by slice, so that it takes little memory besides the voxels.

    Args:
        path: NIfTI file to write.
        shape: voxels along right, anterior, superior.
        spacing: voxel size in mm.
    """
    random = np.random.default_rng(0)
    voxels = np.empty(shape, np.int16, order="F")
    noise = random.normal(0, _NOISE, (*shape[:2], 8)).astype(np.float32)
    x = ((np.arange(shape[0]) + 0.5) / shape[0] - 0.45)[:, None]
    y = ((np.arange(shape[1]) + 0.5) / shape[1] - 0.55)[None, :]
    centres = random.uniform((-0.2, -0.13, 0.1), (0.2, 0.13, 0.7), (13, 3))
    radii = random.uniform(0.03, 0.07, 13)
    for number in range(shape[2]):
        z = (number + 0.5) / shape[2]
        plane = np.full(shape[:2], _AIR, np.float32)
        plane[(x / 0.34) ** 2 + (y / 0.25) ** 2 < 1] = _FAT
        plane[((x - 0.46) / 0.06) ** 2 + (y / 0.07) ** 2 < 1] = _FAT
        plane[np.broadcast_to((y > -0.36) & (y < -0.35) & (abs(x) < 0.4), plane.shape)] = _COUCH
        for side in (-1, 1):
            plane[((x - side * 0.15) / 0.1) ** 2 + (y / 0.15) ** 2 < (z - 0.75) * 4] = _LUNG
        for centre, radius, level in zip(centres, radii, _LEVELS, strict=True):
            plane[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < radius**2] = level
        voxels[:, :, number] = plane + noise[:, :, number % 8]
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)
    return path


class Rule(torch.nn.Module):
    """A network that takes its own time and memory, but answers as a trained one might: with the organs.

    Random weights would answer with noise, which takes longer to decide and to write than any label map does.

    Args:
        network: maps windows (B, C, D, H, W) to logits (B, 14, D, H, W).
        every: compute it at every so-many-th call only, where nothing but memory is measured.
        classes: of the network; those that there are no organs for are found nowhere.
    """

    def __init__(self, network: torch.nn.Module, every: int = 1, classes: int = 14) -> None:
        super().__init__()
        self._network = network
        self._every = every
        self._calls = 0
        low, high = WINDOW
        levels = (np.array([_FAT, *_LEVELS, *[_NOWHERE] * (classes - 14)]) - low) / (high - low)
        self._levels: torch.Tensor
        self.register_buffer("_levels", torch.tensor(levels, dtype=torch.float32).reshape(1, -1, 1, 1, 1))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows (B, C, D, H, W) to logits (B, 14, D, H, W), after the network has computed its own."""
        if self._calls % self._every == 0:
            logits = self._network(windows)
        else:
            logits = windows.new_empty(len(windows), self._levels.numel(), *windows.shape[2:])
        self._calls += 1
        return self.answer(windows, logits)

    def answer(self, windows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Write the organs over what a network computed of the windows, and return it."""
        seen = torch.nn.functional.avg_pool3d(windows[:, :1], 3, 1, 1, count_include_pad=False)
        return torch.sub(seen, self._levels, out=logits).square_().mul_(-3000)
