"""Volumes into the scene and out of it, a slab at a time.

Reading a big image in Slicer blocks it for seconds; so the voxels come as a `.npy` file that is copied from a memory
map, some milliseconds per step, and a volume appears in the scene only when it is whole. Slicer would compute a window
from the voxels when it first sees them (0.6 s for 512 x 512 x 300), so the window is set before.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vtk

from ..errors import BadAnswer, LocalProblem
from ..images.files import VolumeFile
from .images import allocate, array_of, extent_of, is_empty, matrix_of, native_type, vtk_matrix

__all__ = ["ImageLoad", "SlabLoad", "SlabSave", "add_volume", "check_uploadable", "highest", "open_voxels"]

_STEP_SECONDS = 0.015  # a step ends after this; the rest of a frame is for drawing
_CHUNK_BYTES = 2 << 20


def open_voxels(path: str, shape: Any) -> np.ndarray:
    """Return the memory map (K, J, I) of a `.npy` file.

    Args:
        path: The file.
        shape: Its (I, J, K).

    Raises:
        LocalProblem: The file is missing or cannot be read.
        BadAnswer: It is not an array of that shape.
    """
    try:
        voxels = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise LocalProblem(f"Cannot read '{path}': {error.strerror or error}. Load the sample again.") from error
    except ValueError as error:
        raise BadAnswer(f"The voxels in '{path}' are damaged ({error}). Load the sample again.") from error
    wanted = tuple(int(size) for size in reversed(tuple(shape)))
    if voxels.shape != wanted or voxels.dtype.kind not in "biuf":
        raise BadAnswer(
            f"The voxels in '{path}' are {voxels.dtype} of shape {voxels.shape}, not numbers of shape {wanted}."
        )
    return voxels


class _Slabs:
    """Copies one array into another of the same shape in steps of about 15 ms."""

    def __init__(self, source: np.ndarray, target: np.ndarray) -> None:
        self._source, self._target = source.reshape(-1), target.reshape(-1)
        self._chunk = max(1, _CHUNK_BYTES // self._target.itemsize)
        self._next = 0

    @property
    def progress(self) -> float:
        """What part was copied, 0 to 1."""
        return self._next / max(1, self._target.size)

    def step(self) -> bool:
        """Copy for some milliseconds; return True once all is copied."""
        end = time.perf_counter() + _STEP_SECONDS
        while self._next < self._target.size:
            part = slice(self._next, self._next + self._chunk)
            self._target[part] = self._source[part]
            self._next = min(part.stop, self._target.size)
            if time.perf_counter() >= end:
                break
        return self._next >= self._target.size


class ImageLoad:
    """An array (K, J, I) on its way into a vtkOrientedImageData, whose geometry is to be set afterwards.

    Args:
        slicer: The slicer module.
        voxels: The array.
        extent: Of the image.
        dtype: Of its voxels.
    """

    def __init__(self, slicer: Any, voxels: np.ndarray, extent: Sequence[int], dtype: Any) -> None:
        self.image: Any = slicer.vtkOrientedImageData()
        allocate(self.image, extent, dtype)
        self._slabs: _Slabs | None = _Slabs(voxels, array_of(self.image))

    def step(self) -> bool:
        """Copy for some milliseconds; return True once all voxels are there."""
        if self._slabs is not None and self._slabs.step():
            self._slabs = None  # a file behind the array can be replaced from now on, on Windows too
        return self._slabs is None


class SlabLoad:
    """A volume on its way into the scene.

    Args:
        slicer: The slicer module.
        volume: The image.
        finish: Gets the vtkImageData when all voxels are there, and returns the node.

    Raises:
        LocalProblem: The file of voxels is missing.
        BadAnswer: It does not fit the description.
    """

    def __init__(self, slicer: Any, volume: VolumeFile, finish: Callable[[Any], Any]) -> None:
        voxels = open_voxels(volume.voxels, volume.shape)
        self._image: Any = vtk.vtkImageData()
        allocate(self._image, [bound for size in volume.shape for bound in (0, size - 1)], voxels.dtype)
        self._slabs: _Slabs | None = _Slabs(voxels, array_of(self._image))
        self._finish: Callable[[Any], Any] | None = finish
        self._node: Any = None

    @property
    def progress(self) -> float:
        """What part of the voxels was copied, 0 to 1."""
        return 1.0 if self._slabs is None else self._slabs.progress

    @property
    def node(self) -> Any:
        """The volume node, None until `step` has returned True."""
        return self._node

    def step(self) -> bool:
        """Copy for some milliseconds; return True once the volume is in the scene."""
        if self._slabs is None or self._finish is None:
            return True
        if not self._slabs.step():
            return False
        image, finish = self._image, self._finish
        self.cancel()
        self._node = finish(image)
        return True

    def cancel(self) -> None:
        """Give it up; nothing was put into the scene, and the file can be removed, on Windows too."""
        self._slabs = self._finish = self._image = None


def add_volume(slicer: Any, scene: Any, image: Any, name: str, volume: VolumeFile, top: float | None) -> Any:
    """Add a scalar volume to the scene.

    Args:
        image: Its voxels, a vtkImageData with origin 0 and spacing 1.
        name: Made unique if the scene has it.
        volume: The VolumeFile.
        top: Upper end of the display window, from 0; None for the VolumeFile's low and high.
    """
    display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    low, high = (volume.low, volume.high) if top is None else (0.0, top)
    display.SetAutoWindowLevel(0)
    display.SetWindowLevelMinMax(low, high if high > low else low + 1.0)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    node = slicer.vtkMRMLScalarVolumeNode()
    node.SetName(scene.GenerateUniqueName(name))
    node.SetIJKToRASMatrix(vtk_matrix(volume.ijk_to_ras))
    node.SetAndObserveImageData(image)
    scene.AddNode(node)
    node.SetAndObserveDisplayNodeID(display.GetID())
    return node


def check_uploadable(scene: Any, node: Any) -> None:
    """Refuse a volume that would reach the server as something else than what is seen.

    Raises:
        LocalProblem: It is a label map, has several values per voxel, has no voxels, is one frame of a sequence, or
            is moved by a transform that is not hardened.
    """
    name = f"'{node.GetName()}'"
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise LocalProblem(f"{name} is a label map. Choose the image that it belongs to.")
    if is_empty(node.GetImageData()):
        raise LocalProblem(f"{name} has no voxels. Load it again.")
    components = node.GetImageData().GetNumberOfScalarComponents()
    if components != 1 or node.IsA("vtkMRMLTensorVolumeNode"):
        raise LocalProblem(
            f"{name} has {components} values per voxel (a colour or vector image), not one. "
            "Convert it with the module 'Vector to Scalar Volume' first."
        )
    if node.GetParentTransformNode() is not None:
        raise LocalProblem(
            f"The transform '{node.GetParentTransformNode().GetName()}' moves {name} from where its voxels are. "
            " Harden the transform (Data module, right click), or take the volume out of it."
        )
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(index, "vtkMRMLSequenceBrowserNode")
        if browser.IsProxyNode(node.GetID()):
            raise LocalProblem(
                f"{name} shows one frame of the sequence '{browser.GetName()}'. "
                "Clone the frame (Data module, right click) and choose the clone."
            )


class SlabSave:
    """A volume on its way from the scene into a `.npy` file, whole or not at all.

    Args:
        node: A scalar volume node.
        path: The file to make.

    Raises:
        LocalProblem: The file cannot be written.
    """

    def __init__(self, node: Any, path: str | Path) -> None:
        self._image = node.GetImageData()  # keeps the voxels alive, should the node be removed meanwhile
        source = array_of(self._image)
        self._path = Path(path)
        self._part = self._path.with_name(f".{uuid.uuid4().hex}.part")
        start = np.eye(4)
        start[:3, 3] = extent_of(self._image)[::2]
        self._geometry = {"voxels": str(path), "ijk_to_ras": (ijk_to_ras(node) @ start).tolist()}
        try:
            target = np.lib.format.open_memmap(self._part, "w+", dtype=native_type(source.dtype), shape=source.shape)
        except OSError as error:
            raise self._problem(error) from error
        self._slabs: _Slabs | None = _Slabs(source, target)

    @property
    def progress(self) -> float:
        """What part of the voxels was copied, 0 to 1."""
        return 1.0 if self._slabs is None else self._slabs.progress

    @property
    def geometry(self) -> dict[str, Any]:
        """{"voxels": PATH, "ijk_to_ras": 4x4 list}."""
        return self._geometry

    def step(self) -> bool:
        """Copy for some milliseconds; return True once the file is there."""
        if self._slabs is None:
            return True
        if not self._slabs.step():
            return False
        self._slabs = self._image = None
        try:
            os.replace(self._part, self._path)
        except OSError as error:
            raise self._problem(error) from error
        return True

    def cancel(self) -> None:
        """Give it up; no file is left."""
        self._slabs = self._image = None
        self._part.unlink(missing_ok=True)

    def _problem(self, error: OSError) -> LocalProblem:
        self._part.unlink(missing_ok=True)
        return LocalProblem(
            f"Cannot write '{self._path}': {error.strerror or error}. Check free space and permissions."
        )


def ijk_to_ras(node: Any) -> np.ndarray:
    """Return the (4, 4) matrix from voxel indices of a volume node to RAS in mm."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix_of(matrix)


def highest(image: Any) -> float:
    """Return the highest value of a vtkImageData, 1 where it has none above zero."""
    found = float(np.fmax.reduce(array_of(image), axis=None)) if image.GetNumberOfPoints() else 0.0
    return found if np.isfinite(found) and found > 0 else 1.0
