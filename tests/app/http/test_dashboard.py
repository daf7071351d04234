"""The dashboard in real Chromium, on a real server: what is shown, what the buttons do, and what it never does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.app.browser import Watched, chromium, find_chromium, watched
from tests.app.data import CONF, write_image, write_label
from tests.app.server import APP_DIR, AppServer

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

# Names may hold anything that is a plain name; what looks like code must stay text.
ODD_NAME = "img src=x onerror=alert(1)"
HOSTILE = "<img src=x onerror=alert(1)>"
SLOW = 30_000  # ms: for what takes the server or the page a moment


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server without a model: six images, labels for two."""
    studies = tmp_path_factory.mktemp("ward-7")
    for number in range(5):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_image(studies / f"{ODD_NAME}.nii.gz", 7)
    for number in range(2):
        write_label(studies / "labels" / "final" / f"case_{number}.nii.gz", number)
    conf = {**CONF, "preset": "tiny", "roi_size": "32,32,32"}
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), conf) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Yield one browser for all tests."""
    with chromium() as running:
        yield running


@pytest.fixture
def seen(server: AppServer, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Yield the dashboard, loaded and filled; afterwards nothing is on its console and no other host was asked."""
    with watched(browser, *getattr(request, "param", ())) as found:
        _open(found.page, server)
        yield found
        assert found.console == []
        hosts = {urlsplit(url).netloc for url in found.requests if not url.startswith("data:")}
        assert hosts <= {urlsplit(server.url).netloc}


@pytest.fixture
def page(seen: Watched) -> Page:
    return seen.page


