"""What the helper process does with files of this computer alone: no server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from ..images.compose import Composed, compose, on_grid
from ..images.nifti import read_grid, read_volume, write_label, write_volume
from ..images.segnrrd import read
from .task import Task

__all__ = ["compose_label", "measure", "read_image", "write_image"]


def read_image(task: Task) -> dict[str, Any]:
    """Decode an image. Arguments: "path", "folder"."""
    volume = read_volume(task.args["path"], task.args["folder"], task.teller("decoding"))
    return {"volume": volume}


def write_image(task: Task) -> dict[str, Any]:
    """Write voxels as an image. Arguments: "voxels", "ijk_to_ras", "path"."""
    write_volume(task.args["voxels"], numpy.array(task.args["ijk_to_ras"], float), task.args["path"])
    return {"path": task.args["path"]}


def measure(task: Task) -> dict[str, Any]:
    """Measure a draft. Arguments: "draft", "values", "priority", "image"."""
    return _measured(task)[0]


def compose_label(task: Task) -> dict[str, Any]:
    """Flatten a draft into a label map of its image. Arguments: as `measure`, and "out"."""
    told, composed, affine = _measured(task)
    write_label(task.args["image"], composed.label, composed.extent, affine, task.args["out"])
    return {**told, "path": task.args["out"]}


def _measured(task: Task) -> tuple[dict[str, Any], Composed, numpy.ndarray]:
    data = read(task.args["draft"])
    grid = read_grid(task.args["image"])
    task.check()
    values = {str(name): int(value) for name, value in task.args["values"].items()}
    data = on_grid(data, grid.affine, grid.shape, Path(task.args["image"]).name)
    composed = compose(data, values, list(task.args["priority"]))
    told = {
        "counts": {str(value): voxels for value, voxels in composed.counts.items()},
        "overlaps": [vars(overlap) for overlap in composed.overlaps],
        "outside": composed.outside,
        "voxel_ml": float(abs(numpy.linalg.det(grid.affine[:3, :3]))) / 1000.0,
    }
    return told, composed, grid.affine
