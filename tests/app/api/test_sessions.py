"""Sessions are bounded: of all, and of one user, so that nobody takes those of the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from lib.api.sessions import SafeSessions
from lib.errors import BusyError, TooManySessionsError


def test_nobody_takes_all_places(tmp_path: Path) -> None:
    sessions = SafeSessions(str(tmp_path / "sessions"), 3600)

    def add(owner: str) -> str:
        image = tmp_path / "image.nii"  # it is moved
        image.write_bytes(b"voxels")
        return sessions.add_session(str(image), owner=owner)[0]

    opened = [add("Anna") for _ in range(20)]
    with pytest.raises(TooManySessionsError, match="20 sessions"):
        add("Anna")
    for number in range(80):
        add(f"someone {number % 8}")
    with pytest.raises(BusyError, match="100 sessions"):
        add("Bo")
    sessions.remove_session(opened[0])
    assert add("Anna")