def _open(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/rep3d/")
    expect(page.locator("#tiles div")).to_have_count(4, timeout=SLOW)


def _text(page: Page, selector: str) -> str:
    return page.locator(selector).first.inner_text()


def _until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait for what no locator can say."""
    for _ in range(SLOW // 50):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError(page.locator("body").inner_text())


def _forget_refusal(seen: Watched) -> None:
    """Forget the refusal: the browser itself notes on the console that an answer was an error; that is wanted here."""
    _until(seen.page, lambda: bool(seen.console))
    assert all("Failed to load resource" in line for line in seen.console)
    seen.console.clear()


# Files --------------------------------------------------------------------------------------------------------------


def test_the_files_are_small_cached_by_tag_and_closed_to_foreign_code(server: AppServer) -> None:
    redirect = requests.get(f"{server.url}/rep3d", allow_redirects=False, timeout=30)
    assert redirect.status_code == 307
    assert requests.compat.urljoin(redirect.url, redirect.headers["Location"]) == f"{server.url}/rep3d/"
    files = sorted(path.name for path in (APP_DIR / "dashboard").iterdir())
    size = 0
    for name in files:
        answer = server.get("/rep3d/" + name.replace("index.html", ""))
        assert answer.status_code == 200, name
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; img-src 'self' data:;")
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        again = server.get(
            "/rep3d/" + name.replace("index.html", ""), headers={"If-None-Match": answer.headers["ETag"]}
        )
        assert again.status_code == 304 and not again.content
        size += len(answer.content)
    assert size < 60_000
    for source in (APP_DIR / "dashboard").glob("*.js"):
        assert "innerHTML" not in source.read_text(encoding="utf-8")
    assert server.get("/rep3d/../main.py").status_code == 404


@pytest.mark.timed
def test_the_state_is_given_fast(server: AppServer) -> None:
    server.get("/rep3d/status")
    seconds = []
    for _ in range(10):
        answer = server.get("/rep3d/status")
        assert answer.status_code == 200
        seconds.append(answer.elapsed.total_seconds())
    assert sorted(seconds)[2] < 0.05, seconds


# The page -----------------------------------------------------------------------------------------------------------


def test_what_is_shown_before_the_first_training(page: Page, server: AppServer) -> None:
    assert _text(page, "h1") == server.studies.name
    assert "none yet" in _text(page, "#tiles") and "2 of 6" in _text(page, "#tiles")
    assert _text(page, "#labels").split() == ["head", "tail"]
    assert "No version yet" in _text(page, "#version-list")
    expect(page.locator("#batch-start")).to_be_disabled()
    expect(page.locator("#case-list > li")).to_have_count(6, timeout=SLOW)
    page.evaluate("document.querySelector('#cases').scrollIntoView()")
    pictures = "[...document.querySelectorAll('#case-list img')].filter(i => i.naturalWidth > 0).length"
    _until(page, lambda: page.evaluate(pictures) >= 4)


def test_names_that_look_like_code_stay_text(seen: Watched) -> None:
    page = seen.page
    expect(page.locator(f"[data-case={json.dumps(ODD_NAME)}] h3")).to_have_text(ODD_NAME, timeout=SLOW)
    # No name may hold "<"; but the page must not rely on that.
    page.evaluate(f"""(async () => {{
        const real = window.fetch;
        window.fetch = async (...all) => {{
            const answer = await real(...all);
            const text = await answer.text();
            const other = text.replaceAll('"stamp":"', '"stamp":"other ').replaceAll("case_0", {json.dumps(HOSTILE)});
            return new Response(other, answer);
        }};
        document.dispatchEvent(new Event("visibilitychange"));
    }})()""")
    page.click("[data-state=submitted]")
    expect(page.locator("#case-list > li")).to_have_count(2, timeout=SLOW)
    expect(page.locator("h3").filter(has_text=HOSTILE).first).to_have_text(HOSTILE, timeout=40_000)
    expect(page.locator("h3 img")).to_have_count(0)
    _forget_refusal(seen)  # there is no picture of a case of that name


def test_filters_and_search(page: Page) -> None:
    page.click("[data-state=submitted]")
    expect(page.locator("#case-list > li")).to_have_count(2, timeout=SLOW)
    page.click("[data-state=all]")
    page.fill("#find", "case_3")
    expect(page.locator("#case-list > li")).to_have_count(1, timeout=SLOW)


@pytest.mark.parametrize(
    "seen",
    [
        *((width, dark) for width in (360, 1280) for dark in (False, True)),
        *(pytest.param((768, dark), marks=pytest.mark.slow) for dark in (False, True)),
    ],
    indirect=True,
)
def test_no_sideways_scrolling(seen: Watched) -> None:
    page = seen.page
    expect(page.locator("#case-list > li")).not_to_have_count(0, timeout=SLOW)
    assert page.viewport_size is not None
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]


def test_every_control_has_a_name_and_every_text_enough_contrast(page: Page) -> None:
    nameless = page.evaluate(_NAMELESS)
    assert nameless == 0
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        low = page.evaluate(_CONTRAST)
        assert low == [], scheme


_NAMELESS = """[...document.querySelectorAll('button, input, select, a')].filter((e) => e.checkVisibility() && !(
    e.textContent || e.getAttribute('aria-label') || e.labels?.[0]?.textContent || '').trim()).length"""

# As WCAG 2 defines it.
_CONTRAST = """(() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const colour = numbers(getComputedStyle(e).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const low = new Set();
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!own || !e.getClientRects().length || e.closest('svg, .picture')) continue;
        const [a, b] = [light(numbers(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) low.add(`${e.tagName}.${e.className}: ${ratio.toFixed(2)}`);
    }
    return [...low];
})()"""


# What the buttons do ------------------------------------------------------------------------------------------------


def test_a_refusal_is_shown_in_words(seen: Watched) -> None:
    page = seen.page
    page.fill("#iterations", "0")
    page.click("#train-start")
    expect(page.locator("#training-message")).not_to_be_empty(timeout=SLOW)
    words = page.locator("#training-message").text_content() or ""
    assert words.startswith("Iterations: expected a whole number") and "got 0" in words
    _forget_refusal(seen)


def test_training_publishing_and_rolling_back_by_buttons(page: Page, server: AppServer) -> None:
    for version in ("v1", "v2"):
        page.fill("#iterations", "6")
        page.click("#train-start")
        expect(page.locator("#train-stop")).to_be_visible(timeout=60_000)
        expect(page.locator("#train-progress")).to_contain_text("of 6", timeout=120_000)
        expect(page.locator("#train-phase")).to_have_text("Done", timeout=240_000)
        expect(page.locator(f"[data-version={version}]")).to_be_attached(timeout=SLOW)
    big = page.locator("#tiles .first .big")
    published = big.inner_text()
    other = {"v1": "v2", "v2": "v1"}[published]
    assert page.locator("#curve svg").count() >= 1
    assert "not measured" in _text(page, "#version-list")  # two cases: nothing is held out, nothing is claimed

    page.click(f"[data-version={other}] button:first-of-type")
    expect(page.locator("#confirm")).to_be_visible(timeout=SLOW)
    page.click("#confirm-yes")
    expect(big).to_have_text(other, timeout=SLOW)
    assert server.get("/info/").json()["rep3d"]["version"] == other
    page.click("#rollback")
    page.click("#confirm-yes")
    expect(big).to_have_text(published, timeout=SLOW)
    assert server.get("/info/").json()["rep3d"]["version"] == published


def test_a_question_can_be_answered_with_no(page: Page) -> None:
    expect(page.locator("[data-version]")).to_have_count(2, timeout=SLOW)
    page.click("[data-version] button.danger")
    expect(page.locator("#confirm")).to_be_visible(timeout=SLOW)
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).not_to_be_visible(timeout=SLOW)
    expect(page.locator("[data-version]")).to_have_count(2)


def test_review_and_history(page: Page, server: AppServer) -> None:
    page.click("[data-case=case_1] .buttons button:first-child")
    expect(page.locator("[data-case=case_1] .state.reviewed")).to_be_attached(timeout=SLOW)
    assert server.get("/rep3d/cases/case_1").json()["state"] == "reviewed"
    page.click("[data-case=case_1] .buttons button:last-child")
    expect(page.locator("#history")).to_be_visible(timeout=SLOW)
    assert "current" in _text(page, "#history-list")
    page.keyboard.press("Escape")
    page.click("[data-case=case_1] .buttons button:first-child")
    expect(page.locator("[data-case=case_1] .state.submitted")).to_be_attached(timeout=SLOW)


def test_batch_inference_by_button(page: Page) -> None:
    page.click("#batch-start")
    expect(page.locator("#batch-phase")).to_have_text("Done", timeout=90_000)
    assert "4 of 4" in _text(page, "#batch-progress")
    expect(page.locator(".state.predicted")).to_have_count(4, timeout=SLOW)


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back(server: AppServer, browser: Browser, tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    shutil.copytree(server.studies, studies)
    scratch.mkdir()
    other = AppServer(studies, scratch, CONF)
    with watched(browser) as found:
        page = found.page
        with other:
            _open(page, other)
        lost = re.compile("^Server not reachable since")
        expect(page.locator("#connection")).to_have_text(lost, timeout=40_000)
        expect(page.locator("#connection")).to_be_visible()
        before = _text(page, "#tiles")
        assert before, "what was known stays on the page"
        again = AppServer(studies, scratch, CONF, port=other.port)
        with again:
            expect(page.locator("#connection")).to_be_hidden(timeout=60_000)
            assert _text(page, "#tiles") == before


def test_nothing_is_asked_while_nobody_looks(server: AppServer, browser: Browser) -> None:
    """The page's own clock is turned by hand: it asks after some seconds, but not while it is hidden."""
    with watched(browser) as found:
        page = found.page
        page.clock.install()
        _open(page, server)
        page.wait_for_load_state("networkidle")
        with page.expect_request("**/rep3d/status*"):
            page.clock.run_for(11_000)
        page.wait_for_load_state("networkidle")
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(500)
        found.requests.clear()
        page.clock.run_for(60_000)
        page.wait_for_timeout(500)
        assert [url for url in found.requests if "status" in url] == []
