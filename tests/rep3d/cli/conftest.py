"""Commands are run in the process of the tests, which has imported PyTorch already."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rep3d.cli.main import main
from tests.rep3d.cli.command import Done


@pytest.fixture
def rep3d(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return what runs ``rep3d`` with some arguments."""

    def run(*arguments: str | Path | int) -> Done:
        monkeypatch.setattr(sys, "argv", ["rep3d", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Done(int(ended.value.code or 0), told.out, told.err)

    return run
