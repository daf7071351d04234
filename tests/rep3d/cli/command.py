"""What a command left behind."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Done"]


class Done(NamedTuple):
    """Its end status, and what it printed."""

    returncode: int
    stdout: str
    stderr: str
