"""Small images and label maps for tests, written as real NIfTI files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from rep3d.checkpoint import save_checkpoint
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Channel, Intensity, TaskConfig

__all__ = [
    "CONF",
    "LABELS",
    "SHAPE",
    "publish_small_model",
    "snapshot",
    "unchanged",
    "write_image",
    "write_label",
    "write_nifti",
]

LABELS = {"head": 1, "tail": 3}
CONF = {"labels": ",".join(f"{name}={value}" for name, value in LABELS.items()), "device": "cpu"}
SHAPE = (24, 20, 18)
MODEL_SEEDS = {1: 5, 2: 8}  # of the untrained network, by channels: with it, it finds both labels in every image
# Left-handed and oblique, as scanners write them.
AFFINE = np.array([[-1.0, 0.1, 0.0, 12.0], [0.1, 1.0, 0.0, -9.0], [0.0, 0.0, 1.2, 4.0], [0.0, 0.0, 0.0, 1.0]])


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """Write an array as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)
    return path


def _organ(seed: int) -> np.ndarray:
    """Return a ball of which the upper half is the head and the lower half the tail, somewhere near the middle."""
    random = np.random.default_rng(seed)
    centre = np.array(SHAPE) / 2 + random.uniform(-2, 2, 3)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    ball = np.linalg.norm(grid - centre, axis=-1) < 6
    return np.where(ball, np.where(grid[..., 2] > centre[2], LABELS["head"], LABELS["tail"]), 0).astype(np.uint8)


def write_image(path: Path, seed: int = 0) -> Path:
    """Return an image in which the two labels are bright and brighter."""
    noise = np.random.default_rng(seed).normal(0, 5, SHAPE)
    return write_nifti(path, (100 + 40 * _organ(seed) + noise).astype(np.int16))


def write_label(path: Path, seed: int = 0) -> Path:
    """Return the true label of :func:`write_image` with the same seed."""
    return write_nifti(path, _organ(seed))


def publish_small_model(studies: Path, labels: dict[str, int] | None = None, channels: Sequence[str] = ()) -> Path:
    """Put an untrained network of a few thousand weights where a server looks for its published model.

    Args:
        studies: the studies folder.
        labels: of the model.
        channels: names of an image's channels; none for one.
    """
    labels = labels or LABELS
    config = Rep3DConfig(
        in_channels=len(channels) or 1,
        out_channels=len(labels) + 1,
        dims=(4, 8, 8, 16),
        depths=(1, 1, 1, 1),
        hidden_size=16,
        kernel_size=5,
        generator_kernel=3,
    )
    path = studies / "rep3d" / "published.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(MODEL_SEEDS[config.in_channels])
        network = Rep3D(config)
    info = {"version": "v1", "generation": 1, "created": "2024-01-01T00:00:00+00:00", "cases": [], "preset": "tiny"}
    known = tuple(Channel(name, Intensity()) for name in channels)
    save_checkpoint(path, network, TaskConfig("test", labels, roi_size=(32, 32, 32), channels=known), info)
    return path


def snapshot(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its SHA-256; aside from logs, and what a server writes when it has time."""
    later = {".lock", "image_facts.json", "label_records", "audit", "identities.key"}
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not later & set(file.parts))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Assert that no file below a folder was added, changed or removed meanwhile."""
    before = snapshot(folder)
    yield
    after = snapshot(folder)
    changed = sorted({name for name, _ in before.items() ^ after.items()})
    assert not changed, f"added, changed or removed: {changed}"
