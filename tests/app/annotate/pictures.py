"""The pictures of docs/browser.md: two people at a server that has trained a model already."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.app.annotate.annotator import SLOW, Annotator, at_work
from tests.app.browser import chromium
from tests.app.server import AppServer

__all__ = ["photograph_annotating"]


def photograph_annotating(server: AppServer, folder: Path) -> None:
    """Work on the page, and take a picture of each kind of work.

    Args:
        server: with a published version, cases without a label and cases with one.
        folder: where the pictures go.
    """
    with chromium() as browser:
        with at_work(browser, server) as anna:
            _name(anna, "Anna")
            _alone(anna, folder)
            _together(browser, anna, folder)
        with at_work(browser, server, size=(390, 844), phone=True) as anna:
            anna.opened(_labelled(server)[0])
            _take(anna, folder, "phone")


def _alone(anna: Annotator, folder: Path) -> None:
    page = anna.page
    case = anna.next_sample()
    anna.press("auto_segment")
    anna.expect_said("Segmented by")
    _take(anna, folder, "page")
    anna.paint(right=90)
    anna.submitted(case)
    page.click("text=Versions")
    anna.press("train")
    expect(page.locator("#training progress[value]")).to_be_visible(timeout=10 * SLOW)  # its first step
    page.locator("#more").scroll_into_view_if_needed()
    _take(anna, folder, "training")
    anna.press("stop_training")
    page.click("text=Versions")


def _together(browser: Browser, anna: Annotator, folder: Path) -> None:
    case = _labelled(anna.server)[0]
    anna.opened(case).paint(right=120, down=40)
    anna.kept()
    anna.server.request("DELETE", f"/rep3d/leases/{case}")
    with at_work(browser, anna.server) as ben:
        _name(ben, "Ben")
        ben.opened(case).paint(right=-60, down=-30)
        ben.submitted(case)
    anna.submit()
    anna.asked("Someone submitted a label meanwhile")
    _take(anna, folder, "meanwhile")
    anna.answer("Look at both first")
    anna.page.click("text=Compare, earlier labels")
    expect(anna.page.locator("#compare")).to_be_visible()
    _take(anna, folder, "compare")


def _name(person: Annotator, name: str) -> None:
    """Say who works here, in the options."""
    person.page.click("text=Options")
    person.page.fill("#name", name)
    person.page.locator("#name").blur()
    person.page.click("text=Options")


def _labelled(server: AppServer) -> list[str]:
    return [case["id"] for case in server.get("/rep3d/cases?state=submitted").json()]


def _take(person: Annotator, folder: Path, name: str) -> None:
    person.page.wait_for_timeout(1500)  # what is due is drawn when the hand rests
    person.page.screenshot(path=folder / f"browser_{name}.png")
