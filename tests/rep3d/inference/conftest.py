"""MONAI's sliding window as the reference for ours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import monai.inferers.utils
import numpy as np
import pytest
from monai.data.utils import dense_patch_slices


@pytest.fixture(autouse=True)
def evenly_laid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the windows of MONAI's inferer apart evenly, as nnU-Net lays them; how many there are stays as it is.

    Left to itself, it moves the last one along each axis back into the image.
    """

    def slices(
        image: Sequence[int], window: Sequence[int], interval: Sequence[int], return_slice: bool = True
    ) -> list[tuple[slice, ...]]:
        assert return_slice
        places = dense_patch_slices(image, window, interval)
        axes = []
        for axis, side in enumerate(window):
            starts = {place[axis].start for place in places}
            even = np.linspace(0, max(starts), len(starts)).round().astype(int).tolist()
            axes.append([slice(start, start + side) for start in even])
        return list(product(*axes))

    monkeypatch.setattr(monai.inferers.utils, "dense_patch_slices", slices)
