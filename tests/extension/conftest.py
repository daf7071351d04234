"""The bench for tests of the Slicer module; tests that ask for it skip where it cannot run, saying what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slicerbench import WHAT_TO_RUN, install


@pytest.fixture(scope="session")
def slicer_process():
    """The bench of this process (`tests.slicerbench.bench.Bench`); most tests want `bench`."""
    try:
        return install()
    except ImportError as error:
        pytest.skip(f"the Slicer bench needs slicer-core and PySide6: {error}. To run these tests: {WHAT_TO_RUN}")


@pytest.fixture
def bench(slicer_process) -> Iterator:
    """The bench with an empty scene; afterwards the test fails for exceptions in callbacks and for errors of VTK."""
    slicer_process.start_test()
    yield slicer_process
    slicer_process.end_test()


@pytest.fixture
def slicer(bench):
    """The module `slicer`, with an empty scene."""
    return bench.slicer


@pytest.fixture
def qt(bench):
    """The module `qt`."""
    return bench.qt


@pytest.fixture
def driver(bench):
    """What a user does: `tests.slicerbench.driver`."""
    from tests.slicerbench import driver

    return driver


@pytest.fixture
def toy(bench):
    """The module of tests/extension/toy, open (`tests.slicerbench.modules.OpenModule`)."""
    return bench.open_module(Path(__file__).parent / "toy" / "ToyLab.py")
