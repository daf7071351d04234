"""The keys of the Segment Editor: all that it puts into the main window, and what each does."""

from __future__ import annotations

from collections.abc import Callable

import slicer
from PySide6 import QtGui, QtWidgets

from tests.slicerbench.widgets.effects import NAMES

_SEGMENTS = (("Q", -1), ("W", 1), ("/", -1), ("*", 1), (",", -1), (".", 1), (">", -1), ("<", 1))


class EditorKeys:
    """Keys as qMRMLSegmentEditorWidget::installKeyboardShortcuts makes them, the same in copies of about 5.4 and main.

    Each works in its whole window, wherever the keyboard is, unless the widget there takes the key for itself.

    Args:
        editor: The qMRMLSegmentEditorWidget stand-in.
    """

    def __init__(self, editor) -> None:
        self._editor = editor
        self._shortcuts: list[QtGui.QShortcut] = []

    def install(self, window: QtWidgets.QWidget | None) -> None:
        """Put the keys into a window, by default the main window; those from before are taken away."""
        self.uninstall()
        owner = window if window is not None else slicer.util.mainWindow()
        for keys, action in self._actions():
            shortcut = QtGui.QShortcut(QtGui.QKeySequence(keys), owner)
            shortcut.activated.connect(action)
            self._shortcuts.append(shortcut)

    def uninstall(self) -> None:
        """Take the keys away."""
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.delete()
        self._shortcuts = []

    def _actions(self) -> list[tuple[object, Callable[[], None]]]:
        editor, standard = self._editor, QtGui.QKeySequence.StandardKey
        keys: list[tuple[object, Callable[[], None]]] = []
        for number in range(1, 11):
            keys.append((str(number % 10), self._toggle(number)))
            keys.append((f"Shift+{number % 10}", self._toggle(number + 10)))
        keys += [("Esc", lambda: editor.setActiveEffect(None)), ("Space", self._last_effect)]
        keys += [("Z", editor.undo), (standard.Undo, editor.undo), ("Y", editor.redo), (standard.Redo, editor.redo)]
        keys += [(key, self._select(offset)) for key, offset in _SEGMENTS]
        return [*keys, ("I", lambda: None)]  # masking is not done

    def _toggle(self, number: int) -> Callable[[], None]:
        name = NAMES[number - 1] if number <= len(NAMES) else ""

        def toggle() -> None:
            effect = self._editor.effectByName(name)
            self._editor.setActiveEffect(None if effect is self._editor.activeEffect() else effect)

        return toggle

    def _last_effect(self) -> None:
        self._editor.setActiveEffect(self._editor.effectByName(self._editor._d.last_effect))

    def _select(self, offset: int) -> Callable[[], None]:
        def select() -> None:
            segments = self._editor._d.table.displayedSegmentIDs()
            if self._editor.currentSegmentID() in segments:
                index = segments.index(self._editor.currentSegmentID()) + offset
                self._editor.setCurrentSegmentID(segments[min(max(index, 0), len(segments) - 1)])

        return select
