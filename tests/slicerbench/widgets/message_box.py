"""ctkMessageBox."""

from __future__ import annotations

from PySide6 import QtWidgets

from tests.slicerbench.widgets.base import kept, private


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that can be told not to come again. Not done: the check box and its effect."""

    STANDS_FOR_CPP = True

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d = private()

    dontShowAgain = kept("dontShowAgain", bool, False)
    dontShowAgainSettingsKey = kept("dontShowAgainSettingsKey", str, "")
    dontShowAgainVisible = kept("dontShowAgainVisible", bool, False)

    def setDontShowAgain(self, hide: bool) -> None:
        """Set whether it comes again."""
        self.dontShowAgain = hide
