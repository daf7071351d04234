"""The dashboard in real Chromium, on a real server: what is shown, what the buttons do, and what it never does."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.app.chromium import Chromium, find_chromium
from tests.app.data import CONF, write_image, write_label
from tests.app.server import APP_DIR, AppServer

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

# Names may hold anything that is a plain name; what looks like code must stay text.
ODD_NAME = "img src=x onerror=alert(1)"
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """A server without a model: six images, labels for two."""
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
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all tests."""
    with Chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def page(server: AppServer, browser: Chromium) -> Iterator[Chromium]:
    """The dashboard, loaded and filled; afterwards nothing is on its console and no other host was asked."""
    browser.console.clear()
    browser.requests.clear()
    browser.set_size(1280)
    browser.open(f"{server.url}/rep3d/")
    browser.wait_for("document.querySelectorAll('#tiles div').length === 4")
    yield browser
    assert browser.console == []
    hosts = {urlsplit(url).netloc for url in browser.requests if not url.startswith("data:")}
    assert hosts <= {urlsplit(server.url).netloc}


def _text(page: Chromium, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))


def _forget_refusal(page: Chromium) -> None:
    """The browser itself notes on the console that an answer was an error; that is wanted here."""
    deadline = time.monotonic() + 20
    while not page.console and time.monotonic() < deadline:
        time.sleep(0.05)
    assert all("Failed to load resource" in line for line in page.console)
    page.console.clear()


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


def test_what_is_shown_before_the_first_training(page: Chromium, server: AppServer) -> None:
    assert _text(page, "h1") == server.studies.name
    assert "none yet" in _text(page, "#tiles") and "2 of 6" in _text(page, "#tiles")
    assert _text(page, "#labels").split() == ["head", "tail"]
    assert "No version yet" in _text(page, "#version-list")
    assert page.evaluate("document.getElementById('batch-start').disabled") is True
    page.wait_for("document.querySelectorAll('#case-list > li').length === 6")
    page.evaluate("document.querySelector('#cases').scrollIntoView()")
    page.wait_for("[...document.querySelectorAll('#case-list img')].filter(i => i.naturalWidth > 0).length >= 4")


def test_names_that_look_like_code_stay_text(page: Chromium) -> None:
    page.wait_for(f"document.querySelector('[data-case={json.dumps(ODD_NAME)}]')")
    assert _text(page, f"[data-case={json.dumps(ODD_NAME)}] h3") == ODD_NAME
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
    page.wait_for("document.querySelectorAll('#case-list > li').length === 2")
    page.wait_for(f"[...document.querySelectorAll('h3')].some((e) => e.textContent === {json.dumps(HOSTILE)})", 40)
    assert page.evaluate("document.querySelectorAll('h3 img').length") == 0
    _forget_refusal(page)  # there is no picture of a case of that name


def test_filters_and_search(page: Chromium) -> None:
    page.click("[data-state=submitted]")
    page.wait_for("document.querySelectorAll('#case-list > li').length === 2")
    page.click("[data-state=all]")
    page.type_into("#find", "case_3")
    page.wait_for("document.querySelectorAll('#case-list > li').length === 1")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_no_sideways_scrolling(page: Chromium, width: int, dark: bool) -> None:
    page.set_size(width, dark=dark)
    page.wait_for("document.querySelectorAll('#case-list > li').length > 0")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_every_control_has_a_name_and_every_text_enough_contrast(page: Chromium) -> None:
    nameless = page.evaluate(_NAMELESS)
    assert nameless == 0
    for dark in (False, True):
        page.set_size(1280, dark=dark)
        low = page.evaluate(_CONTRAST)
        assert low == [], f"dark: {dark}"


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


def test_a_refusal_is_shown_in_words(page: Chromium) -> None:
    page.type_into("#iterations", "0")
    page.click("#train-start")
    words = page.wait_for("document.getElementById('training-message').textContent")
    assert words.startswith("Iterations: expected a whole number") and "got 0" in words
    _forget_refusal(page)


