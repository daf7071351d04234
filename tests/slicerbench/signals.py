"""`connect("signal(type)", function)` on every Qt object, and signals as attributes, as PythonQt has them."""

from __future__ import annotations

from collections.abc import Callable

from PySide6 import QtCore

from tests.slicerbench.callbacks import adapted

_read = QtCore.QObject.__getattribute__


def normalized(signature: str) -> str:
    """Return the signature as Qt writes it: no spaces, no `const &`."""
    return bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()


def arguments(signature: str) -> int:
    """Return how many arguments a normalized signature has."""
    inner = signature[signature.index("(") + 1 : -1]
    return inner.count(",") + 1 if inner else 0


def standin_signals(cls: type) -> dict[str, str]:
    """Signals that a stand-in declares itself, its bases included: signature of C++ -> name of the Python signal."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found.update(base.__dict__.get("SIGNALS", {}))
    return found


def has_signal(thing: QtCore.QObject, signature: str) -> bool:
    """Return whether the real object has a signal of this normalized signature."""
    if signature in standin_signals(type(thing)):
        return True
    meta = QtCore.QObject.metaObject(thing)
    return meta.indexOfSignal(signature) >= 0 and "PyObject" not in signature


def native_signal(thing: QtCore.QObject, signature: str):
    """PySide6's own object for a signal.

    Raises:
        ValueError: where the object has no such signal. PythonQt returns False there, and nobody looks at it.
    """
    if not signature.endswith(")") or not has_signal(thing, signature):
        raise ValueError(
            f"{type(thing).__name__} has no signal {signature!r}: connect() would return False in Slicer. "
            f"Check the spelling and the argument types in the C++ header"
        )
    name = standin_signals(type(thing)).get(signature, signature.split("(")[0])
    return _read(thing, name)


def _connections(thing: QtCore.QObject) -> dict[tuple[str, Callable], Callable]:
    return _read(thing, "__dict__").setdefault("_bench_connections", {})


def _callback(receiver: object, slot: str | None) -> Callable:
    if slot is None:
        return receiver
    return getattr(receiver, slot.split("(")[0])


def connect(thing: QtCore.QObject, signature: str, receiver: object, slot: str | None = None) -> bool:
    """`thing.connect("signal()", function)` or `thing.connect("signal()", object, "slot()")`.

    Raises:
        TypeError: for a signal that is not a string, a receiver that cannot be called, or missing arguments.
        ValueError: for a signal that does not exist.
    """
    if not isinstance(signature, str):
        raise TypeError(f'expected connect("signal(type)", function), got {signature!r} as the signal')
    wanted = normalized(signature)
    native = native_signal(thing, wanted)
    callback = _callback(receiver, slot)
    made = adapted(callback, arguments(wanted))
    _connections(thing)[wanted, callback] = made
    native.connect(made)
    return True


def disconnect(thing: QtCore.QObject, signature: str, receiver: object = None, slot: str | None = None) -> bool:
    """End connections made by `connect`: to one receiver, or all of a signal. False where there was none."""
    wanted = normalized(signature)
    native = native_signal(thing, wanted)
    made = _connections(thing)
    callback = None if receiver is None else _callback(receiver, slot)
    keys = [key for key in made if key[0] == wanted and (callback is None or key[1] == callback)]
    for key in keys:
        native.disconnect(made.pop(key))
    return bool(keys)


class Signal:
    """A signal read as an attribute: `button.clicked.connect(f)`, `button.clicked.emit()`, `button.clicked(True)`."""

    def __init__(self, thing: QtCore.QObject, name: str, native) -> None:
        self._thing, self._name, self._native = thing, name, native

    def _signature(self) -> str:
        """Return the signature with most arguments: the one that PythonQt takes."""
        own = [sign for sign, name in standin_signals(type(self._thing)).items() if name == self._name]
        if own:
            return own[0]
        meta = QtCore.QObject.metaObject(self._thing)
        signatures = [
            bytes(meta.method(i).methodSignature()).decode()
            for i in range(meta.methodCount())
            if meta.method(i).methodType() == QtCore.QMetaMethod.MethodType.Signal
            and bytes(meta.method(i).name()).decode() == self._name
        ]
        return max(signatures, key=arguments) if signatures else f"{self._name}()"

    def connect(self, receiver) -> bool:
        """Connect a function, or another signal."""
        if isinstance(receiver, Signal):
            self._native.connect(receiver._native)
            return True
        signature = self._signature()
        made = adapted(receiver, arguments(signature))
        _connections(self._thing)[signature, receiver] = made
        self._native.connect(made)
        return True

    def disconnect(self, receiver) -> bool:
        """End what `connect` began; False where it was not connected."""
        made = _connections(self._thing).pop((self._signature(), receiver), None)
        if made is None:
            return False
        self._native.disconnect(made)
        return True

    def emit(self, *values: object) -> None:
        """Send the signal."""
        self._native.emit(*values)

    __call__ = emit


def read_attribute(thing: QtCore.QObject, name: str):
    """Read an attribute of any QObject. PySide6 resolves `connect` in C++, out of reach of a patched method."""
    if name == "connect":
        return lambda *values: connect(thing, *values)
    if name == "disconnect":
        return lambda *values: disconnect(thing, *values)
    value = _read(thing, name)
    return Signal(thing, name, value) if type(value) is QtCore.SignalInstance else value
