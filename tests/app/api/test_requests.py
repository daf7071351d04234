"""Who may cancel a segmentation: whoever asked for it, and administrators."""

from __future__ import annotations

import pytest
from lib.errors import ForbiddenError, NotFoundError
from lib.inference.running import RunningRequests


def test_nobody_cancels_what_another_waits_for() -> None:
    requests = RunningRequests()
    with requests.running("one", "rep3d", "case", "Anna"):
        with pytest.raises(ForbiddenError, match="another user's"):
            requests.cancel("one", "Bo")
        with pytest.raises(NotFoundError):
            requests.cancel("two", "Bo")
        assert requests.all()[0]["state"] == "running"
        assert requests.cancel("one", "Anna")["state"] == "cancelling"
    with requests.running("one", "rep3d", "case", "Anna"):
        assert requests.cancel("one", None)["state"] == "cancelling"
