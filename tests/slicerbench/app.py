"""`slicer.app`: the Qt application with what modules ask of qSlicerApplication."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.layout import LayoutManager
from tests.slicerbench.system.launcher import make_launcher

VERSION = (5, 11, 0)


class ModuleManager(QtCore.QObject):
    """What `slicer.app.moduleManager()` returns: modules by name, and the signal before one is unloaded."""

    STANDS_FOR_CPP = True
    SIGNALS = {"moduleAboutToBeUnloaded(QString)": "moduleAboutToBeUnloaded"}
    moduleAboutToBeUnloaded = QtCore.Signal(str)

    def module(self, name: str):
        """Return the module object of this name, None where there is none."""
        import slicer

        return getattr(slicer.modules, name.lower(), None)

    def isLoaded(self, name: str) -> bool:
        """Return whether there is a module of this name."""
        return self.module(name) is not None


class CommandOptions:
    """What `slicer.app.commandOptions()` returns. Not done: all but the testing mode."""

    testingEnabled = False
    noMainWindow = False


class Application(QtWidgets.QApplication):
    """Stand-in for qSlicerApplication.

    Not done: extensions, Python console, error log, DICOM, restart. `testingEnabled()` is False, as for a user, so
    message boxes are opened; `tests.slicerbench.dialogs` answers them. `mainWindow` is missing on purpose: it is no
    slot and not invokable (Base/QTGUI/qSlicerApplication.h); modules have `slicer.util.mainWindow()`.
    """

    STANDS_FOR_CPP = True
    SIGNALS = {
        "startupCompleted()": "startupCompleted",
        "renderPaused(bool)": "renderPaused",
        "mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged",
    }
    startupCompleted = QtCore.Signal()
    renderPaused = QtCore.Signal(bool)
    mrmlSceneChanged = QtCore.Signal(object)

    majorVersion = property(lambda self: self._d.version[0])
    minorVersion = property(lambda self: self._d.version[1])
    patchVersion = property(lambda self: self._d.version[2])
    revision, repositoryRevision, releaseType = "0", "0", "Preview"
    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def __init__(self, folder: Path) -> None:
        super().__init__(["Slicer"])
        self._d = _Private(folder)

    temporaryPath = property(lambda self: self._d.made("temporary"))
    cachePath = property(lambda self: self._d.made("cache"))
    slicerHome = property(lambda self: self._d.made("home"))
    defaultScenePath = property(lambda self: self._d.made("documents"))
    slicerUserSettingsFilePath = property(lambda self: self.userSettings().fileName())

    def applicationLogic(self):
        """Return the vtkSlicerApplicationLogic."""
        return self._d.bench.core.application_logic

    def mrmlScene(self):
        """Return the scene."""
        return self._d.bench.scene

    def moduleLogic(self, name: str):
        """Return the logic of a C++ module, by its name."""
        return self._d.bench.core.logics.get(name)

    def coreIOManager(self):
        """Return the file manager."""
        return self._d.bench.core.io_manager

    def ioManager(self):
        """Return the file manager."""
        return self._d.bench.core.io_manager

    def moduleManager(self) -> ModuleManager:
        """Return the module manager."""
        return self._d.module_manager

    def layoutManager(self) -> LayoutManager:
        """Return the layout manager."""
        return self._d.layout_manager

    def commandOptions(self) -> CommandOptions:
        """Return the command line's options."""
        return self._d.options

    def testingEnabled(self) -> bool:
        """Return whether Slicer was started with --testing."""
        return self._d.options.testingEnabled

    def settings(self) -> QtCore.QSettings:
        """Return the user's settings: a file in the bench's temporary folder."""
        return self._d.settings()

    def userSettings(self) -> QtCore.QSettings:
        """Return the user's settings: a file in the bench's temporary folder."""
        return self._d.settings()

    def setRenderPaused(self, pause: bool) -> None:
        """Count pauses; nothing is rendered."""
        self._d.pauses += 1 if pause else -1
        self.renderPaused.emit(pause)

    def pauseRender(self) -> None:
        """setRenderPaused(True)."""
        self.setRenderPaused(True)

    def resumeRender(self) -> None:
        """setRenderPaused(False)."""
        self.setRenderPaused(False)

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        """Return the environment that the application was started in; its own has what the launcher put before it."""
        started_in = QtCore.QProcessEnvironment()
        for name, value in self._d.started_in.items():
            started_in.insert(name, value)
        return started_in

    def moduleDocumentationUrl(self, name: str) -> str:
        """Return where the module's page would be."""
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"

    def module_panel(self) -> QtWidgets.QVBoxLayout:
        """Bench only: where the main window shows the module that is open."""
        return self._d.main_window.centralWidget().widget().layout()

    def pretend(self, *version: int) -> None:
        """Bench only: be this version of Slicer until the test ends, as far as a stand-in says that versions differ."""
        self._d.version = version

    def reset(self) -> None:
        """Bench only: no settings, no cursors, empty folders, the newest version."""
        self._d.reset()


