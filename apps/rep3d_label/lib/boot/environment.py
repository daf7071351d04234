"""Makes sure, on import, that this Python can run the app and finds ``rep3d``. Imported first by ``main.py``.

MONAI Label 0.8.5 needs the module distutils, which Python 3.12 dropped. And a server started from a checkout shall
find the package beside it, installed or not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

__all__: list[str] = []

if not (3, 10) <= sys.version_info[:2] <= (3, 11):
    raise RuntimeError(
        f"Rep3D Label cannot start: expected Python 3.10 or 3.11 (MONAI Label needs the module distutils), "
        f"got {sys.version.split()[0]}. Make an environment with one of these two."
    )

_found = importlib.util.find_spec("rep3d")
if _found is None or _found.origin is None:  # a mere folder named rep3d, such as a studies folder has, does not count
    sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

# Idle OpenMP threads of a training must sleep, not spin: it shares the cores with the server, and spinning made a step
# several times slower. PyTorch reads this when it is first imported, so it holds for the child processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
