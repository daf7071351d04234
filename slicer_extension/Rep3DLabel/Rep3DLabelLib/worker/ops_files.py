"""What the helper process does with files of this computer alone: no server is asked."""

from __future__ import annotations

from pathlib import Path

import numpy

from ..client.voxels import Voxels
from ..images.compose import Composed, compose, on_grid
from ..images.segnrrd import read
from ..images.voxels import label_to_send
from .results import Measured
from .task import Task

__all__ = ["composed", "made", "measure"]


def measure(task: Task) -> Measured:
    """Measure a draft. Arguments: "draft", "values", "priority"; "shape" and "affine" of its image's own grid."""
    found = composed(task)
    volume = float(abs(numpy.linalg.det(numpy.array(task.args["affine"])[:3, :3]))) / 1000.0
    return Measured(found.counts, found.overlaps, found.outside, volume)


def composed(task: Task) -> Composed:
    """Flatten a draft into a label map on its image's own grid. Arguments: as `measure`."""
    args = task.args
    data = read(args["draft"])
    task.check()
    data = on_grid(data, numpy.array(args["affine"], float), args["shape"], "the image")
    return compose(data, {str(name): int(value) for name, value in args["values"].items()}, list(args["priority"]))


def made(task: Task, label: Composed, file: Path) -> Voxels:
    """Write a label map as it is sent. Arguments: as `measure`."""
    shape = (int(task.args["shape"][0]), int(task.args["shape"][1]), int(task.args["shape"][2]))
    return label_to_send(label.label, label.extent, shape, task.args["affine"], file)
