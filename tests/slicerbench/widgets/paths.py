"""ctkPathLineEdit and ctkDirectoryButton."""

from __future__ import annotations

import os

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import kept, private

_SHOWN_PATHS = 5  # ctkPathLineEditPrivate::sMaxHistory


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line for a path with a history, which lies under a prefix of CTK's own in the settings (ctkPathLineEdit.cpp).

    Not done: completion, hasValidInput, size policies (remembered only).
    """

    STANDS_FOR_CPP = True
    SIGNALS = {
        "currentPathChanged(QString)": "currentPathChanged",
        "validInputChanged(bool)": "validInputChanged",
    }
    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    Dirs, Files, Drives, NoSymLinks, AllEntries = 0x1, 0x2, 0x4, 0x8, 0x7
    Readable, Writable, Executable, Modified, Hidden, System = 0x10, 0x20, 0x40, 0x80, 0x100, 0x200
    AllDirs, CaseSensitive, NoDotAndDotDot, NoDot, NoDotDot, NoFilter = 0x400, 0x800, 0x1000, 0x2000, 0x4000, -1
    ShowDirsOnly, DontResolveSymlinks, DontConfirmOverwrite, DontUseNativeDialog, ReadOnly = 0x1, 0x2, 0x4, 0x10, 0x20
    AdjustToContents, AdjustToContentsOnFirstShow, AdjustToMinimumContentsLength = range(3)
    ENUMERATED = ("filters", "options", "sizeAdjustPolicy")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        combo = QtWidgets.QComboBox(self)
        combo.setEditable(True)
        combo.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        button = QtWidgets.QToolButton(self)
        button.setText("...")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(combo, 1)
        layout.addWidget(button)
        self._d = private(combo=combo, button=button)
        combo.editTextChanged.connect(self._edited)
        button.clicked.connect(self.browse)

    label = kept("label", str, "")
    filters = kept("filters", int, AllEntries)
    options = kept("options", int, 0)
    settingKey = kept("settingKey", str, "", "retrieveHistory")
    nameFilters = kept("nameFilters", "QStringList", [])
    sizeAdjustPolicy = kept("sizeAdjustPolicy", int, 1)
    minimumContentsLength = kept("minimumContentsLength", int, 0)
    showHistoryButton = kept("showHistoryButton", bool, True)
    showBrowseButton = kept("showBrowseButton", bool, True, "_show_button")
    currentPath = QtCore.Property(
        str, lambda self: self._d.combo.currentText, lambda self, path: self.setCurrentPath(path)
    )

    def setCurrentPath(self, path: str) -> None:
        """Write a path into the line."""
        self._d.combo.setEditText(path)

    def browse(self) -> None:
        """Ask by a file dialog, which the bench answers."""
        dialog = QtWidgets.QFileDialog
        ask = dialog.getOpenFileName if self.filters & self.Files else dialog.getExistingDirectory
        path = ask(self, self.label or "Select a file", self.currentPath)
        if path:
            self.setCurrentPath(path)

    def retrieveHistory(self) -> None:
        """List the paths remembered in the settings; the path stays, or is the latest of them where it was empty."""
        path = self.currentPath
        self._d.combo.clear()
        self._d.combo.addItems(self._remembered()[:_SHOWN_PATHS])
        self._d.combo.setEditText(path or self._d.combo.itemText(0))

    def addCurrentPathToHistory(self) -> None:
        """Remember the path in the settings, where nothing is ever dropped; only the latest are listed."""
        path = self.currentPath
        if path:
            paths = [path, *(other for other in self._remembered() if other != path)]
            QtCore.QSettings().setValue(self._key(), paths)
            self.retrieveHistory()

    def _remembered(self) -> list[str]:
        paths = QtCore.QSettings().value(self._key(), []) or []
        return [paths] if isinstance(paths, str) else list(paths)

    def _key(self) -> str:
        return "ctkPathLineEdit/" + (self.settingKey or self.objectName)

    def _show_button(self) -> None:
        self._d.button.setVisible(self.showBrowseButton)

    def _edited(self, text: str) -> None:
        self.currentPathChanged.emit(text)


class ctkDirectoryButton(QtWidgets.QWidget):
    """A button with a folder on it. Not done: eliding; acceptMode and options are remembered only."""

    STANDS_FOR_CPP = True
    SIGNALS = {
        "directoryChanged(QString)": "directoryChanged",
        "directorySelected(QString)": "directorySelected",
    }
    directoryChanged = QtCore.Signal(str)
    directorySelected = QtCore.Signal(str)
    ShowDirsOnly, DontResolveSymlinks, DontConfirmOverwrite, DontUseNativeDialog, ReadOnly = 0x1, 0x2, 0x4, 0x10, 0x20
    ENUMERATED = ("options", "acceptMode", "elideMode")

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        button = QtWidgets.QPushButton(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(button)
        self._d = private(button=button, directory=os.getcwd())
        button.clicked.connect(self.browse)
        self._show()

    caption = kept("caption", str, "")
    text = kept("text", str, "", "_show")
    icon = kept("icon", QtGui.QIcon, QtGui.QIcon(), "_show")
    acceptMode = kept("acceptMode", int, 0)
    options = kept("options", int, 1)
    elideMode = kept("elideMode", int, 3)
    directory = QtCore.Property(str, lambda self: self._d.directory, lambda self, path: self._set(path))

    def browse(self) -> str:
        """Ask by a file dialog, which the bench answers."""
        path = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption or self.toolTip, self.directory)
        if path:
            self._set(path)
        return path

    def _set(self, path: str) -> None:
        new = os.path.abspath(path or ".")
        changed, self._d.directory = new != self._d.directory, new
        self._show()
        self.directorySelected.emit(new)
        if changed:
            self.directoryChanged.emit(new)

    def _show(self) -> None:
        self._d.button.setText(self.text or self._d.directory)
        self._d.button.setIcon(self.icon)
