"""qMRMLTableView."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import kept, observe, private


class qMRMLTableView(QtWidgets.QTableView):
    """Shows a vtkMRMLTableNode, read only. Not done: editing, transposing, copy and paste, the view node."""

    STANDS_FOR_CPP = True
    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged", "selectionChanged()": "_selection"}
    mrmlSceneChanged = QtCore.Signal(object)
    _selection = QtCore.Signal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d = private(scene=None, node=None, tag=None, model=QtGui.QStandardItemModel(self))
        self.setModel(self._d.model)
        self.selectionModel().selectionChanged.connect(lambda: self._selection.emit())

    transposed = kept("transposed", bool, False)
    firstRowLocked = kept("firstRowLocked", bool, False)
    firstColumnLocked = kept("firstColumnLocked", bool, False)

    def mrmlScene(self):
        """Return the scene, None before it is set."""
        return self._d.scene

    def setMRMLScene(self, scene) -> None:
        """Set the scene."""
        self._d.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlTableNode(self):
        """Return the table node, None for none."""
        return self._d.node

    def setMRMLTableNode(self, node) -> None:
        """Show this table, and its changes."""
        private_ = self._d
        if private_.tag is not None:
            private_.node.RemoveObserver(private_.tag)
        private_.node = node
        private_.tag = observe(self, node, "ModifiedEvent", qMRMLTableView._fill) if node is not None else None
        self._fill()

    def _fill(self) -> None:
        private_, node = self._d, self._d.node
        private_.model.clear()
        if node is None:
            return
        columns = range(node.GetNumberOfColumns())
        private_.model.setHorizontalHeaderLabels([node.GetColumnName(column) for column in columns])
        for row in range(node.GetNumberOfRows()):
            private_.model.appendRow([QtGui.QStandardItem(node.GetCellText(row, column)) for column in columns])
