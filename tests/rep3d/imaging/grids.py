"""Grids as scanners make them."""

from __future__ import annotations

import numpy as np

OBLIQUE = np.array([[0.9, -0.3, 0.1, -20], [0.3, 0.9, -0.2, 5], [0.0, 0.25, 1.8, 7], [0, 0, 0, 1.0]])
LEFT_HANDED = np.diag([-1.0, 1.0, 2.5, 1.0])
AFFINES = [np.eye(4), OBLIQUE, LEFT_HANDED, np.array([[0, 0, 2.0, 1], [-1, 0, 0, 2], [0, 1.5, 0, 3], [0, 0, 0, 1]])]
