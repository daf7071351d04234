"""Space presses the button that has the focus, although Slicer's segment editor has Space, like most bare keys, in the
whole window.

A button has the focus only for who has gone to it by the keyboard: a click leaves the keyboard where it was, so that
Space after it is the editor's. That a key is a widget's own cannot be said in PythonQt: the event that asks it
(ShortcutOverride) arrives without its key. So the window's shortcuts for Space rest while one of our buttons
has the focus.
"""

from __future__ import annotations

from typing import Any

import qt

__all__ = ["SpaceGuard"]

_RESTS = "Rep3DLabelRests"  # property of a shortcut that rests because of us


class SpaceGuard(qt.QObject):
    """An event filter for buttons. Made with a parent, then told the window by `watch`."""

    def watch(self, window: Any, buttons: list[Any]) -> None:
        """Have Space press these buttons, which are in a window, or are to be."""
        self._window = window
        for button in buttons:
            button.setFocusPolicy(qt.Qt.TabFocus)
            button.installEventFilter(self)

    def eventFilter(self, watched, event):
        """Let shortcuts for Space rest from when a button gets the focus until it loses it."""
        if event.type() == qt.QEvent.FocusIn:
            self._switch(False)
        elif event.type() == qt.QEvent.FocusOut:
            self._switch(True)
        return False

    def _switch(self, on: bool) -> None:
        for shortcut in self._window.findChildren(qt.QShortcut):
            changes = bool(shortcut.enabled) != on and (not on or bool(shortcut.property(_RESTS)))
            if changes and str(shortcut.key.toString()) == "Space":
                shortcut.setEnabled(bool(on))
                shortcut.setProperty(_RESTS, not on)
