"""ctkComboBox."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import kept, private


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for «nothing chosen». Not done: icons, eliding, scrollWheelEffect (remembered only)."""

    STANDS_FOR_CPP = True
    SIGNALS = {
        "returnRelease()": "returnRelease",
        "defaultTextChanged(QString)": "defaultTextChanged",
        "currentUserDataAsStringChanged(QString)": "currentUserDataAsStringChanged",
    }
    NeverScroll, AlwaysScroll, ScrollWithFocus, ScrollWithNoVScrollBar = range(4)
    ENUMERATED = ("scrollWheelEffect", "elideMode")
    returnRelease = QtCore.Signal()
    defaultTextChanged = QtCore.Signal(str)
    currentUserDataAsStringChanged = QtCore.Signal(str)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d = private()
        self.currentIndexChanged.connect(
            lambda index: self.currentUserDataAsStringChanged.emit(self.currentUserDataAsString)
        )

    defaultText = kept("defaultText", str, "", "_default_text_changed")
    defaultIcon = kept("defaultIcon", QtGui.QIcon, QtGui.QIcon())
    forceDefault = kept("forceDefault", bool, False)
    elideMode = kept("elideMode", int, 3)
    scrollWheelEffect = kept("scrollWheelEffect", int, 1)
    currentUserDataAsString = QtCore.Property(
        str,
        lambda self: "" if self.currentData is None else str(self.currentData),
        lambda self, value: self.setCurrentUserDataAsString(value),
    )

    def setCurrentUserDataAsString(self, text: str) -> None:
        """Choose the item whose data is this text."""
        self.setCurrentIndex(self.findData(text))

    def _default_text_changed(self) -> None:
        self.setPlaceholderText(self.defaultText)
        self.defaultTextChanged.emit(self.defaultText)
