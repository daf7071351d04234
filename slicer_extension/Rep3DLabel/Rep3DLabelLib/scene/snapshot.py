"""A segmentation as plain arrays on the grid of its image, and back: for drafts and for what is submitted.

Layers are copied as they are, which takes milliseconds; Slicer's storage node takes most of a second. Only where the
user gave the segmentation another geometry (oversampling, another reference, a transform) Slicer resamples it, each
voxel to its nearest neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import vtk

from ..errors import LocalProblem
from ..images.segnrrd import SegmentationData, SegmentEntry
from .images import array_of, extent_of, matrix_of, set_geometry, whole_offset
from .layers import Layer, stack
from .names import BINARY, source_representation
from .segments import add_segment, images_of
from .terms import tags_of
from .volumes import ImageLoad, ijk_to_ras

__all__ = ["Grid", "LayersLoad", "grid_of", "is_on_grid", "restore", "snapshot"]


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels of an image: shape (I, J, K), `matrix` (4, 4) to RAS in mm, and the transform node above it."""

    shape: tuple[int, int, int]
    matrix: np.ndarray
    transform: Any = None

    @property
    def extent(self) -> tuple[int, ...]:
        """The extent of the whole image."""
        return tuple(bound for size in self.shape for bound in (0, size - 1))


def grid_of(slicer: Any, node: Any, volume: Any) -> Grid:
    """Return the grid that a segmentation belongs to.

    Args:
        node: The segmentation node.
        volume: Its volume node. None if that was removed: then the geometry that the segmentation itself remembers is
            taken, so that the work is not lost with the image.

    Raises:
        LocalProblem: Neither is there.
    """
    if volume is not None and volume.GetImageData() is not None:
        return _grid(extent_of(volume.GetImageData()), ijk_to_ras(volume), volume.GetParentTransformNode())
    converter = slicer.vtkSegmentationConverter
    text = node.GetSegmentation().GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    image = slicer.vtkOrientedImageData()
    if not text or not converter.DeserializeImageGeometry(text, image, False):
        raise LocalProblem(f"The image of '{node.GetName()}' was removed from the scene. Open it again.")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return _grid(extent_of(image), matrix_of(matrix), node.GetParentTransformNode())


def _grid(extent: tuple[int, ...], matrix: np.ndarray, transform: Any) -> Grid:
    """Return the grid of an image whose first voxel need not have the index 0, 0, 0."""
    start = np.eye(4)
    start[:3, 3] = extent[::2]
    shape = (extent[1] - extent[0] + 1, extent[3] - extent[2] + 1, extent[5] - extent[4] + 1)
    return Grid(shape, matrix @ start, transform)


def is_on_grid(node: Any, grid: Grid) -> bool:
    """Return whether a snapshot has each voxel as it is, without resampling."""
    if node.GetParentTransformNode() is not grid.transform or source_representation(node.GetSegmentation()) != BINARY:
        return False
    return all(_offset(image, grid) is not None for image in images_of(node.GetSegmentation()))


