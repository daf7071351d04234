"""qSlicerScriptedLoadableModuleWidget: the parent of a scripted module's panel."""

from __future__ import annotations

from PySide6 import QtCore

from tests.slicerbench.widgets.mrml import qSlicerWidget


class qSlicerScriptedLoadableModuleWidget(qSlicerWidget):
    """Not done: help and acknowledgement sections, the module's source path."""

    STANDS_FOR_CPP = True

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d.python = self._d.reload = None
        self._d.entered = False

    def self(self):
        """Return the Python object of the panel."""
        return self._d.python

    def reload(self) -> None:
        """Make a new Python object; called by `slicer.util.reloadScriptedModule`."""
        self._d.reload()

    # Whether the user is in this module: a property (Base/QTGUI/qSlicerAbstractModuleWidget.h), true before enter().
    isEntered = QtCore.Property(bool, lambda self: self._d.entered)