class _Private:
    """What the application stand-in holds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started_in = dict(os.environ)
        self.options = CommandOptions()
        self.version = VERSION
        self.pauses = 0

    def made(self, name: str) -> str:
        (self.folder / name).mkdir(exist_ok=True)
        return str(self.folder / name)

    @staticmethod
    def settings() -> QtCore.QSettings:
        return QtCore.QSettings(QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, "NA-MIC", "Slicer")

    def reset(self) -> None:
        self.options.testingEnabled = False
        self.version = VERSION
        self.pauses = 0
        settings = self.settings()
        settings.clear()
        settings.sync()
        while QtWidgets.QApplication.overrideCursor() is not None:
            QtWidgets.QApplication.restoreOverrideCursor()
        for name in ("temporary", "cache", "documents", "data"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self.layout_manager.reset()
        self.main_window.statusBar().clearMessage()


def make(folder: Path) -> Application:
    """Return the application; before it exists, settings are sent to `folder`.

    Raises:
        RuntimeError: where this process already has a Qt application of another kind.
    """
    if QtWidgets.QApplication.instance() is not None:
        raise RuntimeError("expected no Qt application in this process yet; install the bench before making one")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    os.environ["XDG_DATA_HOME"] = str(folder / "data")  # where QStandardPaths puts what a module keeps
    form, scope = QtCore.QSettings.Format, QtCore.QSettings.Scope
    QtCore.QSettings.setDefaultFormat(form.IniFormat)
    for kind in (scope.UserScope, scope.SystemScope):
        for way in (form.IniFormat, form.NativeFormat):
            QtCore.QSettings.setPath(way, kind, str(folder / "settings"))
    application = Application(folder)
    programs = folder / "bin"
    programs.mkdir()
    make_launcher(programs)
    os.environ["PATH"] = os.pathsep.join((str(programs), os.environ.get("PATH", os.defpath)))
    os.environ["SLICER_HOME"] = application.slicerHome
    application.setOrganizationName("NA-MIC")
    application.setApplicationName("Slicer")
    application.setApplicationVersion(".".join(map(str, VERSION)) + "-bench")
    application.setQuitOnLastWindowClosed(False)
    font = QtGui.QFont("DejaVu Sans", 9)
    application.setFont(font)
    return application


def install(application: Application, bench) -> None:
    """Make it `slicer.app`, with a main window."""
    private = application._d
    private.bench = bench
    private.module_manager = ModuleManager()
    private.layout_manager = LayoutManager(bench)
    private.main_window = QtWidgets.QMainWindow()
    private.main_window.setObjectName("qSlicerMainWindow")
    private.main_window.statusBar()
    panel = QtWidgets.QScrollArea(private.main_window)
    panel.setWidgetResizable(True)
    panel.setWidget(QtWidgets.QWidget())
    layout = QtWidgets.QVBoxLayout(panel.widget())
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addStretch()
    private.main_window.setCentralWidget(panel)
    private.main_window.resize(460, 900)
    private.main_window.show()
    bench.slicer.app = application