def test_training_publishing_and_rolling_back_by_buttons(page: Chromium, server: AppServer) -> None:
    for version in ("v1", "v2"):
        page.type_into("#iterations", "12")
        page.click("#train-start")
        page.wait_for("!document.getElementById('train-stop').hidden", 60)
        page.wait_for("/of 12/.test(document.getElementById('train-progress').innerText)", 120)
        page.wait_for("document.getElementById('train-phase').textContent === 'Done'", 240)
        page.wait_for(f"document.querySelector('[data-version={version}]')")
    published = _text(page, "#tiles .first .big")
    other = {"v1": "v2", "v2": "v1"}[published]
    assert page.evaluate("document.querySelectorAll('#curve svg').length") >= 1
    assert "not measured" in _text(page, "#version-list")  # two cases: nothing is held out, nothing is claimed

    page.click(f"[data-version={other}] button:first-of-type")
    page.wait_for("document.getElementById('confirm').open")
    page.click("#confirm-yes")
    page.wait_for(f"document.querySelector('#tiles .first .big').innerText === {json.dumps(other)}")
    assert server.get("/info/").json()["rep3d"]["version"] == other
    page.click("#rollback")
    page.click("#confirm-yes")
    page.wait_for(f"document.querySelector('#tiles .first .big').innerText === {json.dumps(published)}")
    assert server.get("/info/").json()["rep3d"]["version"] == published


def test_a_question_can_be_answered_with_no(page: Chromium, server: AppServer) -> None:
    page.wait_for("document.querySelectorAll('[data-version]').length === 2")
    page.click("[data-version] button.danger")
    page.wait_for("document.getElementById('confirm').open")
    page.press("Escape")
    page.wait_for("!document.getElementById('confirm').open")
    assert page.evaluate("document.querySelectorAll('[data-version]').length") == 2


def test_review_and_history(page: Chromium, server: AppServer) -> None:
    page.click("[data-case=case_1] .buttons button:first-child")
    page.wait_for("document.querySelector('[data-case=case_1] .state.reviewed')")
    assert server.get("/rep3d/cases/case_1").json()["state"] == "reviewed"
    page.click("[data-case=case_1] .buttons button:last-child")
    page.wait_for("document.getElementById('history').open")
    assert "current" in _text(page, "#history-list")
    page.press("Escape")
    page.click("[data-case=case_1] .buttons button:first-child")
    page.wait_for("document.querySelector('[data-case=case_1] .state.submitted')")


def test_batch_inference_by_button(page: Chromium, server: AppServer) -> None:
    page.click("#batch-start")
    page.wait_for("document.getElementById('batch-phase').textContent === 'Done'", 90)
    assert "4 of 4" in _text(page, "#batch-progress")
    page.wait_for("document.querySelectorAll('.state.predicted').length === 4")


def test_a_server_that_goes_away_and_comes_back(server: AppServer, browser: Chromium, tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    shutil.copytree(server.studies, studies)
    scratch.mkdir()
    other = AppServer(studies, scratch, CONF)
    with other:
        browser.set_size(1280)
        browser.open(f"{other.url}/rep3d/")
        browser.wait_for("document.querySelectorAll('#tiles div').length === 4")
    browser.wait_for("document.getElementById('connection').innerText.startsWith('Server not reachable since')", 40)
    before = _text(browser, "#tiles")
    assert before, "what was known stays on the page"
    again = AppServer(studies, scratch, CONF, port=other.port)
    with again:
        browser.wait_for("document.getElementById('connection').hidden", 60)
        assert _text(browser, "#tiles") == before


def test_nothing_is_asked_while_nobody_looks(page: Chromium) -> None:
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    time.sleep(0.5)
    page.requests.clear()
    time.sleep(11)
    assert [url for url in page.requests if "status" in url] == []
