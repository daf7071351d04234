"""qMRMLSegmentEditorWidget: the Segment Editor as a panel embeds it, with Slicer's own undo history."""

from __future__ import annotations

import slicer
from PySide6 import QtCore, QtWidgets

from tests.slicerbench.widgets.base import kept, observe
from tests.slicerbench.widgets.editor_keys import EditorKeys
from tests.slicerbench.widgets.effects import NAMES, qSlicerSegmentEditorAbstractEffect
from tests.slicerbench.widgets.mrml import qMRMLWidget
from tests.slicerbench.widgets.node_combo import qMRMLNodeComboBox
from tests.slicerbench.widgets.segments_table import qMRMLSegmentsTableView


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """Selectors, the list of segments, buttons to add, remove, undo and redo, and buttons of effects.

    Real: the segment editor node, the segment list, vtkSegmentationHistory. Not done: effects (their buttons only set
    the active effect's name), masking, Show 3D, views. The inner widgets have the object names of the real ones.
    The names with «master» of Slicer before 5.4 are left out.
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
        private.node, private.tag, private.updating, private.views = None, None, False, False
        private.keys, private.active, private.last_effect = EditorKeys(self), "", ""
        private.history = slicer.vtkSegmentationHistory()
        private.history.SetMaximumNumberOfStates(10)
        observe(self, private.history, "ModifiedEvent", qMRMLSegmentEditorWidget._show_history)
        private.effects = {name: qSlicerSegmentEditorAbstractEffect(self, name) for name in NAMES}
        private.shown = None
        self._build()

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
            observe(self, node, "ModifiedEvent", qMRMLSegmentEditorWidget._update) if node is not None else None
        )
        self._update()

    def setMRMLScene(self, scene) -> None:
        """Set the scene of the selectors too."""
        super().setMRMLScene(scene)
        for selector in (self._d.segmentation_selector, self._d.volume_selector):
            selector.setMRMLScene(scene)

    def segmentationNode(self):
        """Return the segmentation that is edited, None for none."""
        return self._d.node.GetSegmentationNode() if self._d.node is not None else None

    def segmentationNodeID(self) -> str:
        """Its ID, "" for none."""
        node = self.segmentationNode()
        return node.GetID() if node is not None else ""

    def setSegmentationNode(self, node) -> None:
        """Edit this segmentation; its first segment is selected, and earlier undo states are dropped."""
        self._needs_node("setSegmentationNode")
        if node is not self.segmentationNode():
            self._d.node.SetAndObserveSegmentationNode(node)
            self._update()

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
        self._needs_node("setSourceVolumeNode")
        if node is not None and self.segmentationNode() is None:
            raise RuntimeError("setSourceVolumeNode() before setSegmentationNode(): Slicer only logs an error")
        if node is not self.sourceVolumeNode():
            self._d.node.SetAndObserveSourceVolumeNode(node)
            if node is not None and self.segmentationNode().GetNodeReferenceID("referenceImageGeometryRef") is None:
                self.segmentationNode().SetReferenceImageGeometryParameterFromVolumeNode(node)
            self.sourceVolumeNodeChanged.emit(node)

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
        if self.segmentationNode() is not None:
            self._d.history.RestorePreviousState()

    def redo(self) -> None:
        """Take undo back."""
        if self.segmentationNode() is not None:
            self._d.history.RestoreNextState()

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
        """Effects get the mouse; to be called by enter()."""
        self._d.views = True

    def removeViewObservations(self) -> None:
        """Effects do not get the mouse; to be called by exit()."""
        self._d.views = False

    def installKeyboardShortcuts(self, parent=None) -> None:
        """Keys in the main window, or in `parent`: see `EditorKeys`."""
        self._d.keys.install(parent)

    def uninstallKeyboardShortcuts(self) -> None:
        """Take the keys away."""
        self._d.keys.uninstall()

    def updateWidgetFromMRML(self) -> None:
        """Show what the nodes say."""
        self._update()

    def _needs_node(self, name: str) -> None:
        if self._d.node is None:
            raise RuntimeError(f"{name}() before setMRMLSegmentEditorNode(): Slicer logs an error and does nothing")

    def _build(self) -> None:
        private, layout = self._d, QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        form = QtWidgets.QFormLayout()
        layout.addLayout(form)
        private.rows = []
        selectors = []
        for label, name, kind in (
            ("Segmentation:", "SegmentationNodeComboBox", "vtkMRMLSegmentationNode"),
            ("Source volume:", "SourceVolumeNodeComboBox", "vtkMRMLScalarVolumeNode"),
        ):
            selector, text = qMRMLNodeComboBox(self), QtWidgets.QLabel(label, self)
            selector.setObjectName(name)
            selector.nodeTypes, selector.noneEnabled = [kind], True
            form.addRow(text, selector)
            private.rows.append((text, selector))
            selectors.append(selector)
        private.segmentation_selector, private.volume_selector = selectors
        selectors[0].currentNodeChanged.connect(self._segmentation_chosen)
        selectors[1].currentNodeChanged.connect(self._volume_chosen)
        buttons = QtWidgets.QHBoxLayout()
        layout.addLayout(buttons)
        private.buttons = {}
        for name, text, action in (
            ("AddSegmentButton", "Add", self._add_segment),
            ("RemoveSegmentButton", "Remove", self._remove_segment),
            ("UndoButton", "Undo", self.undo),
            ("RedoButton", "Redo", self.redo),
        ):
            button = private.buttons[name] = QtWidgets.QPushButton(text, self)
            button.setObjectName(name)
            button.clicked.connect(action)
            buttons.addWidget(button)
        private.table = qMRMLSegmentsTableView(self)
        private.table.setObjectName("SegmentsTableView")
        private.table.setSelectionMode(1)
        private.table.selectionChanged.connect(self._row_selected)
        layout.addWidget(private.table)
        grid = QtWidgets.QGridLayout()
        layout.addLayout(grid)
        for index, name in enumerate(NAMES):
            button = QtWidgets.QToolButton(self)
            button.setText(name)
            button.setCheckable(True)
            button.setObjectName(name)
            button.clicked.connect(self._effect_action(name))
            private.buttons[name] = button
            grid.addWidget(button, index // 4, index % 4)
        self._show_history()

    def _effect_action(self, name: str):
        return lambda checked: self.setActiveEffectByName(name if checked else "")

    def _update(self) -> None:
        """Show what the segment editor node says, and tell of what changed."""
        private = self._d
        if private.updating:
            return
        private.updating = True
        try:
            segmentation = self.segmentationNode()
            changed = segmentation is not private.shown
            if changed:
                private.shown = segmentation
                private.history.SetSegmentation(segmentation.GetSegmentation() if segmentation is not None else None)
                private.table.setSegmentationNode(segmentation)
                private.segmentation_selector.setCurrentNode(segmentation)
                ids = list(segmentation.GetSegmentation().GetSegmentIDs()) if segmentation is not None else []
                if private.node is not None and self.currentSegmentID() not in ids:
                    private.node.SetSelectedSegmentID(ids[0] if ids else "")
            private.volume_selector.setCurrentNode(self.sourceVolumeNode())
            current = self.currentSegmentID()
            if private.table.selectedSegmentIDs() != ((current,) if current else ()):
                private.table.setSelectedSegmentIDs([current] if current else [])
            effect = (private.node.GetActiveEffectName() or "") if private.node is not None else ""
            if effect != private.active:
                private.last_effect, private.active = private.active, effect
            for name in NAMES:
                private.buttons[name].setChecked(effect == name)
        finally:
            private.updating = False
        self._show_history()
        if changed:
            self.segmentationNodeChanged.emit(segmentation)
        if current != private.kept.get("segment", ""):
            private.kept["segment"] = current
            self.currentSegmentIDChanged.emit(current)

    def _segmentation_chosen(self, node) -> None:
        if not self._d.updating and self._d.node is not None:
            self.setSegmentationNode(node)

    def _volume_chosen(self, node) -> None:
        if not self._d.updating and self._d.node is not None and self.segmentationNode() is not None:
            self.setSourceVolumeNode(node)

    def _row_selected(self) -> None:
        selected = self._d.table.selectedSegmentIDs()
        if not self._d.updating and self._d.node is not None and selected:
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
