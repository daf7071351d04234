"""A table that is told its rows again and again and changes only the cells that differ.

So a list that is refreshed every few seconds keeps its selection and its place. A long list is written in slices of a
few milliseconds: hundreds of cases do not hold up a brush stroke.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import qt

__all__ = ["Cell", "Row", "Table"]

_SLICE = 0.015  # seconds of writing per step
_ROW_HEIGHT = 24  # pixels


class Cell(NamedTuple):
    """What a cell shows: text, tooltip, colour of a square before it (0 to 255), bold, on the right (for numbers)."""

    text: str
    tip: str = ""
    colour: tuple[int, int, int] | None = None
    bold: bool = False
    right: bool = False


class Row(NamedTuple):
    """A row; the key says which row it is after a refresh."""

    key: str
    cells: tuple[Cell, ...]


class Table:
    """The rows of a QTableWidget.

    Args:
        widget: A QTableWidget with its columns.
        fit: It grows with its rows up to this many; 0 keeps the height of the .ui.
        selected: Called with the key of the selected row, "" if none.
        opened: Called with the key of a row that was double-clicked.
        widths: Widths in pixels of the columns after the first, which takes the rest.
    """

    def __init__(
        self,
        widget: Any,
        widths: Sequence[int],
        fit: int = 0,
        selected: Callable[[str], None] | None = None,
        opened: Callable[[str], None] | None = None,
    ) -> None:
        self._widget, self._fit = widget, fit
        self._on_selected, self._on_opened = selected, opened
        self._wanted: list[Row] = []
        self._shown: list[Row] = []
        self._next = 0
        self._key = ""
        widget.verticalHeader().setDefaultSectionSize(_ROW_HEIGHT)
        header = widget.horizontalHeader()
        header.setMinimumSectionSize(36)
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column, width in enumerate(widths, 1):
            header.setSectionResizeMode(column, qt.QHeaderView.Interactive)
            widget.setColumnWidth(column, width)
        widget.connect("itemSelectionChanged()", self._selection_changed)
        widget.connect("cellDoubleClicked(int,int)", self._double_clicked)
        self._fit_height()

    @property
    def key(self) -> str:
        """Key of the selected row, "" if none is."""
        return self._key

    @property
    def keys(self) -> list[str]:
        """Keys of all rows, from the top."""
        return [row.key for row in self._wanted]

    def show(self, rows: Sequence[Row]) -> None:
        """Have these rows from now on; the first slice is written now, the rest by `step`."""
        self._wanted = list(rows)
        self._next = 0
        self.step()

    def step(self) -> bool:
        """Write one slice; True when all is written."""
        if self._next >= len(self._wanted) == len(self._shown):
            return True
        widget = self._widget
        place = widget.verticalScrollBar().value
        widget.blockSignals(True)
        try:
            if len(self._wanted) != len(self._shown):
                widget.setRowCount(len(self._wanted))
                self._shown = self._shown[: len(self._wanted)]
                self._shown += [Row("", ())] * (len(self._wanted) - len(self._shown))
            end = time.monotonic() + _SLICE
            while self._next < len(self._wanted) and time.monotonic() < end:
                self._write(self._next)
                self._next += 1
            self._select_again()
        finally:
            widget.blockSignals(False)
        widget.verticalScrollBar().setValue(place)
        self._fit_height()
        return self._next >= len(self._wanted)

    def select(self, key: str) -> None:
        """Select a row as a click does."""
        if key in self.keys:
            self._widget.selectRow(self.keys.index(key))

    def _write(self, index: int) -> None:
        old, new = self._shown[index].cells, self._wanted[index].cells
        for column, cell in enumerate(new):
            before = old[column] if column < len(old) else None
            if cell != before:
                self._write_cell(index, column, cell, before)
        self._shown[index] = self._wanted[index]

    def _write_cell(self, row: int, column: int, cell: Cell, before: Cell | None) -> None:
        item = self._widget.item(row, column)
        if item is None:
            item = qt.QTableWidgetItem()
            self._widget.setItem(row, column, item)
            before = None
        item.setText(cell.text)
        item.setToolTip(cell.tip or cell.text)
        if before is None or before.right != cell.right:
            side = qt.Qt.AlignRight if cell.right else qt.Qt.AlignLeft
            item.setTextAlignment(side | qt.Qt.AlignVCenter)
        if before is None or before.bold != cell.bold:
            font = qt.QFont(self._widget.font)
            font.setBold(cell.bold)
            item.setFont(font)
        if cell.colour != (before.colour if before else None):
            item.setIcon(_square(cell.colour) if cell.colour else qt.QIcon())

    def _select_again(self) -> None:
        keys = [row.key for row in self._shown]
        widget = self._widget
        if self._key and self._key in keys:
            if widget.currentRow() != keys.index(self._key) or not widget.selectedItems():
                widget.selectRow(keys.index(self._key))
        elif self._next >= len(self._wanted) or not self._key:
            widget.clearSelection()
            widget.setCurrentCell(-1, -1)
            if self._key:
                self._tell("")

    def _selection_changed(self) -> None:
        row = self._widget.currentRow() if self._widget.selectedItems() else -1
        self._tell(self._shown[row].key if 0 <= row < len(self._shown) else "")

    def _double_clicked(self, row: int, column: int) -> None:
        if self._on_opened is not None and 0 <= row < len(self._shown):
            self._on_opened(self._shown[row].key)

    def _tell(self, key: str) -> None:
        self._key = key
        if self._on_selected is not None:
            self._on_selected(key)

    def _fit_height(self) -> None:
        if self._fit:
            rows = min(max(len(self._wanted), 1), self._fit)
            header = self._widget.horizontalHeader().sizeHint.height()
            self._widget.setFixedHeight(header + rows * _ROW_HEIGHT + 2 * self._widget.frameWidth + 2)


def _square(colour: tuple[int, int, int]) -> Any:
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(colour[0], colour[1], colour[2]))
    return qt.QIcon(pixmap)
