"""Scrolling the panel must not change what is under the pointer: combo boxes and number fields ignore the wheel.

The wheel goes on to the panel, which scrolls. Values are changed by click and by keyboard.
"""

from __future__ import annotations

from typing import Any

import qt

__all__ = ["WheelGuard", "fields_below"]


class WheelGuard(qt.QObject):
    """An event filter that takes wheel events away from fields."""

    def eventFilter(self, watched, event):
        """Ignore wheel events, so that the parent gets them."""
        if event.type() == qt.QEvent.Wheel:
            event.ignore()
            return True
        return False


def fields_below(widget: Any, without: Any = None) -> list[Any]:
    """Return the combo boxes, number fields and sliders below a widget, leaving out one branch."""
    found = []
    for child in widget.children():
        if without is not None and child == without:
            continue
        if child.inherits("QComboBox") or child.inherits("QAbstractSpinBox") or child.inherits("QAbstractSlider"):
            if not child.inherits("QScrollBar"):
                found.append(child)
        else:
            found += fields_below(child, without)
    return found
