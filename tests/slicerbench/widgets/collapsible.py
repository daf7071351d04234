"""ctkCollapsibleButton and ctkCollapsibleGroupBox."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import kept, private

_HEADER = 24  # pixels


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A titled section that opens and closes. Not done: CTK's look; frame and collapsedHeight are remembered only."""

    STANDS_FOR_CPP = True
    SIGNALS = {"contentsCollapsed(bool)": "contentsCollapsed"}
    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, text="", parent=None) -> None:
        if not isinstance(text, str):
            text, parent = "", text
        super().__init__(parent)
        self._d = private(hidden=[])
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(0, _HEADER, 0, 0)
        self.setMinimumHeight(_HEADER)
        self.toggled.connect(self._toggled)

    collapsedHeight = kept("collapsedHeight", int, 10)
    contentsFrameShape = kept("contentsFrameShape", int, 0)
    contentsFrameShadow = kept("contentsFrameShadow", int, 0)
    contentsLineWidth = kept("contentsLineWidth", int, 1)
    contentsMidLineWidth = kept("contentsMidLineWidth", int, 0)
    collapsed = QtCore.Property(bool, lambda self: not self.checked, lambda self, value: self.setChecked(not value))

    def hitButton(self, position: QtCore.QPoint) -> bool:
        """Only the header reacts to the mouse."""
        return position.y() < _HEADER

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw an arrow and the title in bold."""
        painter = QtGui.QPainter(self)
        header = QtCore.QRect(0, 0, self.width, _HEADER)
        painter.fillRect(header, self.palette.color(QtGui.QPalette.Mid).lighter(140))
        font = QtGui.QFont(self.font)
        font.setBold(True)
        painter.setFont(font)
        arrow = "\N{BLACK RIGHT-POINTING TRIANGLE}" if self.collapsed else "\N{BLACK DOWN-POINTING TRIANGLE}"
        flags = int(QtCore.Qt.AlignVCenter.value) | int(QtCore.Qt.TextShowMnemonic.value)
        painter.drawText(header.adjusted(6, 0, 0, 0), flags, f"{arrow} {self.text}")
        painter.end()

    def _toggled(self, opened: bool) -> None:
        _show_children(self, opened)
        self.updateGeometry()
        self.contentsCollapsed.emit(not opened)


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box that opens and closes by its check box. Not done: collapsedHeight (remembered only), the arrow."""

    STANDS_FOR_CPP = True

    def __init__(self, title="", parent=None) -> None:
        if not isinstance(title, str):
            title, parent = "", title
        super().__init__(parent)
        self._d = private(hidden=[])
        self.setTitle(title)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._toggled)

    collapsedHeight = kept("collapsedHeight", int, 14)
    collapsed = QtCore.Property(bool, lambda self: not self.checked, lambda self, value: self.setChecked(not value))

    def _toggled(self, opened: bool) -> None:
        _show_children(self, opened)


def _show_children(widget: QtWidgets.QWidget, visible: bool) -> None:
    """Hide the children, or show those that it hid."""
    if visible:
        shown, widget._d.hidden = widget._d.hidden, []
    else:
        children = [child for child in widget.children() if isinstance(child, QtWidgets.QWidget)]
        shown = widget._d.hidden = [child for child in children if not child.isHidden()]
    for child in shown:
        child.setVisible(visible)
