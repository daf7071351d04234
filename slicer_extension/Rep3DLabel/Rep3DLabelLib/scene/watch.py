"""Noticing that the user edits a segmentation: voxels, the list of segments, their names and meaning.

Not what this module writes itself, and not how segments are shown. Slicer reports a changed colour, a new surface for
the 3D view and a changed name with the same event; what counts is compared to tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..labels import LABEL_TAG
from .names import BINARY, edit_events, terminology_tag
from .terms import tag_of

__all__ = ["Watch"]


class Watch:
    """Observes one segmentation node until `stop`.

    Args:
        slicer: The slicer module.
        node: The segmentation node.
        edited: Called after each edit by the user.
        is_ours: Whether a change that happens now is this module's own.
        going: Called when somebody else is about to take the node out of the scene; it is still whole then.
    """

    def __init__(
        self,
        slicer: Any,
        node: Any,
        edited: Callable[[], None],
        is_ours: Callable[[], bool],
        going: Callable[[], None] = lambda: None,
    ) -> None:
        self._slicer, self._node, self._edited, self._is_ours = slicer, node, edited, is_ours
        self.going = going
        self._seen = self._fingerprint()
        self._tags = [node.AddObserver(event, self._changed) for event in edit_events(slicer)]
        self._tags.append(node.AddObserver(slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._changed))
        self._tags.append(node.AddObserver(slicer.vtkSegmentation.SegmentModified, self._segment_changed))

    @property
    def node(self) -> Any:
        """The node, None after `stop`."""
        return self._node

    def stop(self) -> None:
        """Observe no more, and hold nothing of the node."""
        node, self._node = self._node, None
        if node is not None:
            for tag in self._tags:
                node.RemoveObserver(tag)
        self._tags = []

    def written(self) -> None:
        """Take the present state as known, after a write of our own."""
        if self._node is not None:
            self._seen = self._fingerprint()

    def _changed(self, caller: Any, event: str) -> None:
        if self._node is not None and not self._is_ours():
            self._seen = self._fingerprint()
            self._edited()

    def _segment_changed(self, caller: Any, event: str) -> None:
        if self._node is None or self._is_ours():
            return
        seen = self._fingerprint()
        if seen != self._seen:
            self._seen = seen
            self._edited()

    def _fingerprint(self) -> list[tuple[Any, ...]]:
        """Return what an edit changes, without looking at voxels."""
        segmentation = self._node.GetSegmentation()
        term = terminology_tag(self._slicer)
        result = []
        for identifier in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(identifier)
            image = segment.GetRepresentation(BINARY)
            voxels = (0, 0) if image is None else (image.__this__, image.GetMTime())
            meaning = (segment.GetName(), tag_of(segment, LABEL_TAG), tag_of(segment, term))
            result.append((identifier, segment.GetLabelValue(), *voxels, *meaning))
        return result
