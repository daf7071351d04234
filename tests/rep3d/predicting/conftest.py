"""Commands are run as in the tests of the command line."""

from __future__ import annotations

from tests.rep3d.cli.conftest import rep3d

__all__ = ["rep3d"]
