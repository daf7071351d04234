"""Somebody who annotates in the browser: logs in, fetches cases, paints by mouse, submits, by what is on the page."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
from playwright.sync_api import Browser, BrowserContext, FloatRect, Page, expect

from tests.app.browser import Watched
from tests.app.data import SHAPE
from tests.app.server import AppServer, until

__all__ = ["SLOW", "Annotator", "at_work", "stored"]

SLOW = 60_000  # ms: for what takes the server or the page a moment
# What the browser itself says of requests that are meant to fail, and of how software draws.
_EXPECTED = ("Failed to load resource", "GPU stall due to ReadPixels")
_KEPT = """async (image) => {
  const result = (request) => new Promise((done) => { request.onsuccess = () => done(request.result); });
  const opened = await result(indexedDB.open("rep3d-annotate"));
  const all = await result(opened.transaction("drafts").objectStore("drafts").getAll());
  opened.close();
  const found = all.filter((draft) => draft.image === image);
  return Promise.all(found.map(async ({ packed }) => [...new Uint8Array(await packed.arrayBuffer())]));
}"""


class Annotator:
    """One page of one person.

    Args:
        seen: the page, with its console and its requests.
        server: the server.
        key: to log in with; "" where none is asked for.
    """

    def __init__(self, seen: Watched, server: AppServer, key: str = "") -> None:
        self.seen, self.page, self.server, self._key = seen, seen.page, server, key

    def arrive(self) -> Annotator:
        """Open the page, log in where that is asked for, and read the five sentences."""
        self.page.goto(f"{self.server.url}/rep3d/annotate/")
        if self._key:
            self.log_in(self.page)
        self.expect_state("Ready")
        expect(self.page.locator("dialog .welcome li")).to_have_count(5, timeout=SLOW)
        self.page.keyboard.press("Escape")
        return self

    def log_in(self, page: Page) -> None:
        """Type the key into the form; the page comes back by itself."""
        page.fill("[name=password]", self._key)
        page.click("button.primary")
        page.wait_for_url("**/rep3d/annotate/")

    def expect_state(self, words: str) -> None:
        expect(self.page.locator("#flow .state")).to_have_text(words, timeout=SLOW)

    def expect_said(self, words: str) -> None:
        expect(self.page.locator("#flow .message")).to_contain_text(words, timeout=SLOW)

    def press(self, command: str) -> None:
        """Press the button of a command, as soon as it may be used."""
        button = self.page.locator(f"[data-command={command}]").first
        expect(button).to_have_attribute("aria-disabled", "false", timeout=SLOW)
        button.click()

    def why_not(self, command: str) -> str:
        """Return why a command may not be used now."""
        button = self.page.locator(f"[data-command={command}]").first
        assert button.get_attribute("aria-disabled") == "true"
        return button.get_attribute("title") or ""

    @property
    def case(self) -> str:
        """The case in hand."""
        name = self.page.locator("#in-hand .name")
        expect(name).to_be_visible(timeout=SLOW)
        return name.inner_text()

    def next_sample(self) -> str:
        self.press("next_sample")
        expect(self.page.locator("#flow .activity")).to_be_hidden(timeout=SLOW)
        return self.case

    def open(self, image: str) -> None:
        """Find a case in the list and choose it, once the server knows it: its file may be a moment old."""
        until(lambda: self.page.request.get(f"{self.server.url}/rep3d/cases/{image}").ok, 30)
        self.press("open_case")
        self.page.fill("dialog [type=search]", image)
        self.page.click(f"dialog [data-case='{image}'] button")

    def opened(self, image: str) -> Annotator:
        """As ``open``, and wait until it is there."""
        self.open(image)
        expect(self.page.locator("#in-hand .name")).to_have_text(image, timeout=SLOW)
        expect(self.page.locator("#flow .activity")).to_be_hidden(timeout=SLOW)
        return self

    def paint(self, right: int = 40, down: int = 0) -> None:
        """Draw a stroke with the brush from the middle of the axial view, which is made the only one."""
        layout = self.page.locator("#tools").get_by_role("button", name="Axial", exact=True)
        layout.click()
        self.page.locator("#tools").get_by_role("button", name="Brush", exact=True).click()
        box = self.page.locator("#stage").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + down, steps=4)
        self.page.mouse.up()

    def kept(self) -> None:
        """Wait until the browser has kept what was drawn."""
        expect(self.page.locator("#kept")).to_contain_text("Edits kept in this browser", timeout=SLOW)

    def drafts(self, image: str) -> list[np.ndarray]:
        """Return the label maps that the browser keeps of a case, in the image's own order."""
        found = self.page.evaluate(_KEPT, image)
        return [np.frombuffer(gzip.decompress(bytes(one)), np.uint8).reshape(SHAPE, order="F") for one in found]

    def submit(self) -> None:
        self.press("submit")

    def submitted(self, image: str) -> None:
        """Submit, and wait until the server has confirmed it."""
        self.submit()
        self.expect_said(f"Submitted {image}.")

    def asked(self, title: str) -> None:
        """Wait for a question."""
        expect(self.page.locator("dialog.question h2")).to_have_text(title, timeout=SLOW)

    def answer(self, words: str) -> None:
        self.page.locator("dialog.question").get_by_role("button", name=words, exact=True).click()
        expect(self.page.locator("dialog.question")).to_have_count(0)

    def fits(self, width: int, height: int) -> FloatRect:
        """Nothing of the page is outside the window, and its commands are on top; return where the image is."""
        root = "document.documentElement"
        assert self.page.evaluate(f"[{root}.scrollWidth <= {width}, {root}.scrollHeight <= {height}]") == [True, True]
        for command in ("next_sample", "open_case", "auto_segment", "submit"):
            box = self.page.locator(f"[data-command={command}]").bounding_box()
            assert box and box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] < height / 4
        stage = self.page.locator("#stage").bounding_box()
        assert stage
        return stage

    def check(self) -> None:
        """Nothing is on the console but what the browser says of refusals, and no other host was asked."""
        assert [line for line in self.seen.console if not any(known in line for known in _EXPECTED)] == []
        hosts = {urlsplit(url).netloc for url in self.seen.requests if not url.startswith(("data:", "blob:"))}
        assert hosts <= {urlsplit(self.server.url).netloc}


@contextmanager
def at_work(
    browser: Browser, server: AppServer, key: str = "", size: tuple[int, int] = (1366, 768), phone: bool = False
) -> Iterator[Annotator]:
    """Yield somebody who has opened the page in a browser of his own; what it did is looked at at the end."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        is_mobile=phone,
        has_touch=phone,
        color_scheme="dark" if phone else "light",
    )
    context.set_default_timeout(SLOW)
    try:
        person = Annotator(Watched(context.new_page()), server, key)
        yield person.arrive()
        person.check()
    finally:
        context.close()


def another_tab(person: Annotator) -> Annotator:
    """Return a second tab of the same browser."""
    context: BrowserContext = person.page.context
    other = Annotator(Watched(context.new_page()), person.server)
    other.page.goto(f"{person.server.url}/rep3d/annotate/")
    other.expect_state("Ready")
    return other


def stored(server: AppServer, image: str) -> np.ndarray:
    """Return the final label that lies in the studies folder."""
    file: Path = server.studies / "labels" / "final" / f"{image}.nii.gz"
    return np.asarray(nib.load(file).dataobj)
