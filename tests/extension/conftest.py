"""The bench for tests of the Slicer module; where it cannot run, what needs it is skipped, saying what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slicerbench import WHAT_TO_RUN, install


def _why_not() -> str:
    """Return why the bench cannot run here, "" if it can."""
    try:
        import PySide6.QtWidgets  # noqa: F401
        import slicer  # noqa: F401
        import vtk  # noqa: F401
    except ImportError as error:
        return f"the Slicer bench needs slicer-core, vtk and PySide6: {error}. To run these tests: {WHAT_TO_RUN}"
    return ""


WHY_NOT = _why_not()
# Files that import the bench cannot even be collected without it; `bench/test_here.py` says so.
collect_ignore = [
    str(file.relative_to(Path(__file__).parent))
    for file in Path(__file__).parent.rglob("test_*.py")
    if WHY_NOT
    and any(
        word in file.read_text(encoding="utf-8").replace("slicerbench.system", "")  # which needs nothing of the bench
        for word in ("slicerbench", "clinician", "PySide6", "Rep3DLabelLib.scene")
    )
]


@pytest.fixture(scope="session")
def slicer_process():
    """Return the bench of this process (`tests.slicerbench.bench.Bench`); most tests want `bench`."""
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    return install()


@pytest.fixture
def bench(slicer_process) -> Iterator:
    """Yield the bench with an empty scene; afterwards the test fails for exceptions in callbacks and for errors of
    VTK."""
    slicer_process.start_test()
    yield slicer_process
    slicer_process.end_test()


@pytest.fixture
def slicer(bench):
    """Return the module `slicer`, with an empty scene."""
    return bench.slicer


@pytest.fixture
def qt(bench):
    """Return the module `qt`."""
    return bench.qt


@pytest.fixture
def driver(bench):
    """Return what a user does: `tests.slicerbench.driver`."""
    from tests.slicerbench import driver

    return driver


@pytest.fixture
def toy(bench):
    """Return the module of tests/extension/toy, open (`tests.slicerbench.modules.OpenModule`)."""
    return bench.open_module(Path(__file__).parent / "toy" / "ToyLab.py")
