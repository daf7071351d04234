"""What the slice views show: the image, the uncertainty over it, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .nodes import nodes_of

__all__ = ["Views"]

# Colour maps that grow brighter with the value; the first that the scene has. "Iron" is built into every Slicer.
_MAPS = ("Inferno", "Magma", "Plasma", "Viridis", "Iron")
_LAYERS = ("Background", "Foreground", "Label")  # of a view
_CLEAR = 0.05  # part of the range, from zero, that is not drawn


class Views:
    """The slice views.

    Args:
        slicer: The slicer module.
        scene: The vtkMRMLScene.
    """

    def __init__(self, slicer: Any, scene: Any) -> None:
        self._slicer, self._scene = slicer, scene
        self._before: dict[str, tuple[str, float]] = {}  # id of a composite node -> its foreground and opacity
        self._overlay = ""
        self._kept: dict[str, tuple[str, ...]] = {}  # id of a composite node -> ids of what it shows

    def forget(self) -> None:
        """Note that the scene is closed."""
        self._before.clear()
        self._kept.clear()
        self._overlay = ""

    def keep(self) -> None:
        """Remember what the slice views show."""
        self._kept = {
            composite.GetID(): tuple(getattr(composite, f"Get{layer}VolumeID")() or "" for layer in _LAYERS)
            for composite in nodes_of(self._scene, "vtkMRMLSliceCompositeNode")
        }

    def give_back(self) -> None:
        """Show what was remembered, as far as it is still in the scene."""
        kept, self._kept = self._kept, {}
        for identifier, volumes in kept.items():
            composite = self._scene.GetNodeByID(identifier)
            for layer, volume in zip(_LAYERS, volumes):
                if composite is not None and (not volume or self._scene.GetNodeByID(volume) is not None):
                    getattr(composite, f"Set{layer}VolumeID")(volume or None)

    def show(self, volume: Any) -> None:
        """Show a volume as the background of all slice views, whole."""
        logic = self._application_logic()
        if logic is not None:
            logic.GetSelectionNode().SetActiveVolumeID(volume.GetID())
            logic.PropagateBackgroundVolumeSelection(1)
            return
        for composite in nodes_of(self._scene, "vtkMRMLSliceCompositeNode"):
            composite.SetBackgroundVolumeID(volume.GetID())

    def show_overlay(self, volume: Any, opacity: float) -> None:
        """Show a volume over the image: clear where it is zero, the brighter the more it is."""
        self.hide_overlay()
        display = volume.GetDisplayNode()
        top = display.GetLevel() + display.GetWindow() / 2.0
        display.SetAutoWindowLevel(0)
        display.SetWindowLevelMinMax(0.0, top)
        display.SetAndObserveColorNodeID(self._colour_map())
        display.SetAutoThreshold(0)
        display.SetThreshold(_CLEAR * top, max(1e30, top))
        display.SetApplyThreshold(1)
        self._overlay = volume.GetID()
        for composite in nodes_of(self._scene, "vtkMRMLSliceCompositeNode"):
            self._before[composite.GetID()] = (
                composite.GetForegroundVolumeID() or "",
                composite.GetForegroundOpacity(),
            )
            composite.SetForegroundVolumeID(self._overlay)
            composite.SetForegroundOpacity(float(opacity))

    def hide_overlay(self) -> None:
        """Give the views back the foreground that they had, unless the user chose another one meanwhile."""
        before, self._before = self._before, {}
        overlay, self._overlay = self._overlay, ""
        for identifier, (volume, opacity) in before.items():
            composite = self._scene.GetNodeByID(identifier)
            if composite is None or (composite.GetForegroundVolumeID() or "") not in (overlay, ""):
                continue
            there = volume and self._scene.GetNodeByID(volume) is not None
            composite.SetForegroundVolumeID(volume if there else None)
            composite.SetForegroundOpacity(opacity)

    def is_overlay(self, volume: Any) -> bool:
        """Return whether a volume is the overlay that is shown now."""
        return bool(self._overlay) and volume.GetID() == self._overlay

    def is_seen(self, volume: Any) -> bool:
        """Return whether a volume lies over another one in a slice view."""
        composites = nodes_of(self._scene, "vtkMRMLSliceCompositeNode")
        return any(composite.GetForegroundVolumeID() == volume.GetID() for composite in composites)

    def jump(self, ras: Sequence[float]) -> None:
        """Centre all slice views on a point, RAS in mm."""
        right, anterior, superior = (float(part) for part in ras)
        for node in nodes_of(self._scene, "vtkMRMLSliceNode"):
            node.JumpSliceByCentering(right, anterior, superior)

    def _application_logic(self) -> Any:
        application = getattr(self._slicer, "app", None)
        logic = application.applicationLogic() if application is not None else None
        return logic if logic is not None and logic.GetMRMLScene() is self._scene else None

    def _colour_map(self) -> str:
        by_name = {node.GetName(): node.GetID() for node in nodes_of(self._scene, "vtkMRMLColorNode")}
        return next((by_name[name] for name in _MAPS if name in by_name), "vtkMRMLColorTableNodeGrey")
