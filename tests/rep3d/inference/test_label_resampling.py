"""Labels on the image's own grid are those that interpolating every class at every voxel gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

from rep3d.imaging.grid import Geometry
from rep3d.inference.label_resampling import decide, interpolated_map

AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.5, 0, 7], [0, 0, 2.0, -30], [0, 0, 0, 1.0]])


def _everything_interpolated(probabilities: torch.Tensor, affine: np.ndarray, grid: Geometry) -> torch.Tensor:
    """Return the plain way: MONAI's, in float64, all classes at once."""
    resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=True, dtype=torch.float64)
    volume = MetaTensor(probabilities, affine=torch.as_tensor(affine))
    return torch.as_tensor(resample(volume, dst_affine=torch.as_tensor(grid.affine), spatial_size=grid.shape))


def _smooth(channels: int, shape: tuple[int, ...], sharpness: float) -> torch.Tensor:
    """Class probabilities with regions, as a network's."""
    coarse = torch.rand(1, channels, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0].mul(sharpness).softmax(0)


def _noise(channels: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(channels, *shape, generator=torch.Generator().manual_seed(2)).softmax(0)


def _grids() -> dict[str, Geometry]:
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilt = np.eye(4)
    tilt[1:3, 1:3] = turn[:2, :2]
    swapped = np.zeros((4, 4))
    swapped[[2, 0, 1, 3], [0, 1, 2, 3]] = [-1.2, 0.6, 0.6, 1]
    swapped[:3, 3] = (-18, 9, 40)
    sheared = np.diag([0.9, 1.1, 1.6, 1.0])
    sheared[0, 2] = 0.3
    grids = {
        "fine": Geometry((75, 70, 33), np.diag([0.75, 0.75, 1.0, 1.0])),
        "coarse": Geometry((11, 13, 7), np.diag([3.1, 3.3, 7.0, 1.0])),
        "same": Geometry((30, 27, 22), np.diag([1.5, 1.5, 2.0, 1.0])),
        "flipped": Geometry((75, 70, 33), np.diag([-0.75, -0.75, 1.0, 1.0])),
        "anisotropic": Geometry((90, 20, 9), np.diag([0.5, 2.0, 5.0, 1.0])),
        "one slice": Geometry((40, 40, 1), np.diag([1.0, 1.0, 1.0, 1.0])),
        "oblique": Geometry((40, 44, 40), turn @ tilt @ np.diag([0.8, 0.9, 1.3, 1.0])),
        "oblique left-handed": Geometry((40, 44, 40), tilt @ np.diag([-0.8, 0.9, 1.3, 1.0])),
        "sheared": Geometry((40, 40, 24), sheared),
    }
    for name, grid in grids.items():
        # The rims lie beside each other, so that some voxels are outside the probabilities' grid.
        grid.affine[:3, 3] = (-22, 4, -33) if name not in ("flipped", "oblique left-handed") else (22, 40, -33)
    return {**grids, "axes exchanged": Geometry((50, 60, 66), swapped)}


@pytest.mark.parametrize("name", list(_grids()))
@pytest.mark.parametrize("kind", ["regions", "soft", "noise", "sure", "two classes"])
def test_voxel_for_voxel_as_interpolating_everything(name: str, kind: str) -> None:
    grid = _grids()[name]
    shape = (30, 27, 22)
    channels = 2 if kind == "two classes" else 6
    probabilities = {
        "regions": lambda: _smooth(channels, shape, 40),
        "soft": lambda: _smooth(channels, shape, 3),
        "noise": lambda: _noise(channels, shape),
        "sure": lambda: torch.nn.functional.one_hot(_noise(channels, shape).argmax(0), channels).movedim(-1, 0).float(),
        "two classes": lambda: _smooth(channels, shape, 20),
    }[kind]()
    values = [0, 9, 300, 4, 5, 1][:channels]
    expected = _everything_interpolated(probabilities, AFFINE, grid)
    found = decide(probabilities, AFFINE, grid, values)
    first, second = expected.topk(2, dim=0).values
    clear = (first - second > 1e-4).numpy()  # ties may fall either way in float32
    assert clear.mean() > (0.4 if kind == "sure" else 0.95)
    wanted = np.asarray(values)[expected.argmax(0).numpy()]
    np.testing.assert_array_equal(found.values[clear], wanted[clear])
    assert found.counts == [int((found.values == value).sum()) for value in values]
    assert found.values.dtype == (np.uint16 if max(values) > 255 else np.uint8)


def test_ties_go_to_the_first_class() -> None:
    probabilities = torch.full((4, 8, 8, 8), 0.25)
    assert not decide(
        probabilities, np.eye(4), Geometry((16, 16, 16), np.diag([0.5, 0.5, 0.5, 1])), [0, 1, 2, 3]
    ).values.any()


def test_a_class_that_is_the_highest_at_no_voxel_can_still_win_between_two() -> None:
    """p(middle) is 0.4 at both ends, where 0.6 goes to another class each: half-way it is 0.4 against 0.3."""
    probabilities = torch.zeros(3, 2, 1, 1)
    probabilities[:, 0, 0, 0] = torch.tensor([0.6, 0.4, 0.0])
    probabilities[:, 1, 0, 0] = torch.tensor([0.0, 0.4, 0.6])
    found = decide(probabilities, np.eye(4), Geometry((3, 1, 1), np.diag([0.5, 1, 1, 1.0])), [0, 1, 2])
    assert found.values.ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["fine", "oblique", "axes exchanged"])
def test_a_region_is_the_same_as_that_part_of_the_whole(name: str) -> None:
    grid = _grids()[name]
    probabilities = _smooth(5, (30, 27, 22), 30)
    whole = decide(probabilities, AFFINE, grid, [0, 1, 2, 3, 4])
    region = (slice(5, 31), slice(2, 19), slice(1, 25))
    part = decide(probabilities, AFFINE, grid, [0, 1, 2, 3, 4], region)
    np.testing.assert_array_equal(part.values[region], whole.values[region])
    outside = np.ones(grid.shape, bool)
    outside[region] = False
    assert not part.values[outside].any()
    assert sum(part.counts) == part.values[region].size


@pytest.mark.parametrize("name", ["fine", "flipped", "oblique"])
def test_a_map_of_shares_is_interpolated_linearly(name: str) -> None:
    grid = _grids()[name]
    share = _smooth(3, (30, 27, 22), 10)[:1]
    expected = _everything_interpolated(share, AFFINE, grid)[0]
    found = interpolated_map(share[0], AFFINE, grid)
    assert np.abs(found / 255 - expected.numpy()).max() <= 0.5 / 255 + 1e-4
