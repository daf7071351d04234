"""How far random changes of a patch move what is in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rep3d.imaging.transforms import augmentation
from rep3d.tasks.config import TaskConfig


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 1.5, 10.0), (5.0, 1.0, 2.0)])
def test_thick_slices_are_not_turned_out_of_the_stack(spacing: tuple[float, float, float]) -> None:
    """Each channel holds where a voxel came from, so the result tells how far it was moved."""
    shape = (64, 64, 12)
    augment = augmentation(TaskConfig("any", {"A": 1}, spacing=spacing, roi_size=shape))
    middle = (np.array(shape) - 1) / 2
    places = np.stack(np.meshgrid(*[np.arange(side, dtype=np.float32) for side in shape], indexing="ij"))
    patch = {"image": torch.zeros(1, *shape), "label": torch.zeros(1, *shape), "beside": torch.from_numpy(places)}
    farthest = np.zeros(3)
    for seed in range(60):
        augment.set_random_state(seed=seed)
        moved = np.asarray(augment(patch)["beside"]) - places
        rim = moved[:, [0, 0, 63, 63], [0, 63, 0, 63], 6]
        farthest = np.maximum(farthest, np.abs(rim).max(1) * spacing)
    # In mm: turned by 12 degrees about both other axes, scaled by 1.12, shifted by a twelfth of the patch.
    half = middle * spacing
    for axis in range(3):
        others = sum(half[other] for other in range(3) if other != axis) * np.sin(np.pi / 15)
        allowed = 1.2 * (others + 0.14 * half[axis] + spacing[axis] * (shape[axis] // 12))
        assert 0.15 * allowed < farthest[axis] <= allowed, (axis, farthest, allowed)
