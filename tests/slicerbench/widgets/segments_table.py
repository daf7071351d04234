"""qMRMLSegmentsTableView."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import kept, observe
from tests.slicerbench.widgets.mrml import qMRMLWidget


class qMRMLSegmentsTableView(qMRMLWidget):
    """A row for each segment: colour and name.

    Not done: visibility, opacity, status and layer columns and the filter bar (remembered only), editing of names and
    colours, terminologies, jumping to segments.
    """

    STANDS_FOR_CPP = True
    SIGNALS = {
        "selectionChanged(QItemSelection,QItemSelection)": "selectionChanged",
        "segmentAboutToBeModified(QString)": "segmentAboutToBeModified",
    }
    selectionChanged = QtCore.Signal(QtCore.QItemSelection, QtCore.QItemSelection)
    segmentAboutToBeModified = QtCore.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        table = QtWidgets.QTableWidget(0, 2, self)
        table.setHorizontalHeaderLabels(["Color", "Name"])
        table.horizontalHeader().setStretchLastSection(True)
        table.verticalHeader().setVisible(False)
        table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectRows)
        table.setEditTriggers(QtWidgets.QAbstractItemView.NoEditTriggers)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(table)
        self._d.table, self._d.node, self._d.tags, self._d.hidden = table, None, [], []
        table.selectionModel().selectionChanged.connect(lambda new, old: self.selectionChanged.emit(new, old))

    headerVisible = kept("headerVisible", bool, True)
    visibilityColumnVisible = kept("visibilityColumnVisible", bool, True)
    colorColumnVisible = kept("colorColumnVisible", bool, True)
    opacityColumnVisible = kept("opacityColumnVisible", bool, False)
    statusColumnVisible = kept("statusColumnVisible", bool, False)
    layerColumnVisible = kept("layerColumnVisible", bool, False)
    readOnly = kept("readOnly", bool, False)
    filterBarVisible = kept("filterBarVisible", bool, False)
    textFilter = kept("textFilter", str, "")
    jumpToSelectedSegmentEnabled = kept("jumpToSelectedSegmentEnabled", bool, False)
    useTerminologySelector = kept("useTerminologySelector", bool, True)
    selectionMode = QtCore.Property(
        int,
        lambda self: int(self._d.table.selectionMode.value),
        lambda self, mode: self.setSelectionMode(mode),
    )
    segmentCount = QtCore.Property(int, lambda self: self._d.table.rowCount)

    def segmentationNode(self):
        """Return the segmentation whose segments are listed, None for none."""
        return self._d.node

    def setSegmentationNode(self, node) -> None:
        """List the segments of this node, and follow its changes."""
        private_ = self._d
        for observed, tag in private_.tags:
            observed.RemoveObserver(tag)
        private_.node, private_.tags = node, []
        if node is not None:
            segmentation = node.GetSegmentation()
            for name in ("SegmentAdded", "SegmentRemoved", "SegmentModified", "SegmentsOrderModified"):
                event = getattr(segmentation, name)
                tag = observe(self, segmentation, event, qMRMLSegmentsTableView._fill)
                private_.tags.append((segmentation, tag))
        self._fill()

    def tableWidget(self) -> QtWidgets.QTableView:
        """Return the Qt table."""
        return self._d.table

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        """Return IDs of the selected rows; a tuple, as PythonQt returns string lists."""
        return tuple(self.segmentIDForRow(index.row()) for index in self._d.table.selectionModel().selectedRows())

    def setSelectedSegmentIDs(self, segment_ids) -> None:
        """Select rows."""
        model, table = self._d.table.selectionModel(), self._d.table
        flags = QtCore.QItemSelectionModel.Select | QtCore.QItemSelectionModel.Rows
        model.clearSelection()
        for segment_id in segment_ids:
            row = self.rowForSegmentID(segment_id)
            if row >= 0:
                model.select(table.model().index(row, 0), flags)

    def clearSelection(self) -> None:
        """Select nothing."""
        self._d.table.clearSelection()

    def setHideSegments(self, segment_ids) -> None:
        """Leave segments out of the list."""
        self._d.hidden = list(segment_ids)
        self._fill()

    def hideSegments(self) -> tuple[str, ...]:
        """Return IDs that are left out."""
        return tuple(self._d.hidden)

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        """Return IDs of all rows."""
        return tuple(self.segmentIDForRow(row) for row in range(self._d.table.rowCount))

    def rowForSegmentID(self, segment_id: str) -> int:
        """Return the row of a segment, -1 for none."""
        ids = self.displayedSegmentIDs()
        return ids.index(segment_id) if segment_id in ids else -1

    def segmentIDForRow(self, row: int) -> str:
        """Return the segment in a row."""
        return self._d.table.item(row, 1).data(QtCore.Qt.UserRole)

    def setSelectionMode(self, mode: int) -> None:
        """QAbstractItemView.SelectionMode as a number."""
        self._d.table.setSelectionMode(QtWidgets.QAbstractItemView.SelectionMode(mode))

    def setHeaderVisible(self, visible: bool) -> None:
        """Show or hide the header."""
        self._d.table.horizontalHeader().setVisible(visible)

    def setReadOnly(self, read_only: bool) -> None:
        """Remembered only: nothing can be edited here."""
        self.readOnly = read_only

    def setFilterBarVisible(self, visible: bool) -> None:
        """Remembered only."""
        self.filterBarVisible = visible

    def _fill(self) -> None:
        """Write the rows anew; the selection stays."""
        node, table = self._d.node, self._d.table
        selected = self.selectedSegmentIDs()
        blocked = table.selectionModel().blockSignals(True)
        segmentation = node.GetSegmentation() if node is not None else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation is not None else []
        ids = [segment_id for segment_id in ids if segment_id not in self._d.hidden]
        table.setRowCount(len(ids))
        for row, segment_id in enumerate(ids):
            segment = segmentation.GetSegment(segment_id)
            colour, name = QtWidgets.QTableWidgetItem(), QtWidgets.QTableWidgetItem(segment.GetName())
            colour.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            name.setData(QtCore.Qt.UserRole, segment_id)
            table.setItem(row, 0, colour)
            table.setItem(row, 1, name)
        self.setSelectedSegmentIDs(selected)
        table.selectionModel().blockSignals(blocked)
