"""A browser for the tests of the page for annotating."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.app.browser import chromium, find_chromium
from tests.app.server import APP_DIR


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one browser for a file: while one is open, no other test of its worker can run asyncio."""
    if find_chromium() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    if not (APP_DIR / "annotate" / "node_modules" / "@niivue").is_dir():
        pytest.skip("no viewer here: make viewer")
    with chromium() as running:
        yield running