def snapshot(slicer: Any, node: Any, grid: Grid) -> SegmentationData:
    """Return a copy of all segments on a grid; voxels beyond the image are kept.

    Args:
        node: The segmentation node.
        grid: Of its image.
    """
    segmentation = _with_voxels(slicer, node)
    transform = _transform(slicer, node, grid)
    layers = []
    for image, values in images_of(segmentation).items():
        offset = None if transform is not None else _offset(image, grid)
        if offset is None:
            image, offset = _resample(slicer, image, grid, transform), (0, 0, 0)
        extent = [0, -1, 0, -1, 0, -1]
        if image is None or not slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, extent):
            continue
        first = extent_of(image)
        window = tuple(slice(extent[a] - first[a], extent[a + 1] - first[a] + 1) for a in (4, 2, 0))
        placed = tuple(bound + offset[place // 2] for place, bound in enumerate(extent))
        layers.append(Layer(array_of(image)[window], placed, values))
    identifiers = list(segmentation.GetSegmentIDs())
    arrays, extent_all, places = stack(layers, identifiers)
    segments = []
    for identifier in identifiers:
        segment = segmentation.GetSegment(identifier)
        layer, value = places[identifier]
        name = segment.GetName()
        colour = tuple(float(part) for part in segment.GetColor())
        segments.append(
            SegmentEntry(identifier, identifier if name is None else name, colour, layer, value, tags_of(segment))  # type: ignore[arg-type]
        )
    return SegmentationData(arrays, extent_all, grid.shape, grid.matrix, tuple(segments))


class LayersLoad:
    """The voxels of a snapshot on their way into memory, to be put into a segmentation when they are there."""

    def __init__(self, slicer: Any, data: SegmentationData) -> None:
        self._loads = [ImageLoad(slicer, layer, data.extent, layer.dtype) for layer in data.layers]
        self._left = list(self._loads)

    def step(self) -> bool:
        """Copy for some milliseconds; return True once all voxels are there."""
        if self._left and self._left[0].step():
            del self._left[0]
        return not self._left

    @property
    def images(self) -> list[Any]:
        """The layers, once `step` has returned True."""
        return [load.image for load in self._loads]


def restore(slicer: Any, node: Any, data: SegmentationData, grid: Grid, images: list[Any] | None = None) -> None:
    """Fill an empty segmentation node with what `snapshot` gave.

    Args:
        images: Of a `LayersLoad` of the data; None: the voxels are copied here.

    Raises:
        LocalProblem: It was drawn on an image of another grid.
    """
    whole = [bound for size in data.shape for bound in (0, size - 1)]
    same = tuple(data.shape) == grid.shape and whole_offset(data.ijk_to_ras, grid.matrix, whole) == (0, 0, 0)
    if not same:
        raise LocalProblem(
            f"This work was drawn on another image, of {tuple(data.shape)} voxels; this one has {grid.shape} or lies "
            "elsewhere. Open the image that it belongs to; the work stays on disk."
        )
    if images is None:
        load = LayersLoad(slicer, data)
        while not load.step():
            pass
        images = load.images
    for image in images:
        set_geometry(image, grid.matrix)
    segmentation = node.GetSegmentation()
    for entry in data.segments:
        segment = add_segment(slicer, segmentation, entry.id, entry.name, entry.colour, entry.tags)
        for tag in set(tags_of(segment)) - set(entry.tags):  # Slicer gives each new segment a term
            segment.RemoveTag(tag)
        if entry.layer < len(images):
            segment.SetLabelValue(int(entry.value))
            segment.AddRepresentation(BINARY, images[entry.layer])


def _with_voxels(slicer: Any, node: Any) -> Any:
    """Return the vtkSegmentation, or a copy that has voxels where the user made another representation the source."""
    segmentation = node.GetSegmentation()
    if source_representation(segmentation) == BINARY or segmentation.GetNumberOfSegments() == 0:
        return segmentation
    copy = slicer.vtkSegmentation()
    copy.DeepCopy(segmentation)
    if not copy.CreateRepresentation(BINARY):
        raise LocalProblem(
            f"The segments in '{node.GetName()}' have no voxels, and Slicer cannot make any from "
            f"'{source_representation(segmentation)}'. Make 'Binary labelmap' the source in the module Segmentations."
        )
    return copy


def _offset(image: Any, grid: Grid) -> tuple[int, ...] | None:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return whole_offset(matrix_of(matrix), grid.matrix, extent_of(image))


def _transform(slicer: Any, node: Any, grid: Grid) -> Any:
    """Return the transform from the segmentation to the image, None where both are under the same one."""
    if node.GetParentTransformNode() is grid.transform:
        return None
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), grid.transform, between)
    return between


def _resample(slicer: Any, image: Any, grid: Grid, transform: Any) -> Any:
    """Return a label image resampled onto the grid, and beyond it where the label is; None if it has no voxels."""
    reference = slicer.vtkOrientedImageData()
    reference.SetExtent(list(grid.extent))
    set_geometry(reference, grid.matrix)
    result = slicer.vtkOrientedImageData()
    resample = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage
    if not resample(image, reference, result, False, True, transform):
        raise LocalProblem(
            "Slicer cannot resample the segmentation onto its image. Harden its transform and try again."
        )
    return result
