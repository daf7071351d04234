"""Names in Slicer that differ between its versions, chosen in one place.

Slicer 5.2 began to call the representation that edits go to the "source" representation; it was the "master" one.
"""

from __future__ import annotations

from typing import Any

__all__ = ["BINARY", "SURFACE", "edit_events", "source_representation", "terminology_tag"]

BINARY, SURFACE = "Binary labelmap", "Closed surface"  # voxels and surface of a segment, in all versions


def edit_events(slicer: Any) -> tuple[int, ...]:
    """Return the events of a segmentation node that tell of a change of voxels or of the list of segments."""
    kind = slicer.vtkSegmentation
    source = "SourceRepresentationModified" if hasattr(kind, "SourceRepresentationModified") else None
    return (
        getattr(kind, source or "MasterRepresentationModified"),
        kind.SegmentAdded,
        kind.SegmentRemoved,
        kind.SegmentsOrderModified,
    )


def source_representation(segmentation: Any) -> str:
    """Return the name of the representation that edits of a vtkSegmentation go to."""
    getter = getattr(segmentation, "GetSourceRepresentationName", None) or segmentation.GetMasterRepresentationName
    return str(getter())


def terminology_tag(slicer: Any) -> str:
    """Return the name of the segment tag in which Slicer keeps the terminology."""
    return str(slicer.vtkSegment.GetTerminologyEntryTagName())
