"""A module small enough to see all of it: thresholds a volume. It is what the bench is tried on."""

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

EVENTS: list[str] = []


class ToyLab(ScriptedLoadableModule):
    """Describes the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Toy Lab")
        parent.categories = ["Segmentation"]


class ToyLabWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Its panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        top = slicer.util.loadUI(self.resourcePath("UI/ToyLab.ui"))
        self.layout.addWidget(top)
        self.ui = slicer.util.childWidgetVariables(top)
        top.setMRMLScene(slicer.mrmlScene)
        self.logic = ToyLabLogic()
        self.editorNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.ui.editor.setMRMLSegmentEditorNode(self.editorNode)
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.inputSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.updateState)
        self.ui.thresholdSpin.connect("valueChanged(int)", self.updateState)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneClosed)
        self.timer = qt.QTimer()
        self.timer.setInterval(20)
        self.timer.connect("timeout()", self.onTimer)
        self.ticks = 0
        self.updateState()
        EVENTS.append("setup")

    def enter(self):
        EVENTS.append("enter")
        self.timer.start()

    def exit(self):
        EVENTS.append("exit")
        self.timer.stop()

    def cleanup(self):
        EVENTS.append("cleanup")
        self.timer.stop()
        self.removeObservers()

    def onTimer(self):
        self.ticks += 1

    def onSceneClosed(self, caller, event):
        self.updateState()

    def updateState(self, unused=None):
        node = self.ui.inputSelector.currentNode()
        self.ui.applyButton.enabled = node is not None
        self.ui.statusLabel.text = _("Ready: {n}").format(n=node.GetName()) if node else _("Choose a volume")

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("Segmentation failed."), waitCursor=True):
            node, voxels = self.logic.segment(self.ui.inputSelector.currentNode(), self.ui.thresholdSpin.value)
            self.ui.editor.setSegmentationNode(node)
            self.ui.statusLabel.text = _("{n} voxels").format(n=voxels)


class ToyLabLogic(ScriptedLoadableModuleLogic):
    """What it computes."""

    def segment(self, volume, threshold):
        """Return a segmentation of what is brighter than `threshold`, and its number of voxels."""
        mask = (slicer.util.arrayFromVolume(volume) > threshold).astype(np.uint8)
        if not mask.any():
            raise ValueError(f"nothing is brighter than {threshold}")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Toy")
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentId = node.GetSegmentation().AddEmptySegment("bright", _("Bright"), (1.0, 0.8, 0.1))
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, segmentId, volume)
        return node, int(mask.sum())


class ToyLabTest(ScriptedLoadableModuleTest):
    """Its own test, which runs in Slicer and on the bench."""

    def runTest(self):
        volume = slicer.util.addVolumeFromArray(np.full((2, 3, 4), 200, dtype=np.int16), name="Flat")
        self.delayDisplay("Thresholding a volume of 24 voxels")
        voxels = ToyLabLogic().segment(volume, 100)[1]
        self.assertEqual(voxels, 24)
        EVENTS.append("tested")
