"""Real Chromium: a page of another origin, open beside the dashboard, reads nothing and changes nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from rep3d.keys import KeyBook
from tests.app.browser import chromium, find_chromium, watched
from tests.app.data import CONF, publish_small_model, unchanged, write_image, write_label
from tests.app.server import AppServer

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

# All that a page may try from where it is; `told` is what it could read.
ATTACK = """async (url) => {
  const told = {};
  const ask = async (name, path, options) => {
    try {
      const answer = await fetch(url + path, options);
      told[name] = answer.type === "opaque" ? "" : answer.status + await answer.text();
    } catch { told[name] = ""; }
  };
  for (const credentials of ["omit", "include"]) {
    for (const mode of ["cors", "no-cors"]) {
      await ask(`read ${mode} ${credentials}`, "/info/", { mode, credentials });
      await ask(`train ${mode} ${credentials}`, "/train/", { method: "POST", body: "{}", mode, credentials });
      await ask(`review ${mode} ${credentials}`, "/rep3d/cases/case_0/review", { method: "POST", mode, credentials });
      await ask(`lease ${mode} ${credentials}`, "/rep3d/leases/case_1", { method: "POST", mode, credentials });
    }
    await ask(`delete ${credentials}`, "/datastore/image?id=case_0", { method: "DELETE", credentials });
    await ask(`put ${credentials}`, "/rep3d/voxels/labels/case_1", { method: "PUT", body: "x", credentials });
  }
  const load = (tag, attributes) => new Promise((done) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.onload = () => { told[tag] = `loaded ${element.naturalWidth ?? ""}`; done(); };
    element.onerror = () => { told[tag] = ""; done(); };
    document.body.append(element);
    setTimeout(done, 2000);
  });
  await load("img", { src: url + "/rep3d/cases/case_0/thumbnail.png" });
  await load("script", { src: url + "/rep3d/dashboard.js", type: "module" });
  const target = { method: "post", action: url + "/rep3d/leases/case_1", target: "other" };
  const form = Object.assign(document.createElement("form"), target);
  const frame = Object.assign(document.createElement("iframe"), { name: "other" });
  document.body.append(form, frame);
  await new Promise((done) => { frame.onload = done; form.submit(); });
  const shown = Object.assign(document.createElement("iframe"), { src: url + "/rep3d/" });
  await new Promise((done) => { shown.onload = done; document.body.append(shown); });
  return told;
}"""


class _Page(BaseHTTPRequestHandler):
    """Another site: one empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>other</title><body>")

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def _site() -> Iterator[int]:
    """Yield the port of another site on this computer, which for the browser is another origin."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


other_port = pytest.fixture(scope="module", name="other_port")(_site)
friend_port = pytest.fixture(scope="module", name="friend_port")(_site)


@pytest.fixture(scope="module", params=["auto", "on"], ids=["open on loopback", "with keys"])
def server(
    request: pytest.FixtureRequest, friend_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AppServer]:
    """Yield a server that asks for no key, and one that does; one site may use it."""
    studies = tmp_path_factory.mktemp("studies")
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(studies)
    conf = {**CONF, "keys": request.param, "origins": f"http://localhost:{friend_port}"}
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), conf) as running:
        yield running


def _open_dashboard(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/rep3d/")
    if page.url.endswith("/login"):
        page.get_by_label("Key").fill(KeyBook(server.studies / "rep3d").make("admin", "Ada")[1])
        page.get_by_role("button", name="Log in").click()
        expect(page.locator("#user")).to_have_text("Ada")
    expect(page.locator("#tiles div")).to_have_count(4)
    # The server keeps the thumbnails that it makes: what is compared afterwards must not be the page's own doing.
    pictures = (
        "() => [...document.querySelectorAll('img')].filter((img) => img.complete && img.naturalWidth).length >= 2"
    )
    page.wait_for_function(pictures)


def test_another_page_reads_nothing_and_changes_nothing(server: AppServer, browser: Browser, other_port: int) -> None:
    with watched(browser) as seen:
        _open_dashboard(seen.page, server)
        login = seen.page.context.cookies()
        assert len(login) == server.log.count("asks for a key")
        assert all(cookie["httpOnly"] and cookie["sameSite"] == "Strict" for cookie in login)
        state = seen.page.evaluate("fetch('status').then((answer) => answer.json())")
        for host in ("127.0.0.1", "localhost"):  # the same site on another port, and another site
            other = seen.page.context.new_page()
            other.goto(f"http://{host}:{other_port}/")
            with unchanged(server.studies):
                told = other.evaluate(ATTACK, server.url)
            assert len(told) > 20 and set(told.values()) == {""}, told
            inside = [frame for frame in other.frames if frame.parent_frame]
            assert len(inside) == 2
            assert not any("Rep3D" in frame.content() or "case_" in frame.content() for frame in inside)
            other.close()
        after = seen.page.evaluate("fetch('status').then((answer) => answer.json())")
        assert [after[part] for part in ("cases", "models")] == [state[part] for part in ("cases", "models")]
        leases = seen.page.evaluate("fetch('leases').then((answer) => answer.json())")
        assert leases == []


def test_a_login_lasts_until_log_out(server: AppServer, browser: Browser) -> None:
    with watched(browser) as seen:
        _open_dashboard(seen.page, server)
        locked = "asks for a key" in server.log
        expect(seen.page.locator("#logout")).to_be_visible(visible=locked)
        if not locked:
            return
        seen.page.reload()
        expect(seen.page.locator("#tiles div")).to_have_count(4)
        assert seen.console == []
        seen.page.get_by_role("button", name="Log out").click()
        expect(seen.page.get_by_label("Key")).to_be_visible()
        seen.page.goto(f"{server.url}/rep3d/")
        expect(seen.page.get_by_label("Key")).to_be_visible()


def test_what_a_proxy_passes_on_needs_a_key(server: AppServer) -> None:
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        with unchanged(server.studies):
            assert server.post("/reload", headers={name: "192.0.2.1"}).status_code == 401, name


def test_a_named_origin_may_and_no_other(server: AppServer, browser: Browser, friend_port: int) -> None:
    key = KeyBook(server.studies / "rep3d").make("annotator", "Anna")[1]
    ask = f"""(url) => fetch(url, {{ headers: {{ Authorization: {json.dumps(f"Bearer {key}")} }} }})
        .then((answer) => answer.status, () => "nothing")"""
    with watched(browser) as seen:
        for host, expected in (("localhost", 200), ("127.0.0.1", "nothing")):
            seen.page.goto(f"http://{host}:{friend_port}/")
            assert seen.page.evaluate(ask, f"{server.url}/info/") == expected
