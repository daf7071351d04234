"""What the tests of training train on: bright balls in noise, and a network of a few thousand weights."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.train import TrainSettings

__all__ = ["SETTINGS", "TASK", "ball_case", "ball_data_set", "small_checkpoint", "small_config"]

TASK = TaskConfig("balls", {"Ball": 3}, (1.0, 1.0, 1.0), Intensity("zscore", 0.5, 99.5), "RAS", (32, 32, 32))
SETTINGS = TrainSettings(iterations=3, crops=1, device="cpu")


def ball_case(folder: Path, seed: int, affine: np.ndarray | None = None) -> Case:
    """Return an image of 32^3 voxels with a ball somewhere near the middle, and its label (value 3)."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), -1)
    inside = np.linalg.norm(grid - random.uniform(12, 20, 3), axis=-1) < 7
    image = np.where(inside, 200.0, 60.0) + random.normal(0, 15, inside.shape)
    affine = np.eye(4) if affine is None else affine
    paths = [folder / f"case_{seed}_{kind}.nii.gz" for kind in ("image", "label")]
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
    nib.save(nib.Nifti1Image((inside * 3).astype(np.uint8), affine), paths[1])
    return Case(f"case_{seed}", *paths)


def ball_data_set(folder: Path, cases: int) -> Path:
    """Write so many cases, c0, c1, ..., as a data set without a ``dataset.json``, and return its folder."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for seed in range(cases):
        case = ball_case(folder, seed)
        case.image.rename(folder / "imagesTr" / f"c{seed}.nii.gz")
        case.label.rename(folder / "labelsTr" / f"c{seed}.nii.gz")
    return folder


def small_config(
    name: str = "tiny", in_channels: int = 1, out_channels: int = 2, roi_size: tuple[int, ...] = ()
) -> Rep3DConfig:
    """In the place of a preset: the loop is under test, not the network."""
    return Rep3DConfig(in_channels, out_channels, (4, 8, 8, 8), (1, 1, 1, 1), 8, kernel_size=7)


def small_checkpoint() -> Checkpoint:
    """Return an untrained model for :data:`TASK`; unlike a patched preset, it reaches other processes."""
    torch.manual_seed(0)
    return Checkpoint(Rep3D(small_config()).eval(), TASK, {"version": "v1", "generation": 1, "preset": "tiny"})
