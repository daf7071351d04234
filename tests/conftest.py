"""What all tests share: real data where it is at hand, and small images made on the spot."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

# One thread for each process of computing, in the servers that tests start as well: two workers share the cores, and on
# small volumes threads cost more than they bring. Idle ones must sleep, not spin. Read when PyTorch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: what tests start must hear Ctrl+C
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# Files that take longest: a worker begins with them, so that all workers end at about the same time.
LONGEST_FIRST = (
    "tests/extension/test_loop.py",
    "tests/app/http/test_interrupted.py",
    "tests/rep3d/demo/test_demo.py",
    "tests/app/http/test_training.py",
    "tests/app/http/test_versions.py",
    "tests/rep3d/inference/test_export.py",
    "tests/app/annotate/test_flow.py",
    "tests/app/http/test_dashboard.py",
    "tests/app/annotate/test_troubles.py",
    "tests/app/http/test_batch.py",
    "tests/app/http/test_active_learning.py",
    "tests/rep3d/active/test_simulate.py",
    "tests/rep3d/training/test_distributed.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first where several workers share the tests, a file a worker (`--dist loadfile`)."""
    if hasattr(config, "workerinput"):
        places = {file: place for place, file in enumerate(LONGEST_FIRST)}
        items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


def pytest_collection_finish() -> None:
    """Look no more for garbage among all that was imported and collected: each training collects, and would take half a
    second for that."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images, which is not part of the project; tests that need it skip where it is
    absent."""
    folder = Path(os.environ.get("REP3D_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "hippocampus" / "imagesTr").is_dir():
        pytest.skip(f"no real images at {folder}: set REP3D_DATA to a folder with hippocampus/imagesTr and labelsTr")
    return folder


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Write an array as NIfTI and return its path."""

    def write(name: str, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        image = nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine, dtype=voxels.dtype)
        nib.save(image, path)
        return path

    return write
