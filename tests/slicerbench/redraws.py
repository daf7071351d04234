"""How often the slice views would draw a segmentation: each of its node's events makes every one of them do so."""

from __future__ import annotations

import slicer
import vtk

from tests.slicerbench.callbacks import note_redraw

__all__ = ["MOST", "count"]

MOST = 12  # while one callback runs; a write that fires for each segment goes beyond it with a handful of labels


def count(scene: vtk.vtkObject) -> None:
    """Count, from now on, the events of segmentation nodes that vtkMRMLSegmentationsDisplayableManager2D draws for (its
    AddObservations)."""
    displayable, segmentation = slicer.vtkMRMLDisplayableNode, slicer.vtkSegmentation
    events = (
        displayable.TransformModifiedEvent,
        displayable.DisplayModifiedEvent,
        segmentation.RepresentationModified,
        segmentation.SourceRepresentationModified,
        segmentation.SegmentAdded,
        segmentation.SegmentRemoved,
        segmentation.SegmentModified,
        segmentation.SegmentsOrderModified,
    )

    def changed(caller, event) -> None:
        if caller.GetScene() is not None:  # what is out of the scene is not drawn any more
            note_redraw()

    def added(caller, event, node) -> None:
        if node.IsA("vtkMRMLSegmentationNode"):
            for name in events:
                node.AddObserver(name, changed)

    added.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, added)
