"""Rep3D: 3D segmentation with large, re-parameterised depthwise kernels (arXiv 2505.19603).

The public names below are loaded on first use, so that ``import rep3d`` and ``rep3d --help`` do not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Checkpoint": "rep3d.checkpoint",
    "Predictor": "rep3d.inference.predictor",
    "Rep3D": "rep3d.nn.rep3d",
    "Rep3DConfig": "rep3d.nn.config",
    "TaskConfig": "rep3d.tasks.config",
    "apply_lrbm": "rep3d.nn.convert",
    "build_model": "rep3d.nn.zoo",
    "depthwise_conv3d": "rep3d.nn.fastconv.conv3d",
    "load_checkpoint": "rep3d.checkpoint",
    "reparameterize": "rep3d.nn.fold",
    "save_checkpoint": "rep3d.checkpoint",
    "train": "rep3d.training.train",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'rep3d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
