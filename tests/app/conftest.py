"""Servers for the tests of the app, started once each: importing MONAI Label takes ten seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import APP_DIR, AppServer

sys.path.insert(0, str(APP_DIR))  # as MONAI Label does while it loads an app


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with a (tiny, untrained) published model, five images, and a final label for the first.

    Tests that use it leave the studies folder as they found it, or add cases of their own.
    """
    studies = tmp_path_factory.mktemp("studies")
    for number in range(5):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        yield running


@pytest.fixture
def studies(server: AppServer) -> Path:
    """Return the studies folder of :func:`server`."""
    return server.studies
