"""HTTP: everything that a user does with a Rep3D Label server, as typed calls; `client` has all, `calls_*` by topic.

Needs Python 3.9 and requests only, so the demo, the tests and the worker process use it; the calls wait for answers,
so nothing that draws a user interface may make one. What the server says is made into the values of `answers*` once,
here; worker, workflow and panel pass these on. They need no HTTP, so requests is imported with the client only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import REP3D_MODEL, Rep3DClient, Timeouts

__all__ = ["REP3D_MODEL", "Rep3DClient", "Timeouts"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".client", __name__), name)
