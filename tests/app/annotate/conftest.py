"""A server and a browser for the tests of the page for annotating."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tests.app.browser import chromium, find_chromium, watched
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer

needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def rules_page(server: AppServer, browser: Browser) -> Iterator[Page]:
    """Yield a page at the address of the annotating page, of which only the modules are of interest."""
    with watched(browser) as found:
        found.page.goto(f"{server.url}/rep3d/annotate/flow/rules.js")
        yield found.page
