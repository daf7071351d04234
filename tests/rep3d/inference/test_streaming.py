"""Labels with one layer of windows in memory are those of MONAI's sliding window with all scores at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from rep3d.imaging.grid import Geometry
from rep3d.inference.label_resampling import decide
from rep3d.inference.streaming import streamed_labels


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [
        ((37, 20, 23), (16, 16, 16), 0.25),
        ((12, 41, 9), (16, 16, 16), 0.5),
        ((16, 18, 50), (16, 8, 16), 0.25),
        ((7, 6, 5), (16, 8, 8), 0.5),
    ],
)
def test_labels_are_those_of_all_scores_at_once(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: float
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 5, 3, padding=1)  # its zero padding makes each window's rim its own
    image = np.random.default_rng(1).normal(size=shape).astype(np.float16)
    with torch.no_grad():
        inferer = SlidingWindowInferer(window, 1, overlap, "gaussian")
        expected = torch.as_tensor(inferer(torch.from_numpy(image.astype(np.float32))[None, None], network))[0]
        found = _joined(image, np.eye(4), Geometry(shape, np.eye(4)), window, overlap, network, range(5))
    two = expected.topk(2, 0).values
    clear = (two[0] - two[1] > 1e-5).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected.argmax(0).numpy()[clear])


def _joined(
    image: np.ndarray,
    affine: np.ndarray,
    grid: Geometry,
    window: tuple[int, ...],
    overlap: float,
    network: torch.nn.Module,
    values: Sequence[int],
) -> np.ndarray:
    """Return the labels of a whole image; each voxel must come once."""
    found, times = np.zeros(grid.shape, int), np.zeros(grid.shape, int)
    with torch.no_grad():
        for place, part in streamed_labels(
            image[None], affine, grid, window, overlap, network, values, torch.device("cpu")
        ):
            found[place] = part
            times[place] += 1
    assert (times == 1).all()
    return found


@pytest.mark.parametrize("spacing", [(0.7, 1.3, 0.9), (2.1, 1.0, 3.4), (0.25, 0.5, 0.125)])
@pytest.mark.parametrize("turned", ["as it is", "flipped", "axes exchanged", "oblique", "sheared"])
def test_an_images_own_voxels_are_decided_as_with_all_probabilities_at_once(
    spacing: tuple[float, float, float], turned: str
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 4, 3, padding=1)
    shape, values = (21, 18, 37), [0, 3, 7, 300]
    image = np.random.default_rng(1).normal(size=shape).astype(np.float16)
    turn = np.eye(4)
    if turned == "axes exchanged":
        turn[:3, :3] = np.eye(3)[[2, 0, 1]] * [1, -1, 1]
    elif turned == "flipped":
        turn[:3, :3] = np.diag([-1, 1, -1])
    elif turned == "sheared":
        turn[0, 1] = 0.3
    own = turn @ np.diag([*spacing, 1.0])
    size = tuple(int(n) for n in np.maximum(np.abs(np.linalg.inv(own[:3, :3])) @ np.array(shape), 1) + 2)
    own[:3, 3] = (np.array(shape) - 1) / 2 - own[:3, :3] @ (np.array(size) - 1) / 2
    affine = np.eye(4)
    if turned == "oblique":
        affine[:3, :3] = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
        own = affine @ own
    grid = Geometry(size, own)
    with torch.no_grad():
        found = _joined(image, affine, grid, (16, 16, 16), 0.25, network, values)
        inferer = SlidingWindowInferer((16, 16, 16), 1, 0.25, "gaussian")
        scores = torch.as_tensor(inferer(torch.from_numpy(image.astype(np.float32))[None, None], network))[0]
    expected = decide(scores.softmax(0), affine, grid, values).values
    assert (found != expected).mean() < 1e-4 and len(np.unique(expected)) == 4
