"""What all stand-ins share."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable

import shiboken6
import vtk
from PySide6 import QtCore


def private(**values: object) -> types.SimpleNamespace:
    """Return what a stand-in keeps in `self._d`, like a C++ widget in its private class; it takes no other
    attribute."""
    return types.SimpleNamespace(kept={}, **values)


def kept(name: str, kind: object, default: object, changed: str = ""):
    """Return a property that is only remembered; after it was set the method named `changed` is called."""

    def read(self):
        return self._d.kept.get(name, default)

    def write(self, value) -> None:
        self._d.kept[name] = value
        if changed:
            getattr(self, changed)()

    return QtCore.Property(kind, read, write)


def passed_on(kind: object, target: str, name: str):
    """Return a property that is one of an inner widget, `self._d.TARGET`."""

    def read(self):
        return getattr(getattr(self._d, target), name)

    def write(self, value) -> None:
        setattr(getattr(self._d, target), name, value)

    return QtCore.Property(kind, read, write)


def observe(widget: QtCore.QObject, observed: vtk.vtkObject, event: object, action: Callable) -> int:
    """Call `action(widget)` when `observed` reports `event`, as long as the widget exists; return the observer's tag.

    A C++ widget ends its observations when it is deleted; a Python object may live on beyond that.
    """
    reference = weakref.ref(widget)

    def called(caller, name) -> None:
        target = reference()
        if target is not None and shiboken6.isValid(target):
            action(target)

    return _observed(widget, observed, event, called)


def observe_nodes(widget: QtCore.QObject, scene: vtk.vtkObject, event: object, action: Callable) -> int:
    """As `observe`, for events of a scene about a node: calls `action(widget, node)`."""
    reference = weakref.ref(widget)

    def called(caller, name, node) -> None:
        target = reference()
        if target is not None and shiboken6.isValid(target):
            action(target, node)

    called.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    return _observed(widget, scene, event, called)


def _observed(widget: QtCore.QObject, observed: vtk.vtkObject, event: object, called: Callable) -> int:
    tag = observed.AddObserver(event, called)
    still_there = vtk.vtkWeakReference()
    still_there.Set(observed)

    def forget() -> None:
        if still_there.Get() is not None:
            still_there.Get().RemoveObserver(tag)

    widget.connect("destroyed()", forget)
    return tag
