"""The nodes that this module makes: marked, found again, and removed without touching anybody else's.

A node that was deleted by the user, or went with a closed scene, is noticed before it is used.
"""

from __future__ import annotations

from typing import Any

import vtk

from ..errors import LocalProblem
from .names import BINARY

__all__ = ["IMAGE", "OVERLAY", "ROLE", "SEGMENTATION", "SERVER", "VOLUME", "SampleNodes", "mark", "nodes_of"]

IMAGE, SERVER, ROLE = "Rep3DLabel.Image", "Rep3DLabel.Server", "Rep3DLabel.Role"  # attributes of our nodes
VOLUME, SEGMENTATION, OVERLAY = "volume", "segmentation", "overlay"  # values of ROLE


def mark(node: Any, role: str, image_id: str, server: str) -> None:
    """Write on a node what it is, so that a scene that was saved and loaded again is recognised."""
    for name, value in ((ROLE, role), (IMAGE, image_id), (SERVER, server)):
        node.SetAttribute(name, value)


def nodes_of(scene: Any, kind: str) -> list[Any]:
    """Return the nodes of a class, in the order of the scene."""
    return [scene.GetNthNodeByClass(index, kind) for index in range(scene.GetNumberOfNodesByClass(kind))]


class SampleNodes:
    """The nodes of the present sample, held so that they can go at any time.

    Args:
        scene: The vtkMRMLScene.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._held: list[Any] = []
        self._dying: list[Any] = []

    def add(self, node: Any) -> None:
        """Count a node to the sample."""
        held = vtk.vtkWeakReference()
        held.Set(node)
        self._held.append(held)

    def closing(self) -> None:
        """Keep the nodes until the scene is closed, which it is about to be, for `closed` to release them quickly."""
        self._dying = [node for node in (reference.Get() for reference in self._held) if node is not None]
        self._held.clear()

    def closed(self) -> None:
        """Note that the scene was closed."""
        dying, self._dying = self._dying, []
        for node in dying:
            _release_voxels(node)
        self._held.clear()

    def is_here(self, node: Any) -> bool:
        """Return whether a node is in the scene."""
        return node is not None and node.GetID() is not None and self._scene.GetNodeByID(node.GetID()) is node

    def require(self, node: Any, kind: str, what: str) -> None:
        """Refuse a node that cannot be used.

        Raises:
            LocalProblem: It is none, is of another class than `kind`, or is not in the scene any more.
        """
        if node is None or not hasattr(node, "IsA") or not node.IsA(kind):
            got = (
                "none"
                if node is None
                else node.GetClassName()
                if hasattr(node, "GetClassName")
                else type(node).__name__
            )
            raise LocalProblem(f"This is {got}, not {what}. Choose one in the scene.")
        if not self.is_here(node):
            raise LocalProblem(f"'{node.GetName()}' was removed from the scene. Open the sample again.")

    def remove(self, *keep: Any) -> None:
        """Take the sample's nodes out of the scene, with the display and storage nodes that only they use.

        Args:
            keep: Nodes that stay, and still count to the sample.
        """
        held, self._held = self._held, []
        for reference in held:
            node = reference.Get()
            if node is not None and any(node is other for other in keep):
                self._held.append(reference)
            elif self.is_here(node):
                self._remove(node)

    def give_away(self, node: Any) -> None:
        """Do not count a node to the sample any more."""
        self._held = [reference for reference in self._held if reference.Get() is not node]

    def remove_one(self, node: Any) -> None:
        """Take one node out of the scene, if it is a node of the sample."""
        mine = [reference for reference in self._held if reference.Get() is node]
        if mine and self.is_here(node):
            self._held.remove(mine[0])
            self._remove(node)

    def _remove(self, node: Any) -> None:
        helpers = [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
        helpers += [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
        self._scene.RemoveNode(node)
        _release_voxels(node)
        used = {
            other.GetNthDisplayNodeID(index)
            for other in nodes_of(self._scene, "vtkMRMLDisplayableNode")
            for index in range(other.GetNumberOfDisplayNodes())
        }
        for helper in helpers:
            if self.is_here(helper) and helper.GetID() not in used:
                self._scene.RemoveNode(helper)


def _release_voxels(node: Any) -> None:
    """Take the voxels off the segments of a node that is not in the scene any more.

    When Slicer deletes a segmentation, it first separates each segment from the image that it shares with others: half
    a second for each of them on a big image, and all for nothing.
    """
    if node.IsA("vtkMRMLSegmentationNode") and node.GetScene() is None:
        segmentation = node.GetSegmentation()
        for identifier in segmentation.GetSegmentIDs():
            segmentation.GetSegment(identifier).RemoveRepresentation(BINARY)
