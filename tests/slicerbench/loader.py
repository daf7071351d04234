"""`qt.QUiLoader`: loads a real .ui file with stand-ins for the custom widgets; refuses what Slicer would not know."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from tests.slicerbench.callbacks import adapted
from tests.slicerbench.signals import arguments, has_signal, native_signal, normalized
from tests.slicerbench.strict import ignoring_new_attributes

CLASSES: dict[str, type] = {}  # class name in a .ui file -> stand-in; filled by widgets.register


class UiLoader(QtUiTools.QUiLoader):
    """Qt's own loader, stricter: unknown classes, properties, signals or slots, and warnings, are errors."""

    def __init__(self, parent: QtCore.QObject | None = None) -> None:
        super().__init__(parent)
        self._made: list[QtWidgets.QWidget] = []
        self._errors: list[Exception] = []

    def createWidget(self, name: str, parent=None, object_name: str = ""):
        """Handle an event; called by Qt for each widget. An exception must not leave it: that would end the process."""
        try:
            cls = CLASSES.get(name) or getattr(QtWidgets, name, None)
            if cls is None:
                raise RuntimeError(f"the .ui file names the class {name}, which the bench does not have")
            widget = cls(parent)
        except Exception as error:  # raised again by load()
            self._errors.append(error)
            widget = QtWidgets.QWidget(parent)
        widget.setObjectName(object_name)
        self._made.append(widget)
        return widget

    def load(self, file: QtCore.QFile, parent=None):
        """Return the top widget of the file.

        Raises:
            RuntimeError: naming the class, property, signal or slot that does not exist, or what Qt warned of.
        """
        warnings: list[str] = []
        before = QtCore.qInstallMessageHandler(lambda kind, context, text: warnings.append(text))
        try:
            with ignoring_new_attributes():
                top = super().load(file, parent)
        finally:
            QtCore.qInstallMessageHandler(before)
        if self._errors:
            raise RuntimeError(str(self._errors[0])) from self._errors[0]
        if top is None:
            return None
        root = ElementTree.parse(file.fileName()).getroot()
        widgets = {widget.objectName: widget for widget in self._made}
        enumerated = self._set_enumerated(root, widgets)
        self._check_properties(root, widgets)
        # Connections are checked below, enumerations of stand-ins were set above.
        told = ("QObject::connect", *(f"property {name}" for name in enumerated))
        warnings = [text for text in warnings if not any(start in text for start in told)]
        if warnings:
            raise RuntimeError(f"{file.fileName()}: Qt warned: " + "; ".join(warnings))
        objects = {**widgets, **{a.objectName: a for a in top.findChildren(QtCore.QObject) if a.objectName}}
        for connection in root.iter("connection"):
            self._connect(connection, objects)
        top.__dict__["_bench_keep"] = self._made
        return top

    @staticmethod
    def _check_properties(root: ElementTree.Element, widgets: dict[str, QtWidgets.QWidget]) -> None:
        for element in root.iter("widget"):
            widget = widgets.get(element.get("name", ""))
            for given in element.findall("property") if widget is not None else ():
                name = given.get("name", "")
                if given.get("stdset") == "0" or name in _LOADER_PROPERTIES:
                    continue
                if QtCore.QObject.metaObject(widget).indexOfProperty(name) < 0:
                    raise RuntimeError(
                        f"the .ui file sets {name!r} of {element.get('name')}, which {element.get('class')} lacks"
                    )

    @staticmethod
    def _set_enumerated(root: ElementTree.Element, widgets: dict[str, QtWidgets.QWidget]) -> set[str]:
        """Set enumerations of stand-ins, which Qt's loader cannot read from a Python class; return their names."""
        done = set()
        for element in root.iter("widget"):
            widget = widgets.get(element.get("name", ""))
            if not hasattr(type(widget), "ENUMERATED"):
                continue
            for given in element.findall("property"):
                value = next(iter(given))
                if given.get("name") in type(widget).ENUMERATED and value.tag in ("enum", "set"):
                    names = [part.split("::")[-1] for part in (value.text or "").split("|") if part]
                    total = 0
                    for name in names:
                        total |= int(getattr(type(widget), name))
                    QtCore.QObject.setProperty(widget, given.get("name"), total)
                    done.add(given.get("name"))
        return done

    @staticmethod
    def _connect(connection: ElementTree.Element, objects: dict[str, QtCore.QObject]) -> None:
        sender, signal, receiver, slot = (
            connection.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot")
        )
        if sender not in objects or receiver not in objects:
            raise RuntimeError(f"the .ui file connects {sender} to {receiver}, and one of them does not exist")
        source, target = objects[sender], objects[receiver]
        signal, method = normalized(signal), getattr(target, slot.split("(")[0], None)
        if not has_signal(source, signal):
            raise RuntimeError(f"the .ui file connects {signal} of {sender}, which is no signal of it")
        if not callable(method):
            raise RuntimeError(f"the .ui file connects to {slot} of {receiver}, which is no slot of it")
        if QtCore.QObject.metaObject(source).indexOfSignal(signal) < 0:  # typed by VTK: Qt's loader could not make it
            native_signal(source, signal).connect(adapted(method, arguments(signal)))


# Properties that Qt's loader handles itself, though no meta-object has them.
_LOADER_PROPERTIES = {"buddy", "currentIndex", "toolTip", "sizePolicy", "geometry"}
