"""The browser that people use, driven by Playwright, and a page in it that remembers its console and its requests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["Watched", "chromium", "find_chromium", "watched"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# On a machine that is busy with other tests, an answer may take its time.
_PATIENCE_MS = 30_000


def find_chromium() -> str | None:
    """Return the command of the system's browser, if there is one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the system's browser, headless; nothing is downloaded."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), timeout=60_000)
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, warnings and errors of its console (dialogs and exceptions too), and the addresses that it asked for."""

    page: Page
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning", "assert"):
            self.console.append(message.text)

    def _asked(self, dialog: Any) -> None:
        self.console.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextmanager
def watched(browser: Browser, width: int = 1280, dark: bool = False) -> Iterator[Watched]:
    """Yield an empty page of a width in CSS pixels (below 600: a phone's), for a user who prefers dark colours or
    not."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", is_mobile=width < 600
    )
    context.set_default_timeout(_PATIENCE_MS)
    yield Watched(context.new_page())
    context.close()
