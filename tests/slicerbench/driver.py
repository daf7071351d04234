"""What a user does, and looking at what came of it: clicks, keys, choices, waiting, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import slicer
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtTest import QTest

from tests.slicerbench import stall


def _named(widget: QtCore.QObject) -> str:
    return f"{type(widget).__name__} {widget.objectName!r}"


def _usable(widget: QtWidgets.QWidget) -> None:
    assert widget.isVisible(), f"{_named(widget)} is not visible, so no user can use it"
    assert widget.isEnabled(), f"{_named(widget)} is disabled; its tool tip says {widget.toolTip!r}"


# What waits for keys: class, property with the keys, signal.
_SHORTCUTS = ((QtGui.QShortcut, "key", "activated"), (QtGui.QAction, "shortcut", "triggered"))


def spin(seconds: float = 0.0) -> None:
    """Let the event loop run: once through what is due, and on for `seconds`."""
    end = time.monotonic() + seconds
    while True:
        stall.process_events()
        if time.monotonic() >= end:
            return
        time.sleep(0.001)


def wait(until: Callable[[], object], seconds: float = 5.0, what: str = "") -> object:
    """Let the event loop run until `until()` is true, and return its value.

    Args:
        until: asked again and again.
        seconds: how long to wait at most.
        what: words for the message, or a function that describes the state at the end.

    Raises:
        AssertionError: naming what was waited for, after `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        stall.process_events()
        value = until()
        if value:
            return value
        if time.monotonic() >= end:
            words = what() if callable(what) else what
            words = words or getattr(until, "__qualname__", repr(until))
            raise AssertionError(f"waited {seconds:g} s in vain for: {words}; the last value was {value!r}")
        time.sleep(0.002)


def click(widget: QtWidgets.QWidget) -> None:
    """Click a widget with the left button; refuse one that is hidden or disabled.

    Raises:
        AssertionError: where a user could not click it.
    """
    if isinstance(widget, QtGui.QAction):
        assert widget.isEnabled(), f"{_named(widget)} is disabled"
        widget.trigger()
    else:
        _usable(widget)
        QTest.mouseClick(
            widget, QtCore.Qt.MouseButton.LeftButton, QtCore.Qt.KeyboardModifier.NoModifier, _place(widget)
        )
    spin()


def _place(widget: QtWidgets.QWidget) -> QtCore.QPoint:
    """Return where to click: a spot that the widget says is its button; else its middle."""
    middle = QtCore.QRect(0, 0, widget.width, widget.height).center()
    if isinstance(widget, QtWidgets.QCheckBox | QtWidgets.QRadioButton | QtWidgets.QGroupBox):
        return QtCore.QPoint(10, min(10, middle.y()))
    if isinstance(widget, QtWidgets.QAbstractButton) and not widget.hitButton(middle):
        return QtCore.QPoint(middle.x(), 8)
    return middle


def type_text(widget: QtWidgets.QWidget, text: str, enter: bool = False) -> None:
    """Replace the text of a line by keys; for a combo box or spin box, that of its line.

    Raises:
        AssertionError: where a user could not type there.
    """
    _usable(widget)
    line = widget if isinstance(widget, QtWidgets.QLineEdit) else widget.findChild(QtWidgets.QLineEdit)
    target = line if line is not None else widget
    if hasattr(target, "selectAll"):
        target.selectAll()
        QTest.keyClick(target, QtCore.Qt.Key.Key_Delete)
    QTest.keyClicks(target, text)
    if enter:
        QTest.keyClick(target, QtCore.Qt.Key.Key_Return)
    spin()


def choose(combo: QtWidgets.QWidget, choice: object) -> None:
    """Choose an item by its text or data in a combo box, or a node (or its ID) in a qMRMLNodeComboBox.

    Raises:
        AssertionError: where there is no such item, naming those that are there.
    """
    _usable(combo)
    inner = combo if isinstance(combo, QtWidgets.QComboBox) else combo.findChild(QtWidgets.QComboBox)
    wanted = choice.GetID() if hasattr(choice, "GetID") else "" if choice is None else choice
    items = [(inner.itemText(i), inner.itemData(i)) for i in range(inner.count)]
    index = next((i for i, item in enumerate(items) if wanted in item), -1)
    assert index >= 0, f"{_named(combo)} has no item {wanted!r}; it has {[text for text, _ in items]}"
    item = inner.model().index(index, inner.modelColumn, inner.rootModelIndex())
    assert item.flags() & QtCore.Qt.ItemFlag.ItemIsEnabled, f"the item {wanted!r} of {_named(combo)} is disabled"
    inner.setCurrentIndex(index)
    inner.activated.emit(index)
    spin()


def press(widget: QtWidgets.QWidget, keys: str) -> None:
    """Press keys ("Space", "Ctrl+Z") where a widget has the focus: shortcuts of its window come first, as in Qt.

    Raises:
        AssertionError: where the widget can have no focus.
    """
    _usable(widget)
    widget.window().activateWindow()
    spin()
    widget.setFocus(QtCore.Qt.FocusReason.TabFocusReason)
    assert widget.hasFocus(), f"{_named(widget)} takes no focus"
    combination = QtGui.QKeySequence(keys)[0]
    QTest.keyClick(widget, combination.key(), combination.keyboardModifiers())
    spin()


def shortcut(keys: str, widget: QtWidgets.QWidget | None = None) -> None:
    """Press keys ("Ctrl+Z") that a QShortcut or a QAction waits for, in the window of `widget` or in the main window.

    Raises:
        AssertionError: where nothing, or more than one thing, waits for them; Qt runs neither of two.
    """
    wanted = QtGui.QKeySequence(keys)
    roots = [slicer.util.mainWindow(), *([widget.window()] if widget is not None else [])]
    waiting = {
        id(thing): (thing, signal)
        for root in roots
        for kind, property_name, signal in (
            (QtGui.QShortcut, "key", "activated"),
            (QtGui.QAction, "shortcut", "triggered"),
        )
        for thing in root.findChildren(kind)
        if getattr(thing, property_name) == wanted and thing.enabled
    }
    assert len(waiting) == 1, (
        f"expected one shortcut for {keys}, got {[_named(thing) for thing, _ in waiting.values()]}"
    )
    thing, signal = next(iter(waiting.values()))
    thing.trigger() if signal == "triggered" else thing.activated.emit()
    spin()


def edit_segment(editor, segment_id: str, voxels, volume) -> None:
    """Do what painting comes to: an undo point, then new voxels (array K, J, I) of one segment on the grid of
    `volume`."""
    editor.saveStateForUndo()
    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, editor.segmentationNode(), segment_id, volume)
    spin()


def screenshot(widget: QtWidgets.QWidget, path: Path | str) -> Path:
    """Write a picture (PNG) of a widget as it looks now.

    Raises:
        OSError: where it cannot be written.
        AssertionError: where Qt found no fonts, so that text would be boxes.
    """
    assert QtGui.QFontDatabase.families(), "Qt found no fonts: sh tests/system_packages.sh"
    spin()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not widget.grab().save(str(path), "PNG"):
        raise OSError(f"could not write the picture {path}")
    return path
