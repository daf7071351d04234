"""What training varies in a patch: pose, size and brightness, and always the label with the image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rep3d.imaging.transforms import augmentation
from rep3d.tasks.config import TaskConfig

SIDES = (40, 48, 32)
TASK = TaskConfig("rod", {"rod": 1}, spacing=(1.0, 1.0, 1.0), roi_size=SIDES)


def rod(along: int) -> dict[str, torch.Tensor]:
    """Return a patch with a bright rod through its middle, along one axis."""
    place = np.moveaxis(np.indices(SIDES), 0, -1) - np.asarray(SIDES) // 2
    away = np.delete(place, along, axis=-1)
    inside = (np.abs(place[..., along]) <= 10) & ((away**2).sum(-1) <= 16)
    label = torch.from_numpy(inside[None].astype(np.uint8))
    return {"image": label.float() * 2 - 1, "label": label}


def angle(label: torch.Tensor, along: int, other: int) -> float:
    """Return by how many degrees the rod is turned from one axis towards another."""
    points = torch.nonzero(label[0]).double().numpy()
    main = np.linalg.eigh(np.cov(points.T))[1][:, -1]
    return float(np.degrees(np.arctan(main[other] / main[along])))


@pytest.mark.parametrize(("orientation", "upright"), [("RAS", 2), ("SAR", 0)])
def test_patches_turn_most_about_the_axis_from_foot_to_head(orientation: str, upright: int) -> None:
    augment = augmentation(replace(TASK, orientation=orientation))
    flat = [axis for axis in range(3) if axis != upright]
    turned, tilted = [], []
    for seed in range(60):
        augment.set_random_state(seed=seed)
        label = augment(rod(flat[0]))["label"]
        turned.append(abs(angle(label, flat[0], flat[1])))
        tilted.append(abs(angle(label, flat[0], upright)))
    assert 20 < max(turned) < 50  # 30 degrees, and what unequal scales and a tilt add
    assert 6 < max(tilted) < 22  # 12 degrees
    assert np.mean(turned) > 1.5 * np.mean(tilted)


def test_sizes_vary_in_both_directions() -> None:
    augment, plain = augmentation(TASK), int(rod(1)["label"].sum())
    sizes = []
    for seed in range(60):
        augment.set_random_state(seed=seed)
        sizes.append(float(augment(rod(1))["label"].sum()) / plain)
    assert 0.4 < min(sizes) < 0.7 and 1.4 < max(sizes) < 2.3
    assert 0.85 < np.median(sizes) < 1.15


def test_the_label_stays_on_what_it_marks() -> None:
    augment = augmentation(TASK)
    seen = set()
    for seed in range(30):
        augment.set_random_state(seed=seed)
        patch = augment(rod(1))
        image, inside = patch["image"][0], patch["label"][0] == 1
        assert patch["image"].shape == patch["label"].shape == (1, *SIDES)
        assert image[inside].mean() > image[~inside].mean() + 0.8  # 2 apart before
        seen.add(round(float(image[inside].mean()), 2))
    assert len(seen) > 15  # brightness varies
