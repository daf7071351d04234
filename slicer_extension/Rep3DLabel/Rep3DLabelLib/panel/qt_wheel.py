"""Scrolling the panel must not change what is under the pointer: combo boxes and number fields ignore the wheel.

The wheel goes on to the panel, which scrolls. Values are changed by click and by keyboard.
"""

from __future__ import annotations

import qt

__all__ = ["WheelGuard"]


class WheelGuard(qt.QObject):
    """An event filter that takes wheel events away from fields."""

    def eventFilter(self, watched, event):
        """Ignore wheel events, so that the parent gets them."""
        if event.type() == qt.QEvent.Wheel:
            event.ignore()
            return True
        return False
