"""The MRML scene and the module logics of slicer-core, wired as the application wires them."""

from __future__ import annotations

import types

import slicer
import vtk

from tests.slicerbench import redraws
from tests.slicerbench.io_manager import IOManager
from tests.slicerbench.slice_views import SliceViews

# Module name in Slicer -> class of its logic.
_LOGICS = (
    ("Colors", "vtkMRMLColorLogic"),  # vtkSlicerColorLogic wants colour files of the share folder
    ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ("Volumes", "vtkSlicerVolumesLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    ("Plots", "vtkSlicerPlotsLogic"),
    ("Tables", "vtkSlicerTablesLogic"),
    ("Markups", "vtkSlicerMarkupsLogic"),
)


class ModuleObject:
    """What `slicer.modules.NAME` is for a C++ module. Not done: widgets, dependencies, help."""

    def __init__(self, name: str, logic: vtk.vtkObject) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> vtk.vtkObject:
        """Return the module's logic."""
        return self._logic


class Core:
    """The scene, the application logic, the module logics and the file manager.

    Attributes:
        scene: the vtkMRMLScene, also `slicer.mrmlScene`.
        application_logic: the vtkSlicerApplicationLogic.
        io_manager: reads and writes nodes for `slicer.util.load*` and `saveNode`.
        views: the MRML side of the slice views Red, Green and Yellow.
    """

    def __init__(self) -> None:
        self.scene = slicer.vtkMRMLScene()
        redraws.count(self.scene)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        slicer.mrmlScene = self.scene
        self.logics: dict[str, vtk.vtkObject] = {}
        modules = types.SimpleNamespace()
        for name, class_name in _LOGICS:
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self.application_logic)
            if name != "Terminologies":  # else it would look for its files and report each as missing
                logic.SetMRMLScene(self.scene)
            self.application_logic.SetModuleLogic(name, logic)
            self.logics[name] = logic
            setattr(modules, name.lower(), ModuleObject(name, logic))
        slicer.modules = modules
        self.application_logic.GetColorLogic().SetMRMLScene(self.scene)
        self.application_logic.GetColorLogic().AddDefaultColorNodes()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.io_manager = IOManager(self.scene, self.logics)
        self.views = SliceViews(self.scene, self.application_logic)

    def clear(self) -> None:
        """Close the scene as File > Close Scene does: singletons such as slice nodes stay, reset."""
        self.scene.Clear(False)
        self.views.ensure()

    def observers(self) -> int:
        """Return how many observers the scene, its nodes and their segmentations have, as VTK prints them."""
        nodes = [self.scene.GetNthNode(index) for index in range(self.scene.GetNumberOfNodes())]
        segmentations = [node.GetSegmentation() for node in nodes if hasattr(node, "GetSegmentation")]
        return sum(str(thing).count("vtkObserver (") for thing in (self.scene, *nodes, *segmentations))
