"""Keys for what is done a hundred times a day.

Ctrl+Shift, not Ctrl+Alt: on European keyboards Ctrl+Alt is AltGr, which types letters. Slicer's own shortcuts and those
of its segment editor use neither. They work wherever the keyboard is while the module is open, and not outside it.
"""

from __future__ import annotations

from typing import Any

import qt

__all__ = ["KEYS", "Shortcuts", "key_text"]

KEYS = {
    "next_sample": "Ctrl+Shift+N",
    "auto_segment": "Ctrl+Shift+A",
    "submit": "Ctrl+Shift+Return",
    "jump_to_uncertain": "Ctrl+Shift+J",
    "cancel": "Esc",
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
        self._workflow = workflow
        self._on = False
        self._can_cancel = False
        slots = {
            "next_sample": self.next_sample,
            "auto_segment": self.auto_segment,
            "submit": self.submit,
            "jump_to_uncertain": self.jump,
            "cancel": self.cancel,
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
        self._on = on
        self._apply()

    def allow_cancel(self, allowed: bool) -> None:
        """Take Esc only while something can be cancelled: it belongs to others otherwise."""
        if allowed != self._can_cancel:
            self._can_cancel = allowed
            self._apply()

    def close(self) -> None:
        """Take the keys away."""
        for shortcut in self._shortcuts.values():
            shortcut.setEnabled(False)
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = {}

    def _apply(self) -> None:
        for command, shortcut in self._shortcuts.items():
            shortcut.setEnabled(bool(self._on and (command != "cancel" or self._can_cancel)))

    def next_sample(self) -> None:
        """Ctrl+Shift+N."""
        self._workflow.next_sample()

    def auto_segment(self) -> None:
        """Ctrl+Shift+A."""
        self._workflow.auto_segment()

    def submit(self) -> None:
        """Ctrl+Shift+Return."""
        self._workflow.submit()

    def jump(self) -> None:
        """Ctrl+Shift+J."""
        self._workflow.jump_to_uncertain()

    def cancel(self) -> None:
        """Esc."""
        self._workflow.cancel()
