"""What PythonQt refuses and PySide6 accepts: keyword arguments, new attributes on C++ objects, `widget.text()`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import shiboken6
from PySide6 import QtCore

# The C function that stores an attribute; taken from the base class, because Python rejects a more derived one here.
_store = QtCore.QObject.__mro__[1].__setattr__
_cpp_classes: set[type] = set()
_ignoring: list[bool] = []


class QtProperty:
    """A property of Qt's meta-object as an attribute; on the class it stays what PySide6 has (QTimer.singleShot)."""

    def __init__(self, name: str, on_class: object, reader: Callable | None, writer: Callable | None, writable: bool):
        self.name, self.on_class, self.reader, self.writer, self.writable = name, on_class, reader, writer, writable

    def __get__(self, thing, owner=None):
        if thing is None:
            return self.on_class
        return self.reader(thing) if self.reader is not None else QtCore.QObject.property(thing, self.name)

    def __set__(self, thing, value) -> None:
        if not self.writable:
            raise AttributeError(f"property {self.name!r} of {type(thing).__name__} cannot be written")
        if self.writer is not None:
            self.writer(thing, value)
        elif not QtCore.QObject.setProperty(thing, self.name, value):
            raise ValueError(f"property {self.name!r} of {type(thing).__name__} does not take {value!r}")


def add_properties(cls: type) -> None:
    """Make the meta-object's properties of one class attributes: `w.text`, not `w.text()`; `setText` stays."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        qt_property = meta.property(index)
        name = qt_property.name()
        own = cls.__dict__.get(name)
        if isinstance(own, QtProperty) or (index < meta.propertyOffset() and own is None):
            continue
        found = getattr(cls, name, None)
        reader = found if inspect.ismethoddescriptor(found) else None  # a static function reads nothing
        writer = getattr(cls, "set" + name[0].upper() + name[1:], None)
        setattr(cls, name, QtProperty(name, found, reader, writer, qt_property.isWritable()))


def refuse_keywords(cls: type) -> None:
    """Keyword arguments of a constructor raise ValueError."""
    original = cls.__dict__.get("__init__")
    if original is None:
        return

    def __init__(self, *values, **named) -> None:
        if named:
            raise ValueError(f"PythonQt takes no keyword arguments: {cls.__name__}({', '.join(named)}=...)")
        original(self, *values)

    cls.__init__ = __init__


def refuse_new_attributes(cls: type) -> None:
    """Objects of this C++ class take only attributes that exist; a class derived from it in Python takes any."""
    _cpp_classes.add(cls)
    cls.__setattr__ = _set_attribute


def stands_for_cpp(cls: type) -> bool:
    """Return whether PythonQt would see a C++ class here: one of Qt, or a stand-in."""
    return cls in _cpp_classes or "STANDS_FOR_CPP" in cls.__dict__


@contextmanager
def ignoring_new_attributes() -> Iterator[None]:
    """Inside it new attributes are dropped: PySide6's loader of .ui files sets each child as one of the top."""
    _ignoring.append(True)
    try:
        yield
    finally:
        _ignoring.pop()


def _set_attribute(thing, name: str, value) -> None:
    cls = type(thing)
    kept = next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)
    if isinstance(kept, QtCore.Property):  # of a stand-in; the C function below would hide it behind a new attribute
        if kept.fset is None:
            raise AttributeError(f"property {name!r} of {cls.__name__} cannot be written")
        kept.fset(thing, value)
        return
    # PySide6 itself keeps signals that were read once as attributes.
    if stands_for_cpp(cls) and name != "_d" and not isinstance(value, QtCore.SignalInstance):
        on_class = getattr(cls, name, None)
        if not (isinstance(kept, QtProperty | property) or _dynamic(thing, name)):
            if _ignoring:
                return
            what = "is a method or signal" if on_class is not None else "does not exist"
            raise AttributeError(
                f"attribute {name!r} of {cls.__name__} {what}; PythonQt creates no attributes on C++ objects"
            )
    _store(thing, name, value)


def _dynamic(thing, name: str) -> bool:
    return name.encode() in [bytes(known) for known in QtCore.QObject.dynamicPropertyNames(thing)]


def delete(thing) -> None:
    """`widget.delete()`: the C++ object is gone at once."""
    shiboken6.delete(thing)
