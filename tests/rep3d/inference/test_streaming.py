"""Labels with one layer of windows in memory are those of MONAI's sliding window with all scores at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

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
        found = streamed_labels(image[None], window, overlap, network, 5, torch.device("cpu"))
    assert found.shape == shape and found.dtype == np.uint8
    two = expected.topk(2, 0).values
    clear = (two[0] - two[1] > 1e-5).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected.argmax(0).numpy()[clear])
