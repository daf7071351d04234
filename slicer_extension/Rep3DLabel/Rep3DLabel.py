"""Rep3D Label in 3D Slicer: this file only puts the parts together.

The work is in Rep3DLabelLib: `workflow` decides, a worker process talks to the server, `scene` knows the scene, `panel`
the widgets.
"""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import qt
import slicer
from Rep3DLabelLib.drafts import Drafts
from Rep3DLabelLib.i18n import set_translator, tr
from Rep3DLabelLib.local.launcher import Launcher
from Rep3DLabelLib.panel import Panel
from Rep3DLabelLib.panel.qt_settings import QtStore
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.settings import Settings
from Rep3DLabelLib.worker.helper import Helper
from Rep3DLabelLib.worker.jobs import Worker
from Rep3DLabelLib.workflow import Workflow
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Rep3DLabel(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        set_translator(translate)
        parent.title = tr("Rep3D Label")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SubjectHierarchy", "Terminologies", "Plots"]
        parent.contributors = ["The Rep3D Label team"]
        parent.helpText = tr(
            "Segment 3D images together with a model that learns from your corrections: fetch a sample, let the model "
            "segment it, correct it, submit it, train. Needs a Rep3D Label server, which can be started here."
        )
        parent.acknowledgementText = tr(
            "The model is Rep3D (arXiv 2505.19603). The server is an app of MONAI Label. Not a medical device: every "
            "segmentation must be checked."
        )


class Rep3DLabelWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Makes the parts, and passes on what Slicer tells the module."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.ui = self.panel = self.workflow = self.scene = self._folder = None

    def setup(self):
        """Note that the module is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        root = slicer.util.loadUI(self.resourcePath("UI/Rep3DLabel.ui"))
        self.layout.addWidget(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(root)
        settings = Settings(QtStore(slicer.app.userSettings()))
        self._folder = Path(tempfile.mkdtemp(prefix="Rep3DLabel-", dir=slicer.app.temporaryPath))
        self.panel = Panel(root, self.ui, settings, Path(self.resourcePath("Icons")), slicer.util.mainWindow())
        self.scene = Scene(slicer, undo=self.panel.save_undo)
        self.workflow = Workflow(
            Worker(self._folder / "worker"),
            self.scene,
            self.panel,
            Drafts(_kept_folder() / "drafts"),
            settings,
            self._folder,
            Launcher(_kept_folder() / "server", slicer.util.startupEnvironment()),
        )
        self.panel.use(self.workflow)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndBatchProcessEvent, self.onSceneEndBatchProcess)
        slicer.app.connect("aboutToQuit()", self.cleanup)
        if self.parent.isEntered:  # reloaded, which neither leaves nor enters the module
            self.enter()

    def enter(self):
        """Note that the user selects the module."""
        if self.workflow is not None:  # until late in 2023 Slicer called the object from before a reload
            self.panel.enter()

    def exit(self):
        """Note that the user selects another module; the workflow goes on."""
        if self.workflow is not None:
            self.panel.exit()

    def cleanup(self):
        """Slicer ends, or the module is reloaded."""
        if self.workflow is None:
            return
        slicer.app.disconnect("aboutToQuit()", self.cleanup)
        self.removeObservers()
        self.exit()
        workflow, self.workflow = self.workflow, None
        try:
            workflow.shutdown()
        finally:
            self.scene.close()
            self.panel.close()
            Helper.remove_folder(self._folder)

    def onSceneStartClose(self, caller, event):
        """Everything in the scene is about to vanish."""
        self.workflow.scene_closing()
        self.panel.editor.scene_closing()

    def onSceneEndClose(self, caller, event):
        """Note that the scene is empty."""
        self.workflow.scene_closed()
        self.panel.editor.scene_closed()

    def onSceneEndBatchProcess(self, caller, event):
        """Note that many nodes came or went, a scene that was read among them, perhaps with editor settings of ours."""
        self.panel.editor.put_back()
        self.workflow.views_changed()


class Rep3DLabelTest(ScriptedLoadableModuleTest):
    """Runs the cases of Testing/Python, in Slicer and on the bench alike."""

    def runTest(self, **options):
        """Run the tests. Called by Reload and Test, and by ctest."""
        slicer.mrmlScene.Clear(0)
        folder = Path(__file__).resolve().parent / "Testing" / "Python"
        result = unittest.TestResult()
        unittest.TestLoader().discover(str(folder), "Rep3DLabel*Case.py").run(result)
        problems = [f"{case}:\n{text}" for case, text in (*result.errors, *result.failures)]
        self.assertGreater(result.testsRun, 0, f"expected test cases in {folder}")
        self.assertFalse(problems, "\n".join(problems))
        self.delayDisplay(tr("{count} test cases passed").format(count=result.testsRun))


def _kept_folder():
    """Return the folder of what must outlive the session; not Slicer's cache, which it empties."""
    place = qt.QStandardPaths.writableLocation(qt.QStandardPaths.AppDataLocation)
    return Path(str(place)) / "Rep3DLabel"
