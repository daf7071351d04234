"""HTTP: everything that a user does with a Rep3D Label server, as typed calls; `client` has all, `calls_*` by topic.

Needs Python 3.9 and requests only, so the demo, the tests and the worker process use it; the calls wait for answers,
so nothing that draws a user interface may make one.
"""

from .client import REP3D_MODEL, Rep3DClient
from .transport import Timeouts

__all__ = ["REP3D_MODEL", "Rep3DClient", "Timeouts"]
