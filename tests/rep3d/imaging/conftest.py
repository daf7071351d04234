"""An oblique image for the tests of geometry and labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.rep3d.imaging.grids import OBLIQUE


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    return write_nifti("image.nii.gz", np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7), OBLIQUE)
