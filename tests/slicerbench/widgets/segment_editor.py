"""qMRMLSegmentEditorWidget: the Segment Editor as a panel embeds it, with Slicer's own undo history."""

from __future__ import annotations

import slicer
from PySide6 import QtCore

from tests.slicerbench.widgets.base import kept, observe
from tests.slicerbench.widgets.editor_keys import EditorKeys
from tests.slicerbench.widgets.effects import NAMES, qSlicerSegmentEditorAbstractEffect
from tests.slicerbench.widgets.mrml import qMRMLWidget
from tests.slicerbench.widgets.segment_editor_form import build


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Selectors, the list of segments, buttons to add, remove, undo and redo, and buttons of effects.

    Real: the segment editor node, the segment list, vtkSegmentationHistory. Not done: effects (their buttons only set
    the active effect's name), masking, Show 3D. The inner widgets have the object names of the real ones.
    The names with «master» of Slicer before 5.4 are left out.

    What it does when nodes and scenes come and go follows qMRMLSegmentEditorWidget.cxx, in copies from about 5.2,
    about 5.8 and main, and its .ui file, whose segmentation selector has no "none". They differ in one thing: some
    follow what happens in a batch at its end, as here, some at once.
    """

    STANDS_FOR_CPP = True
    SIGNALS = {
        "segmentationNodeChanged(vtkMRMLSegmentationNode*)": "segmentationNodeChanged",
        "sourceVolumeNodeChanged(vtkMRMLVolumeNode*)": "sourceVolumeNodeChanged",
        "currentSegmentIDChanged(QString)": "currentSegmentIDChanged",
    }
    segmentationNodeChanged = QtCore.Signal(object)
    sourceVolumeNodeChanged = QtCore.Signal(object)
    currentSegmentIDChanged = QtCore.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        private = self._d
        private.node, private.tag, private.views = None, None, False
        private.keys, private.last_effect = EditorKeys(self), ""
        private.segmentation = private.volume = None  # that are shown; those of the node may be others for a moment
        private.segmentation_tag, private.effect, private.scene_tags = None, "", []
        private.logged = []  # errors that Slicer would write into its log, and that do nothing else
        private.history = slicer.vtkSegmentationHistory()
        private.history.SetMaximumNumberOfStates(10)
        observe(self, private.history, "ModifiedEvent", qMRMLSegmentEditorWidget._show_history)
        private.effects = {name: qSlicerSegmentEditorAbstractEffect(self, name) for name in NAMES}
        build(self)
        self._show_history()

    segmentationNodeSelectorVisible = kept("segmentationNodeSelectorVisible", bool, True, "_show_selectors")
    sourceVolumeNodeSelectorVisible = kept("sourceVolumeNodeSelectorVisible", bool, True, "_show_selectors")
    switchToSegmentationsButtonVisible = kept("switchToSegmentationsButtonVisible", bool, True)
    undoEnabled = kept("undoEnabled", bool, True, "_show_history")
    readOnly = kept("readOnly", bool, False, "_show_history")
    effectColumnCount = kept("effectColumnCount", int, 2)
    autoShowSourceVolumeNode = kept("autoShowSourceVolumeNode", bool, True)
    maximumNumberOfUndoStates = QtCore.Property(
        int,
        lambda self: self._d.history.GetMaximumNumberOfStates(),
        lambda self, count: self.setMaximumNumberOfUndoStates(count),
    )

    def mrmlSegmentEditorNode(self):
        """Return the vtkMRMLSegmentEditorNode, None before it is set."""
        return self._d.node

    def setMRMLSegmentEditorNode(self, node) -> None:
        """Set the node that keeps all choices; to be set before anything else."""
        private = self._d
        if private.tag is not None:
            private.node.RemoveObserver(private.tag)
        private.node = node
        private.tag = (
            observe(self, node, "ModifiedEvent", qMRMLSegmentEditorWidget.updateWidgetFromMRML)
            if node is not None
            else None
        )
        self.updateWidgetFromMRML()

    def setMRMLScene(self, scene) -> None:
        """Set the scene of the selectors too, without following what they choose by themselves."""
        private = self._d
        if scene is private.scene:
            return
        for tag in private.scene_tags:
            private.scene.RemoveObserver(tag)
        selectors = (private.segmentation_selector, private.volume_selector)
        blockers = [QtCore.QSignalBlocker(selector) for selector in selectors]
        super().setMRMLScene(scene)
        for selector, blocker in zip(selectors, blockers, strict=True):
            selector.setMRMLScene(scene)
            blocker.unblock()
        self.updateWidgetFromMRML()
        if scene is not None:
            kind, editor = slicer.vtkMRMLScene, qMRMLSegmentEditorWidget
            private.scene_tags = [
                observe(self, scene, kind.EndCloseEvent, editor.updateWidgetFromMRML),
                observe(self, scene, kind.EndBatchProcessEvent, editor._batch_ended),
            ]

    def segmentationNode(self):
        """Return the segmentation in the selector, None for none; the node's may be another one for a moment."""
        return self._d.segmentation_selector.currentNode()

    def segmentationNodeID(self) -> str:
        """Its ID, "" for none."""
        return self._d.segmentation_selector.currentNodeID

    def setSegmentationNode(self, node) -> None:
        """Edit this segmentation; the tool is put down, and earlier undo states are dropped.

        Its reference image becomes the source volume, and is shown in all slice views where it is not shown yet.
        """
        if self._d.node is None and node is None:
            return
        self._needs_node("setSegmentationNode")
        if node is not self._d.node.GetSegmentationNode():
            self.setActiveEffect(None)
            self._d.node.SetAndObserveSegmentationNode(node)

    def setSegmentationNodeID(self, node_id: str) -> None:
        """By ID."""
        self.setSegmentationNode(self._d.scene.GetNodeByID(node_id))

    def sourceVolumeNode(self):
        """Return the image that is segmented, None for none."""
        return self._d.node.GetSourceVolumeNode() if self._d.node is not None else None

    def sourceVolumeNodeID(self) -> str:
        """Its ID, "" for none."""
        node = self.sourceVolumeNode()
        return node.GetID() if node is not None else ""

    def setSourceVolumeNode(self, node) -> None:
        """Segment this image.

        Raises:
            RuntimeError: before a segmentation is set; Slicer only logs that, and the image is not set.
        """
        if self._d.node is None or self.segmentationNode() is None:
            if node is not None:
                raise RuntimeError("setSourceVolumeNode() before setSegmentationNode(): Slicer only logs an error")
            return
        if node is not self.sourceVolumeNode():
            self._d.node.SetAndObserveSourceVolumeNode(node)

    def setSourceVolumeNodeID(self, node_id: str) -> None:
        """By ID."""
        self.setSourceVolumeNode(self._d.scene.GetNodeByID(node_id))

    def currentSegmentID(self) -> str:
        """Return the selected segment's ID, "" for none."""
        return (self._d.node.GetSelectedSegmentID() or "") if self._d.node is not None else ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        """Select a segment."""
        self._needs_node("setCurrentSegmentID")
        self._d.node.SetSelectedSegmentID(segment_id)

    def availableEffectNames(self) -> tuple[str, ...]:
        """Return names of all effects."""
        return NAMES

    def effectByName(self, name: str):
        """Return an effect, None where there is none of this name."""
        return self._d.effects.get(name)

    def activeEffect(self):
        """Return the active effect, None for none."""
        return self.effectByName(self._d.node.GetActiveEffectName() or "") if self._d.node is not None else None

    def setActiveEffect(self, effect) -> None:
        """Make an effect active, None for none."""
        if self._d.node is None and effect is None:
            return
        self._needs_node("setActiveEffect")
        self._d.node.SetActiveEffectName(effect.name if effect is not None else "")

    def setActiveEffectByName(self, name: str) -> None:
        """Make an effect active; an unknown name is refused, in Slicer it is logged."""
        if name and name not in NAMES:
            raise ValueError(f"expected one of {NAMES}, got {name!r}")
        self.setActiveEffect(self.effectByName(name))

    def saveStateForUndo(self) -> None:
        """Keep the segmentation as it is now; to be called before a change."""
        if self.undoEnabled and self.segmentationNode() is not None:
            self._d.history.SaveState()

    def undo(self) -> None:
        """Go back to the last kept state."""
        self._restore(slicer.vtkSegmentationHistory.RestorePreviousState)

    def redo(self) -> None:
        """Take undo back."""
        self._restore(slicer.vtkSegmentationHistory.RestoreNextState)

    def setUndoEnabled(self, enabled: bool) -> None:
        """Set whether states are kept."""
        self.undoEnabled = enabled

    def setMaximumNumberOfUndoStates(self, count: int) -> None:
        """Set how many states are kept."""
        self._d.history.SetMaximumNumberOfStates(count)

    def setSegmentationNodeSelectorVisible(self, visible: bool) -> None:
        """Show or hide the selector."""
        self.segmentationNodeSelectorVisible = visible

    def setSourceVolumeNodeSelectorVisible(self, visible: bool) -> None:
        """Show or hide the selector."""
        self.sourceVolumeNodeSelectorVisible = visible

    def setSwitchToSegmentationsButtonVisible(self, visible: bool) -> None:
        """Remembered only."""
        self.switchToSegmentationsButtonVisible = visible

    def setReadOnly(self, read_only: bool) -> None:
        """Disable adding, removing, undo and redo."""
        self.readOnly = read_only

    def setEffectNameOrder(self, names) -> None:
        """Remembered only."""
        self._d.kept["effectNameOrder"] = list(names)

    def effectNameOrder(self) -> tuple[str, ...]:
        """Return the order of the effects' buttons."""
        return tuple(self._d.kept.get("effectNameOrder", NAMES))

    def setupViewObservations(self) -> None:
        """Effects get the mouse; done by the editor itself when an effect becomes active.

        Raises:
            RuntimeError: before 5.10, where a view is a light box; Slicer says nothing, and effects draw elsewhere.
        """
        if slicer.app.layoutManager().light_boxes():
            raise RuntimeError("setupViewObservations() before turnOffLightboxes(): effects draw in the wrong places")
        self._d.views = True

    def turnOffLightboxes(self) -> bool:
        """Show one slice in each view; return whether there were light boxes."""
        boxes = slicer.app.layoutManager().light_boxes()
        found = bool(boxes)
        boxes.clear()
        return found

    def removeViewObservations(self) -> None:
        """Effects do not get the mouse; done by the editor itself when none is active any more."""
        self._d.views = False

    def showSourceVolumeInSliceViewers(self, force_in_background: bool = False, fit_slice: bool = False) -> None:
        """Show the image in the slice views that do not show it yet; what lay over another one there goes."""
        volume = self.sourceVolumeNode()
        logics = slicer.app.layoutManager().mrmlSliceLogics() if volume is not None else []
        for logic in logics:
            composite = logic.GetSliceCompositeNode()
            shown = volume.GetID() in (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID())
            if not shown or force_in_background:
                composite.SetBackgroundVolumeID(volume.GetID())
                composite.SetForegroundVolumeID(None)
                composite.SetLabelVolumeID(None)
            if fit_slice:
                logic.FitSliceToAll(True)

    def installKeyboardShortcuts(self, parent=None) -> None:
        """Keys in the main window, or in `parent`: see `EditorKeys`."""
        self._d.keys.install(parent)

    def uninstallKeyboardShortcuts(self) -> None:
        """Take the keys away."""
        self._d.keys.uninstall()

    def _needs_node(self, name: str) -> None:
        if self._d.node is None:
            raise RuntimeError(f"{name}() before setMRMLSegmentEditorNode(): Slicer logs an error and does nothing")

    def updateWidgetFromMRML(self) -> None:
        """Show what the segment editor node says, and tell of what changed; nothing while the scene is in between."""
        private = self._d
        if private.scene is None or private.scene.IsClosing() or private.scene.IsBatchProcessing():
            return
        if private.node is None:
            private.segmentation_selector.setEnabled(False)
            return
        private.segmentation_selector.setEnabled(True)
        modifying = private.node.StartModify()
        self._update_segmentation()
        self._update_volume()
        current = self.currentSegmentID()
        if private.table.selectedSegmentIDs() != ((current,) if current else ()):
            blocker = QtCore.QSignalBlocker(private.table)
            private.table.setSelectedSegmentIDs([current] if current else [])
            blocker.unblock()
        self._update_effect()
        self._show_history()
        private.node.EndModify(modifying)
        if current != private.kept.get("segment", ""):
            private.kept["segment"] = current
            self.currentSegmentIDChanged.emit(current)

    def _update_segmentation(self) -> None:
        private, segmentation = self._d, self._d.node.GetSegmentationNode()
        if segmentation is not private.segmentation_selector.currentNode():
            blocker = QtCore.QSignalBlocker(private.segmentation_selector)
            private.segmentation_selector.setCurrentNode(segmentation)
            blocker.unblock()
        if segmentation is not private.segmentation:
            if private.segmentation_tag is not None:
                private.segmentation.RemoveObserver(private.segmentation_tag)
            private.segmentation, private.segmentation_tag = segmentation, None
            private.table.setSegmentationNode(segmentation)
            if segmentation is not None:
                update = qMRMLSegmentEditorWidget.updateWidgetFromMRML
                private.segmentation_tag = observe(self, segmentation, "ModifiedEvent", update)
                role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
                private.volume_selector.setCurrentNode(segmentation.GetNodeReference(role))
                segmentation.CreateDefaultDisplayNodes()
                ids = segmentation.GetSegmentation().GetSegmentIDs()
                private.node.SetSelectedSegmentID(ids[0] if ids else "")
            self.segmentationNodeChanged.emit(segmentation)
        private.history.SetSegmentation(segmentation.GetSegmentation() if segmentation is not None else None)

    def _update_volume(self) -> None:
        private, volume = self._d, self._d.node.GetSourceVolumeNode()
        if private.node.GetSegmentationNode() is None or volume is private.volume:
            return
        private.volume = volume
        blocker = QtCore.QSignalBlocker(private.volume_selector)
        private.volume_selector.setCurrentNode(volume)
        blocker.unblock()
        if volume is not None and self.autoShowSourceVolumeNode:
            self.showSourceVolumeInSliceViewers()
        self.sourceVolumeNodeChanged.emit(volume)

    def _update_effect(self) -> None:
        """Give an active effect the mouse of the views, whatever module is shown."""
        private, active = self._d, self._d.node.GetActiveEffectName() or ""
        if active != private.effect:
            if active:
                self.setupViewObservations()
            else:
                self.removeViewObservations()
            private.last_effect, private.effect = private.effect, active
        for name in NAMES:
            private.buttons[name].setChecked(active == name)

    def _batch_ended(self) -> None:
        """Follow what the selectors chose while many nodes came and went, which was not followed then."""
        private = self._d
        if private.node is not None:
            self.setSegmentationNode(private.segmentation_selector.currentNode())
            self.setSourceVolumeNode(private.volume_selector.currentNode())
        self.updateWidgetFromMRML()

    def _restore(self, step) -> None:
        """Go to another kept state; what it changes is told at the end, each kind once and without saying of what."""
        segmentation = self._d.segmentation
        if segmentation is not None:
            modifying = segmentation.StartModify()
            step(self._d.history)
            segmentation.InvokeCustomModifiedEvent(slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent)
            segmentation.EndModify(modifying)

    def _segmentation_chosen(self, node) -> None:
        if not self._d.scene.IsBatchProcessing() and self._d.node is not None:
            self.setSegmentationNode(node)

    def _volume_chosen(self, node) -> None:
        if self._d.scene.IsBatchProcessing():
            return
        if node is not None and self.segmentationNode() is None:
            self._d.logged.append("setSourceVolumeNode failed: need to set segment editor and segmentation nodes first")
        else:
            self.setSourceVolumeNode(node)

    def _row_selected(self) -> None:
        selected = self._d.table.selectedSegmentIDs()
        if self._d.node is not None and selected:
            self.setCurrentSegmentID(selected[0])

    def _add_segment(self) -> None:
        if self.segmentationNode() is not None:
            self.saveStateForUndo()
            self.setCurrentSegmentID(self.segmentationNode().GetSegmentation().AddEmptySegment())

    def _remove_segment(self) -> None:
        if self.segmentationNode() is not None and self.currentSegmentID():
            self.saveStateForUndo()
            self.segmentationNode().GetSegmentation().RemoveSegment(self.currentSegmentID())

    def _show_selectors(self) -> None:
        flags = (self.segmentationNodeSelectorVisible, self.sourceVolumeNodeSelectorVisible)
        for row, visible in zip(self._d.rows, flags, strict=True):
            for widget in row:
                widget.setVisible(visible)

    def _show_history(self) -> None:
        private = self._d
        usable = self.undoEnabled and not self.readOnly
        private.buttons["UndoButton"].setEnabled(usable and bool(private.history.IsRestorePreviousStateAvailable()))
        private.buttons["RedoButton"].setEnabled(usable and bool(private.history.IsRestoreNextStateAvailable()))
        for name in ("AddSegmentButton", "RemoveSegmentButton"):
            private.buttons[name].setEnabled(not self.readOnly and self.segmentationNode() is not None)
