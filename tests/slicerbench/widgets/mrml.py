"""qMRMLWidget and qSlicerWidget."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import private


class qMRMLWidget(QtWidgets.QWidget):
    """Base of widgets with a scene. Not done: application initialisation."""

    STANDS_FOR_CPP = True
    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d = private(scene=None)

    def mrmlScene(self):
        """Return the scene, None before it is set."""
        return self._d.scene

    def setMRMLScene(self, scene) -> None:
        """Set the scene and tell widgets that the .ui file connects."""
        if scene is not self._d.scene:
            self._d.scene = scene
            self.mrmlSceneChanged.emit(scene)

    @staticmethod
    def pixmapFromIcon(icon: QtGui.QIcon) -> QtGui.QPixmap:
        """Return the icon as a picture of 16 x 16 pixels."""
        return icon.pixmap(16, 16)


class qSlicerWidget(qMRMLWidget):
    """Base of module panels. In Slicer no qMRMLWidget, but with the same names; not done: parent containers."""

    STANDS_FOR_CPP = True
