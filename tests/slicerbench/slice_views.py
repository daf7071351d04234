"""The MRML side of the three slice views: nodes and logics, no rendering."""

from __future__ import annotations

import slicer
import vtk

_VIEWS = (("Red", "Axial", "R"), ("Green", "Coronal", "G"), ("Yellow", "Sagittal", "Y"))


class SliceViews:
    """Slice nodes, composite nodes and slice logics named Red, Green and Yellow.

    Not done: render windows, interactors, displayable managers, 3D views.
    """

    def __init__(self, scene: vtk.vtkObject, application_logic: vtk.vtkObject) -> None:
        self._scene = scene
        self.logics = vtk.vtkCollection()
        self._by_name: dict[str, vtk.vtkObject] = {}
        self.ensure()
        for name, _, _ in _VIEWS:
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLScene(scene)
            logic.SetMRMLApplicationLogic(application_logic)
            logic.SetSliceNode(self.slice_node(name))
            self.logics.AddItem(logic)
            self._by_name[name] = logic
        application_logic.SetSliceLogics(self.logics)
        self.ensure()

    @staticmethod
    def names() -> tuple[str, ...]:
        """Return the views' layout names."""
        return tuple(name for name, _, _ in _VIEWS)

    def slice_node(self, name: str) -> vtk.vtkObject | None:
        """Return the vtkMRMLSliceNode of a view, None where there is no such view."""
        return self._scene.GetSingletonNode(name, "vtkMRMLSliceNode")

    def composite_node(self, name: str) -> vtk.vtkObject | None:
        """Return the vtkMRMLSliceCompositeNode of a view, None where there is no such view."""
        return self._scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")

    def logic(self, name: str) -> vtk.vtkObject | None:
        """Return the vtkMRMLSliceLogic of a view, None where there is no such view."""
        return self._by_name.get(name)

    def ensure(self) -> None:
        """Add the nodes that are missing; called at the start and after the scene was closed."""
        for name, orientation, label in _VIEWS:
            if self.slice_node(name) is None:
                node = self._made("vtkMRMLSliceNode")
                node.SetName(name)
                node.SetSingletonTag(name)
                node.SetLayoutName(name)
                node.SetLayoutLabel(label)
                node.SetOrientation(orientation)
                self._scene.AddNode(node)
            if self.composite_node(name) is None:
                composite = self._made("vtkMRMLSliceCompositeNode")
                composite.SetSingletonTag(name)
                composite.SetLayoutName(name)
                self._scene.AddNode(composite)

    def turn_back(self) -> None:
        """Turn the views as Slicer starts with them; closing the scene leaves them turned."""
        for name, orientation, _ in _VIEWS:
            node = self.slice_node(name)
            node.GetSliceToRAS().Identity()
            node.SetOrientation(orientation)
            node.UpdateMatrices()

    def _made(self, class_name: str) -> vtk.vtkObject:
        """Return a new node with the scene's defaults, which hold the orientation presets."""
        node = self._scene.CreateNodeByClass(class_name)
        node.UnRegister(None)
        return node
