"""The app's own errors, beside those of :mod:`rep3d.errors`; :mod:`lib.api.errors` says what each is over HTTP."""

from __future__ import annotations

__all__ = ["StartupError"]


class StartupError(Exception):
    """The server cannot start; the message says what was expected, what came, and what to do."""

    def __init__(self, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"Rep3D Label cannot start: expected {expected}, got {got}. {remedy}")
