"""Every Python callback that Qt calls passes through here: argument counts as in PythonQt, how long each took, and how
often it made the views draw a segmentation."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One callback that ran in the GUI thread, with all that it called: for `seconds` the GUI stood still.

    `redraws` is how many events came that make each slice view draw a segmentation (`tests.slicerbench.redraws`).
    """

    seconds: float
    name: str
    redraws: int = 0


_listeners: list[Callable[[Run], None]] = []
_depth = 0
_drawn = 0


def note_redraw() -> None:
    """Count an event that makes each slice view draw a segmentation."""
    global _drawn
    _drawn += 1


def listen(listener: Callable[[Run], None]) -> None:
    """Tell `listener` of each callback that ends from now on; one inside another is part of the outer one."""
    _listeners.append(listener)


def unlisten(listener: Callable[[Run], None]) -> None:
    """End what `listen` began."""
    _listeners.remove(listener)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Count what runs inside as one callback."""
    global _depth
    _depth += 1
    start, drawn = time.perf_counter(), _drawn
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0 and _listeners:
            run = Run(time.perf_counter() - start, name, _drawn - drawn)
            for listener in list(_listeners):
                listener(run)


def taken(callback: Callable) -> int | None:
    """Return how many arguments PythonQt passes to `callback` at most; None: all that the signal has.

    PythonQt reads `co_argcount` of functions and bound methods, so a parameter with a default value counts; any other
    callable, and one with `*args`, gets all.
    """
    function, own = (callback.__func__, 1) if inspect.ismethod(callback) else (callback, 0)
    if not inspect.isfunction(function) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - own


def adapted(callback: Callable, count: int) -> Callable:
    """Return a function of exactly `count` parameters that calls `callback` as PythonQt would.

    The count must be fixed: PySide6 picks the overload of a signal by it.

    Raises:
        TypeError: where `callback` cannot be called.
        ValueError: for more than four arguments.
    """
    if not callable(callback):
        raise TypeError(f"expected something to call when the signal comes, got {callback!r}")
    limit = taken(callback)
    name = getattr(callback, "__qualname__", type(callback).__name__)

    def call(*values: object) -> None:
        with timed(name):
            callback(*values[:limit])

    fixed = (
        lambda: call(),
        lambda a: call(a),
        lambda a, b: call(a, b),
        lambda a, b, c: call(a, b, c),
        lambda a, b, c, d: call(a, b, c, d),
    )
    if count >= len(fixed):
        raise ValueError(f"the bench passes signals of up to {len(fixed) - 1} arguments, got {count}")
    return fixed[count]
