"""Makes sure, on import, that this Python can run the app and finds ``rep3d``. Imported first by ``main.py``.

A server started from a checkout shall find the package beside it, installed or not.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

__all__: list[str] = []

if sys.version_info < (3, 10):  # noqa: UP036 (a server started from a checkout has passed no check of pip's)
    raise RuntimeError(
        f"Rep3D Label needs Python 3.10 or later, but this is {sys.version.split()[0]}. Make its environment with that."
    )

_found = importlib.util.find_spec("rep3d")
if _found is None or _found.origin is None:  # a mere folder named rep3d, such as a studies folder has, does not count
    sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

# Idle OpenMP threads of a training must sleep, not spin: it shares the cores with the server, and spinning made a step
# several times slower. PyTorch reads this when it is first imported, so it holds for the child processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
