"""Keys for what is done a hundred times a day.

Ctrl+Shift, not Ctrl+Alt: on European keyboards Ctrl+Alt is AltGr, which types letters. A key that Slicer has in the
same window would do nothing, for either: Slicer's markups toolbar has Ctrl+Shift+A, T and Space, its segment editor has
Esc. They work wherever the keyboard is while the module is open, and not outside it.
"""

from __future__ import annotations

from typing import Any

import qt

__all__ = ["KEYS", "Shortcuts", "key_text"]

KEYS = {
    "next_sample": "Ctrl+Shift+N",
    "auto_segment": "Ctrl+Shift+G",
    "submit": "Ctrl+Shift+Return",
    "jump_to_uncertain": "Ctrl+Shift+J",
    "cancel": "Ctrl+Shift+X",
}


def key_text(command: str) -> str:
    """Return the key of a command as this computer writes it."""
    return str(qt.QKeySequence(KEYS[command]).toString(qt.QKeySequence.NativeText))


class Shortcuts:
    """The module's keys.

    Args:
        parent: The main window, or the panel where there is none.
        workflow: What they command.
    """

    def __init__(self, parent: Any, workflow: Any) -> None:
        slots = {
            "next_sample": workflow.next_sample,
            "auto_segment": workflow.auto_segment,
            "submit": workflow.submit,
            "jump_to_uncertain": workflow.jump_to_uncertain,
            "cancel": workflow.cancel,
        }
        self._shortcuts = {}
        for command, slot in slots.items():
            shortcut = qt.QShortcut(parent)
            shortcut.setObjectName(f"Rep3DLabel_{command}")
            shortcut.setKey(qt.QKeySequence(KEYS[command]))
            shortcut.setAutoRepeat(False)
            shortcut.setEnabled(False)
            shortcut.connect("activated()", slot)
            self._shortcuts[command] = shortcut

    def switch(self, on: bool) -> None:
        """Let the keys work, or not."""
        for shortcut in self._shortcuts.values():
            shortcut.setEnabled(bool(on))

    def close(self) -> None:
        """Take the keys away."""
        for shortcut in self._shortcuts.values():
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = {}
