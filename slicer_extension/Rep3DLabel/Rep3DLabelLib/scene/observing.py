"""Observers of the MRML scene that do not keep alive whom they tell: the scene outlives a module that is reloaded."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import vtk

__all__ = ["observe", "observe_nodes"]


def observe(scene: Any, event: int, method: Callable[[], None]) -> int:
    """Call a bound method at each event, as long as its object lives; return the observer's tag."""
    reference = weakref.WeakMethod(method)

    def called(caller: Any, name: str) -> None:
        target = reference()
        if target is not None:
            target()

    tag: int = scene.AddObserver(event, called)
    return tag


def observe_nodes(scene: Any, event: int, method: Callable[[Any], None]) -> int:
    """As `observe`, for events about a node, which the method gets before other observers change what they show."""
    reference = weakref.WeakMethod(method)

    def called(caller: Any, name: str, node: Any) -> None:
        target = reference()
        if target is not None:
            target(node)

    called.CallDataType = vtk.VTK_OBJECT  # type: ignore[attr-defined]
    tag: int = scene.AddObserver(event, called, 1.0)
    return tag
