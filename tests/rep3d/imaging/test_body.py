"""No part of the patient is ever outside of the mask, and air, table and couch are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rep3d.imaging.body import BodyMask, body_mask

SPACING = (4.0, 4.0, 4.0)
SHAPE = (110, 96, 30)  # right, anterior, superior
AIR, TISSUE, LUNG = -1000.0, 40.0, -800.0


def _ellipse(centre: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
    x, y, _ = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 + np.zeros(SHAPE) < 1


BODY = _ellipse((48, 58), (34, 24))
ARM = _ellipse((96, 56), (7, 8))
LUNGS = _ellipse((30, 58), (12, 15)) | _ellipse((66, 58), (12, 15))
COUCH = np.zeros(SHAPE, bool)
COUCH[10:100, 18:20] = True  # a plate of 8 mm, 5 voxels below the back
COUCH[10:100, 8] = True


def _ct(noise: float = 20.0) -> np.ndarray:
    hounsfield = np.full(SHAPE, AIR, np.float32)
    hounsfield[BODY | ARM] = TISSUE
    hounsfield[LUNGS] = LUNG
    hounsfield[COUCH] = -100
    return hounsfield + np.random.default_rng(0).normal(0, noise, SHAPE).astype(np.float32)


def _inside(mask: BodyMask, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask voxel by voxel."""
    cells = np.kron(mask.cells, np.ones(mask.size, bool))
    return cells[tuple(slice(0, side) for side in shape)]


def _found(image: np.ndarray, hounsfield: bool = True, spacing: tuple[float, ...] = SPACING) -> np.ndarray:
    return _inside(body_mask(torch.from_numpy(image)[None], spacing, "RAS", [hounsfield]), image.shape)


def test_body_arm_and_lungs_are_inside_and_air_and_couch_are_not() -> None:
    found = _found(_ct())
    assert found[BODY | ARM | LUNGS].all()
    assert not found[:, :13].any()  # below the couch's upper plate, with the margin of the back
    assert not found[:4].any() and not found[:, -8:].any()
    assert found.mean() < 0.65


def test_a_body_part_at_the_rim_is_kept_and_so_is_a_lung_that_the_rim_cuts_open() -> None:
    cut = np.ascontiguousarray(_ct()[28:75, 40:76])  # through both lungs
    lungs = LUNGS[28:75, 40:76]
    assert lungs[0].any() and _found(cut)[lungs].all()
    arm = np.ascontiguousarray(_ct()[90:])  # the arm alone, which touches no side
    assert _found(arm)[ARM[90:]].all()


@pytest.mark.parametrize("low", [-125.0, 0.0])
def test_an_image_without_air_is_computed_but_for_what_is_certainly_outside(low: float) -> None:
    clipped = np.clip(_ct(), low, 275)
    found = _found(clipped)
    assert found[BODY | ARM | LUNGS].all()
    assert not found[:, -1].any()
    assert _found(np.ascontiguousarray(clipped[28:75, 40:76])).all()  # no air around: all of it may be the patient
    assert _found(_ct() + 1024)[BODY | ARM | LUNGS].all()  # no HU, though the task says so


def test_of_other_images_only_what_is_certainly_background_is_outside() -> None:
    random = np.random.default_rng(1)
    signal = np.where(BODY | ARM, 300.0, 0.0) * np.linspace(0.3, 1.7, SHAPE[0])[:, None, None]  # with a bias field
    image = np.hypot(signal + random.normal(0, 8, SHAPE), random.normal(0, 8, SHAPE)).astype(np.float32)
    found = _found(image, hounsfield=False)
    assert found[BODY | ARM].all() and not found[:, -1].any()
    crop = np.ascontiguousarray(image[30:60, 45:70, 5:25])  # the field of view is all body
    assert body_mask(torch.from_numpy(crop)[None], SPACING, "RAS", [False]).cells.all()
    assert _found(np.zeros((20, 20, 20), np.float32), hounsfield=False).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 30)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 12)] * 3),
    seed=st.integers(0, 99),
    hounsfield=st.booleans(),
)
def test_of_any_image_the_box_holds_the_mask_and_windows_with_any_of_it_are_known(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int, hounsfield: bool
) -> None:
    random = np.random.default_rng(seed)
    image = np.full(shape, AIR, np.float32)
    corner = [random.integers(0, side) for side in shape]
    image[tuple(slice(first, first + 9) for first in corner)] = TISSUE
    mask = body_mask(torch.from_numpy(image)[None], spacing, "RAS", [hounsfield])
    inside = _inside(mask, shape)
    assert inside.any()
    box = mask.box(shape)
    outside = inside.copy()
    outside[box] = False
    assert not outside.any()
    place = tuple(slice(int(random.integers(-5, side)), side + 3) for side in shape)
    clipped = tuple(slice(max(part.start, 0), side) for part, side in zip(place, shape, strict=True))
    assert mask.holds(place) >= inside[clipped].any()  # type: ignore[arg-type]
    moved = mask.within(box)
    whole = tuple(slice(0, part.stop - part.start) for part in box)
    assert moved.holds(whole) and moved.box(tuple(part.stop for part in whole)) == whole  # type: ignore[arg-type]
