"""Reading and writing nodes for `slicer.util`, through the storage nodes that the application uses too."""

from __future__ import annotations

import os
from collections.abc import Mapping

import slicer
import vtk

_LABELMAP, _SINGLE_FILE = 1, 4  # options of vtkSlicerVolumesLogic.AddArchetypeVolume


class IOManager:
    """What `slicer.app.coreIOManager()` returns.

    Reads the file types VolumeFile and SegmentationFile, guesses a type by the file's name, writes storable nodes.
    Not done: every other file type, dialogs, export formats, drag and drop.
    """

    def __init__(self, scene: vtk.vtkObject, logics: Mapping[str, vtk.vtkObject]) -> None:
        self._scene = scene
        self._logics = logics

    def fileType(self, path: str) -> str:
        """Return the type of reader by file name: `.seg.nrrd` and `.seg.nhdr` are segmentations, all else volumes."""
        name = os.path.basename(str(path)).lower()
        return "SegmentationFile" if name.endswith((".seg.nrrd", ".seg.nhdr", ".seg.vtm")) else "VolumeFile"

    def fileWriterFileType(self, node: vtk.vtkObject) -> str:
        """Return the type of writer for a node."""
        return "SegmentationFile" if node.IsA("vtkMRMLSegmentationNode") else "VolumeFile"

    def loadNodes(
        self, file_type: str, properties: Mapping, loaded: vtk.vtkCollection | None = None, messages=None
    ) -> bool:
        """Load the file `properties["fileName"]`; add the new node to `loaded`.

        Raises:
            NotImplementedError: for a file type that the bench does not read.
        """
        path = str(properties["fileName"])
        name = properties.get("name") or os.path.basename(path).split(".")[0]
        if file_type == "VolumeFile":
            options = (_LABELMAP if properties.get("labelmap") else 0) | (
                _SINGLE_FILE if properties.get("singleFile") else 0
            )
            node = self._logics["Volumes"].AddArchetypeVolume(path, name, options)
            if node is not None and properties.get("show", True):
                self._show(node, bool(properties.get("labelmap")))
        elif file_type == "SegmentationFile":
            node = self._logics["Segmentations"].LoadSegmentationFromFile(
                path, properties.get("autoOpacities", True), name
            )
        else:
            raise NotImplementedError(f"the bench reads VolumeFile and SegmentationFile, got {file_type!r}")
        if node is None:
            return False
        if loaded is not None:
            loaded.AddItem(node)
        return True

    def saveNodes(self, file_type: str, properties: Mapping, messages=None) -> bool:
        """Write the node `properties["nodeID"]` to `properties["fileName"]`."""
        node = self._scene.GetNodeByID(properties["nodeID"])
        storage = node.GetStorageNode()
        if storage is None:
            node.AddDefaultStorageNode()
            storage = node.GetStorageNode()
        storage.SetFileName(str(properties["fileName"]))
        if "useCompression" in properties:
            storage.SetUseCompression(int(bool(properties["useCompression"])))
        return bool(storage.WriteData(node))

    def _show(self, node: vtk.vtkObject, labelmap: bool) -> None:
        """Put a volume into the slice views, as the application's reader of volumes does."""
        for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self._scene):
            if labelmap:
                composite.SetLabelVolumeID(node.GetID())
            else:
                composite.SetBackgroundVolumeID(node.GetID())
