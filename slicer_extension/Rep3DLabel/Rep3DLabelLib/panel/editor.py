"""Slicer's segment editor inside the panel, and its plot view."""

from __future__ import annotations

from typing import Any

import slicer

from ..i18n import tr

__all__ = ["EditorSection"]

_TAG = "Rep3DLabel"  # our own editor settings, so that the Segment Editor module keeps its own


class EditorSection:
    """The embedded qMRMLSegmentEditorWidget."""

    def __init__(self, ui: Any) -> None:
        self._editor = ui.segmentEditor
        self._entered = False
        self._wanted: tuple[Any, Any] = (None, None)  # the segmentation to be edited, and the volume below it
        self._editor.setMaximumNumberOfUndoStates(10)
        self._use_own_settings()
        self._editor.setMRMLScene(slicer.mrmlScene)
        self._editor.setSegmentationNodeSelectorVisible(False)
        self._editor.setSourceVolumeNodeSelectorVisible(False)

    def edit(self, segmentation: Any, volume: Any) -> None:
        """Edit a segmentation over a volume; None, None for nothing."""
        self._wanted = (segmentation, volume)
        self.put_back()

    def put_back(self) -> None:
        """Edit what `edit` said last.

        A scene that is added brings the choices of the editor that it was saved with, and the editor's own selector
        goes on to another segmentation where its list is made anew. While many nodes come and go the editor follows
        nothing, so this is to be called at the end of that.
        """
        if slicer.mrmlScene.IsBatchProcessing():
            return
        segmentation, volume = (node if node is not None and node.GetScene() else None for node in self._wanted)
        self._use_own_settings()
        if segmentation is None or not self._entered:
            self._editor.setActiveEffectByName("")  # a saved tool would draw while another module is shown
        if segmentation is None:
            self._editor.setSourceVolumeNode(None)  # else its selector would go on to another image
        self._editor.setSegmentationNode(segmentation)
        if segmentation is not None:
            self._editor.setSourceVolumeNode(volume)
        self._editor.updateWidgetFromMRML()

    def save_undo(self, segmentation: Any) -> bool:
        """Make an undo point of a segmentation; False where this editor edits another one, or nothing."""
        if segmentation is None or self._editor.segmentationNode() is not segmentation:
            return False
        self._editor.saveStateForUndo()
        return True

    def enter(self) -> None:
        """Note that the module is shown: views and keys work for the editor."""
        if not self._entered:
            self._entered = True
            self.put_back()
            self._turn_off_light_boxes()
            self._editor.setupViewObservations()
            self._editor.installKeyboardShortcuts()

    def exit(self) -> None:
        """Note that the module is left: no tool goes on drawing."""
        if self._entered:
            self._entered = False
            self._editor.setActiveEffectByName("")
            self._editor.uninstallKeyboardShortcuts()
            self._editor.removeViewObservations()

    def scene_closing(self) -> None:
        """Let go of nodes that are about to vanish."""
        self._editor.setSegmentationNode(None)
        self._editor.removeViewObservations()

    def scene_closed(self) -> None:
        """Use the new scene."""
        self.put_back()
        if self._entered:
            self._editor.setupViewObservations()

    def show_chart(self, chart: Any) -> None:
        """Show a chart in Slicer's plot view."""
        slicer.modules.plots.logic().ShowChartInLayout(chart)

    def _turn_off_light_boxes(self) -> None:
        """Show one slice in each view, as Slicer's own module does; from 5.10 on there are no others."""
        if (slicer.app.majorVersion, slicer.app.minorVersion) < (5, 10) and self._editor.turnOffLightboxes():
            slicer.util.showStatusMessage(tr("Light box views were turned off: one cannot draw in them."), 10000)

    def _use_own_settings(self) -> None:
        node = slicer.mrmlScene.GetSingletonNode(_TAG, "vtkMRMLSegmentEditorNode")
        if node is None:
            made = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            made.UnRegister(None)
            made.SetSingletonTag(_TAG)
            node = slicer.mrmlScene.AddNode(made)
        if self._editor.mrmlSegmentEditorNode() != node:
            self._editor.setMRMLSegmentEditorNode(node)
