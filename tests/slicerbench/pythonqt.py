"""The module `qt`: PySide6 made to behave like PythonQt, and as strict."""

from __future__ import annotations

import types

from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

from tests.slicerbench import loader, signals, strict

_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)


def install() -> types.ModuleType:
    """Patch the classes of PySide6 for this process and return the module `qt`."""
    qt = types.ModuleType("qt")
    for module in _MODULES:
        for name in dir(module):
            if name.startswith("Q") and not hasattr(qt, name):
                setattr(qt, name, getattr(module, name))
    classes = [cls for cls in vars(qt).values() if isinstance(cls, type)]
    for cls in (cls for cls in classes if not issubclass(cls, QtCore.QObject)):
        if cls.__module__.startswith("PySide6.") and "__init__" in cls.__dict__:
            strict.refuse_keywords(cls)
    for cls in (cls for cls in classes if issubclass(cls, QtCore.QObject)):
        strict.refuse_keywords(cls)
        strict.refuse_new_attributes(cls)
        strict.add_properties(cls)
    _add_names()
    QtCore.QObject.__getattribute__ = signals.read_attribute
    QtCore.QTimer.__dict__["singleShot"].on_class = _single_shot
    qt.QUiLoader = loader.UiLoader
    qt.Signal, qt.Slot, qt.Property = QtCore.Signal, QtCore.Slot, QtCore.Property
    return qt


def _add_names() -> None:
    """Names that PythonQt gives to every object."""
    base = QtCore.QObject
    base.name = strict.QtProperty("objectName", None, None, None, True)
    base.className = lambda self: QtCore.QObject.metaObject(self).className()
    base.delete = strict.delete
    value = QtCore.QSettings.value
    QtCore.QSettings.value = lambda self, key, default=None: value(self, key, default)  # `type=` is PySide6's own
    found, all_found = base.findChild, base.findChildren
    base.findChild = lambda self, kind, name="": found(self, _class(kind), name)
    base.findChildren = lambda self, kind, name="": all_found(self, _class(kind), name)


def _class(kind: type | str) -> type:
    """PythonQt finds children by class or by the class's name."""
    if not isinstance(kind, str):
        return kind
    known = loader.CLASSES.get(kind) or getattr(QtWidgets, kind, None) or getattr(QtCore, kind, None)
    if known is None:
        raise ValueError(f"expected the name of a Qt class, got {kind!r}")
    return known


def _single_shot(milliseconds: int, callback) -> None:
    """QTimer.singleShot(ms, function), counted as a callback."""
    timer = QtCore.QTimer(QtCore.QCoreApplication.instance())
    timer.setSingleShot(True)
    signals.connect(timer, "timeout()", callback)
    signals.connect(timer, "timeout()", timer.deleteLater)
    timer.start(milliseconds)
