"""Small images, labels and segmentations for the tests of the scene, on real MRML nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import vtk
from Rep3DLabelLib.images.files import LabelFile, VolumeFile
from Rep3DLabelLib.images.segnrrd import SegmentationData
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.scene.images import allocate, array_of, set_geometry
from Rep3DLabelLib.scene.segments import LabelLoad, LoadedLabel

BINARY = "Binary labelmap"


def the_slicer() -> Any:
    """Return the module, once the bench has made it."""
    import slicer

    return slicer


SHAPE = (7, 6, 5)  # I, J, K


ENTRIES = [Label("Anterior", 1, (200, 30, 40)), Label("Posterior", 2), Label("Cyst", 7, (0, 0, 255))]


def oblique(spacing: tuple[float, float, float] = (0.7, 1.3, 2.9), flips: tuple[int, int, int] = (1, 1, 1)) -> Any:
    """Return a grid turned about two axes, with unequal spacing."""
    a, b = 0.31, -0.47
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x @ np.diag(np.multiply(spacing, flips))
    matrix[:3, 3] = (-31.7, 12.25, 88.125)
    return matrix


def volume_file(folder: Path, voxels: np.ndarray, matrix: Any = None, name: str = "image") -> VolumeFile:
    """Return a VolumeFile of voxels (K, J, I)."""
    path = folder / f"{name}.npy"
    np.save(path, voxels)
    grid = as_tuples(np.eye(4) if matrix is None else matrix)
    low, high = (float(part) for part in np.percentile(voxels.astype(float), (0.5, 99.5)))
    return VolumeFile(str(path), voxels.shape[::-1], grid, low, high, grid)


def as_tuples(matrix: Any) -> tuple[tuple[float, ...], ...]:
    """Return a matrix as the worker gives it."""
    return tuple(map(tuple, np.asarray(matrix, float).tolist()))


def label_file(folder: Path, label: np.ndarray, values: Mapping[str, int], matrix: Any = None) -> LabelFile:
    """Return a LabelFile of a label map (K, J, I), cropped to what it has."""
    grid = as_tuples(np.eye(4) if matrix is None else matrix)
    voxels = extent = None
    if label.any():
        corners = np.argwhere(label)
        low, high = corners.min(0), corners.max(0)
        path = folder / "label.npy"
        np.save(path, label[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))])
        voxels, extent = str(path), tuple(int(x) for axis in (2, 1, 0) for x in (low[axis], high[axis]))
    counts = {name: int((label == value).sum()) for name, value in values.items()}
    return LabelFile(voxels, extent, label.shape[::-1], grid, counts, dict(values))


def loaded(label: LabelFile) -> LoadedLabel:
    """Return a label with its voxels, as `Scene.begin_label` gives it in the end."""
    load = LabelLoad(the_slicer(), label)
    while not load.step():
        pass
    return load.label


def loaded_label(folder: Path, label: np.ndarray, values: Mapping[str, int], matrix: Any = None) -> LoadedLabel:
    """Return a label map (K, J, I) with its voxels."""
    return loaded(label_file(folder, label, values, matrix))


def load(scene: Scene, volume: VolumeFile, name: str = "case", image_id: str = "case") -> Any:
    """Step a volume into the scene."""
    loading = scene.begin_volume(volume, name, image_id)
    while not loading.step():
        pass
    return loading.node


def add_own(
    node: Any, name: str, voxels: np.ndarray, origin: tuple[int, int, int] = (0, 0, 0), matrix: Any = None
) -> str:
    """Add a segment of the user's, in a layer of its own; `voxels` (K, J, I) begin at `origin` (i, j, k)."""
    identifier = node.GetSegmentation().AddEmptySegment(name, name)
    draw(node, identifier, voxels, origin, matrix)
    return identifier


def draw(
    node: Any, identifier: str, voxels: np.ndarray, origin: tuple[int, int, int] = (0, 0, 0), matrix: Any = None
) -> None:
    """Replace a segment's voxels as an effect of the segment editor does."""
    if matrix is None:
        matrix = grid_matrix(node)
    extent = [x for o, n in zip(origin, voxels.shape[::-1], strict=True) for x in (o, o + n - 1)]
    slicer = the_slicer()
    image = new_label_image(slicer, voxels, extent, matrix, np.uint8)
    assert slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, node, identifier)


def grid_matrix(node: Any) -> np.ndarray:
    """Return the matrix of the volume below a segmentation."""
    matrix = vtk.vtkMatrix4x4()
    node.GetNodeReference("rep3dVolume").GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def mask(data: SegmentationData, identifier: str) -> np.ndarray:
    """Return where a segment is, on the whole reference grid, (K, J, I)."""
    entry = next(segment for segment in data.segments if segment.id == identifier)
    result = np.zeros(tuple(data.shape)[::-1], bool)
    if data.layers:
        k, j, i = np.nonzero(data.layers[entry.layer] == entry.value)
        k, j, i = k + data.extent[4], j + data.extent[2], i + data.extent[0]
        inside = (k >= 0) & (j >= 0) & (i >= 0) & (k < data.shape[2]) & (j < data.shape[1]) & (i < data.shape[0])
        result[k[inside], j[inside], i[inside]] = True
    return result


def voxels_of(node: Any, identifier: str) -> np.ndarray:
    """Return where a segment is, read by Slicer's own function instead of ours."""
    image = the_slicer().vtkOrientedImageData()
    if node.GetSegmentation().GetSegment(identifier).GetRepresentation(BINARY).GetPointData().GetScalars() is not None:
        node.GetBinaryLabelmapRepresentation(identifier, image)
    shape = node.GetNodeReference("rep3dVolume").GetImageData().GetDimensions()
    result = np.zeros(shape[::-1], bool)
    if image.GetPointData().GetScalars() is None or image.GetNumberOfPoints() == 0:
        return result
    e = image.GetExtent()
    window = tuple(slice(max(e[a], 0), min(e[a + 1], result.shape[2 - a // 2] - 1) + 1) for a in (4, 2, 0))
    inside = tuple(slice(w.start - e[a], w.stop - e[a]) for w, a in zip(window, (4, 2, 0), strict=True))
    result[window] = array_of(image)[inside] > 0
    return result


def counts(scene: Any) -> dict[str, int]:
    """Return the number of nodes of each class in a MRML scene."""
    result: dict[str, int] = {}
    for index in range(scene.GetNumberOfNodes()):
        name = scene.GetNthNode(index).GetClassName()
        result[name] = result.get(name, 0) + 1
    return result


def new_label_image(slicer: Any, voxels: np.ndarray, extent: Sequence[int], ijk_to_ras: Any, dtype: Any) -> Any:
    """Return a vtkOrientedImageData with a copy of voxels (K, J, I) over an extent, converted to `dtype`."""
    image = slicer.vtkOrientedImageData()
    allocate(image, extent, dtype)
    array_of(image)[...] = voxels
    set_geometry(image, ijk_to_ras)
    return image


def save_volume(scene: Any, node: Any, path: Path) -> dict[str, Any]:
    """Write a volume's voxels (K, J, I) to a `.npy` file; return {"voxels": PATH, "ijk_to_ras": 4x4}."""
    save = scene.begin_volume_snapshot(node, path)
    while not save.step():
        pass
    geometry: dict[str, Any] = save.geometry
    return geometry
