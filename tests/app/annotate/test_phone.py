"""A phone: all is within reach of a thumb, one finger paints, two move and zoom and paint nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Browser, CDPSession, expect

from tests.app.annotate.annotator import SLOW, Annotator, at_work, stored
from tests.app.data import LABELS
from tests.app.server import AppServer

WIDTH, HEIGHT = 390, 844


@pytest.fixture
def anna(browser: Browser, server: AppServer) -> Iterator[Annotator]:
    with at_work(browser, server, size=(WIDTH, HEIGHT), phone=True) as person:
        yield person


def _fingers(touch: CDPSession, kind: str, *places: tuple[float, float]) -> None:
    points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
    touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def test_labels_and_tools_are_reached_beside_the_image_and_two_fingers_paint_nothing(anna: Annotator) -> None:
    page = anna.page
    anna.opened("case_3")
    part = lambda name: page.locator(f"#strip [aria-controls={name}]")  # noqa: E731
    stage = anna.fits(WIDTH, HEIGHT)
    assert stage["height"] > HEIGHT / 2 and stage["width"] > 0.9 * WIDTH
    part("labels").tap()
    page.get_by_role("radio", name="tail").tap()
    page.get_by_role("button", name="Hide head").tap()
    expect(part("labels")).to_contain_text("tail")
    part("tools").tap()
    tools = page.locator("#tools")
    tools.get_by_role("button", name="Axial", exact=True).tap()
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    touch = page.context.new_cdp_session(page)
    before = page.locator("#stage").screenshot()
    for tool in ("Contour", "Fill", "Brush"):
        tools.get_by_role("button", name=tool, exact=True).tap()
        _fingers(touch, "touchStart", (x - 30, y))
        _fingers(touch, "touchMove", (x - 34, y + 4))
        _fingers(touch, "touchStart", (x - 34, y + 4), (x + 30, y))
        for step in (10, 20):
            _fingers(touch, "touchMove", (x - 34 - step, y + 4), (x + 30 + step, y))
        _fingers(touch, "touchEnd")
    assert page.locator("#stage").screenshot() != before, "it was zoomed"
    assert page.get_by_role("button", name="Undo").first.is_disabled()
    expect(page.locator("#kept")).to_be_empty()
    _fingers(touch, "touchStart", (x, y))
    _fingers(touch, "touchEnd")
    part("tools").tap()  # which folds it away
    expect(tools).to_be_hidden()
    higher = page.locator("#stage").bounding_box()
    assert higher and higher["height"] > stage["height"] + 100
    anna.submitted("case_3")
    try:
        label = stored(anna.server, "case_3")
        assert set(np.unique(label)) == {0, LABELS["tail"]} and np.count_nonzero(label) < 100
        part("case").tap()
        expect(page.locator("#in-hand .name")).to_be_visible(timeout=SLOW)
    finally:
        assert anna.server.request("DELETE", "/datastore/label", params={"id": "case_3", "tag": "final"}).ok
