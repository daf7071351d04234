"""The whole flow in real Chromium on a real server: from a key to a retrained model, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Route, expect

from rep3d.keys import KeyBook
from tests.app.annotate.annotator import SLOW, Annotator, another_tab, at_work, stored
from tests.app.data import CONF, LABELS, SHAPE, write_image, write_label, write_nifti
from tests.app.server import AppServer

REMOVED = """async () => {
  const result = (request) => new Promise((done) => { request.onsuccess = () => done(request.result); });
  const opened = await result(indexedDB.open("rep3d-annotate"));
  const drafts = opened.transaction("drafts", "readwrite").objectStore("drafts");
  const gone = await result(drafts.getAllKeys());
  await Promise.all(gone.map((key) => result(drafts.delete(key))));
  new BroadcastChannel("rep3d-annotate-drafts").postMessage({ gone });
}"""
ODD_NAME = "img src=x onerror=alert(1)"
SETTINGS = {**CONF, "keys": "on", "preset": "tiny", "roi_size": "32,32,32", "iterations": "4", "max_minutes": "1"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server without a model that asks for keys: seven images, a label for the first."""
    studies = tmp_path_factory.mktemp("ward-7")
    for number in range(6):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_image(studies / f"{ODD_NAME}.nii.gz", 7)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def keys(server: AppServer) -> dict[str, str]:
    """Return a key of each role."""
    book = KeyBook(server.studies / "rep3d")
    names = {"admin": "Ada", "annotator": "Ben", "reviewer": "Rosa"}
    return {role: book.make(role, name)[1] for role, name in names.items()}


@pytest.fixture
def ada(browser: Browser, server: AppServer, keys: dict[str, str]) -> Iterator[Annotator]:
    with at_work(browser, server, keys["admin"]) as person:
        yield person


def _case(person: Annotator, image: str, key: str) -> dict[str, object]:
    answer = person.server.get(f"/rep3d/cases/{image}", headers={"Authorization": f"Bearer {key}"})
    return dict(answer.json())


def test_from_a_key_to_a_retrained_model(ada: Annotator, keys: dict[str, str]) -> None:
    page = ada.page
    assert "Fetch a sample first" in ada.why_not("submit")
    image = ada.next_sample()
    assert "no trained model" in ada.why_not("auto_segment")
    ada.paint(right=-30, down=-30)  # like no other stroke here: any case may come
    ada.kept()
    (drawn,) = ada.drafts(image)
    middle = tuple(n // 2 for n in SHAPE)
    assert drawn[middle] == LABELS["head"] and 0 < np.count_nonzero(drawn) < 400
    assert set(np.unique(np.nonzero(drawn)[2])) == {middle[2]}, "one slice was painted"
    ada.submitted(image)
    assert np.array_equal(stored(ada.server, image), drawn)
    assert ada.drafts(image) == []
    case = _case(ada, image, keys["admin"])
    assert (case["author"], case["state"], case["lease"]) == ("Ada", "submitted", None)
    ada.press("train")
    expect(page.locator("#training")).to_contain_text("step", timeout=SLOW)
    expect(page.locator("#training")).to_contain_text("v1", timeout=240_000)
    ada.press("auto_segment")
    ada.expect_said("Segmented by v1")
    page.click("text=Compare, earlier labels")
    page.select_option("#compare", label="the model's proposal")
    expect(page.locator("#compare option:checked")).to_have_text("the model's proposal")
    assert ada.drafts(image) == []  # nobody has drawn on it
    page.click("text=Versions")
    expect(page.locator("[data-version=v1]")).to_contain_text("in use")


def test_names_that_look_like_code_stay_text(ada: Annotator) -> None:
    ada.opened(ODD_NAME)
    assert ada.case == ODD_NAME and ada.page.locator("img[src=x]").count() == 0


def test_a_reload_in_the_middle(ada: Annotator) -> None:
    ada.opened("case_4").paint()
    ada.kept()
    (drawn,) = ada.drafts("case_4")
    ada.page.reload()
    row = ada.page.locator("[data-draft=case_4]")
    row.get_by_role("button", name="Continue").click()
    expect(ada.page.locator("#in-hand")).to_contain_text("unsent work", timeout=SLOW)
    expect(row).to_have_count(0, timeout=SLOW)
    ada.submitted("case_4")
    assert np.array_equal(stored(ada.server, "case_4"), drawn) and ada.drafts("case_4") == []


def test_unsent_work_is_thrown_away_only_after_a_question(ada: Annotator) -> None:
    ada.opened("case_5").paint()
    ada.next_sample()  # which keeps it
    assert ada.case != "case_5"
    row = ada.page.locator("[data-draft=case_5]")
    row.get_by_role("button", name="Throw away").click()
    ada.asked("Throw unsent work away")
    ada.page.keyboard.press("Escape")
    expect(row).to_have_count(1)
    row.get_by_role("button", name="Throw away").click()
    ada.answer("Throw it away")
    expect(row).to_have_count(0)
    assert ada.drafts("case_5") == []


def test_an_answer_that_is_lost_is_no_second_label(ada: Annotator, keys: dict[str, str]) -> None:
    def lost(route: Route) -> None:
        route.fetch()
        route.abort()

    def submissions() -> int:
        answer = ada.server.get("/rep3d/cases/case_5/history", headers={"Authorization": f"Bearer {keys['admin']}"})
        return len(answer.json())

    ada.opened("case_5").paint(down=30)
    before = submissions()  # the server may have given this case to an earlier test
    ada.page.route("**/rep3d/voxels/labels/**", lost)
    ada.submit()
    ada.expect_said("The server has not confirmed the label")
    ada.page.unroute("**/rep3d/voxels/labels/**")
    assert len(ada.drafts("case_5")) == 1
    ada.submitted("case_5")
    assert ada.drafts("case_5") == []
    assert submissions() == before + 1


def test_a_login_that_ends_in_the_middle(ada: Annotator) -> None:
    ada.opened("case_5").paint(right=-40)
    ada.page.context.clear_cookies()
    ada.submit()
    ada.expect_said("Not submitted: Your login has ended: log in again, then repeat this. Your work is kept here.")
    ada.expect_state("Logged out")
    assert ada.why_not("next_sample") == "Log in again first. Your edits are kept."
    (drawn,) = ada.drafts("case_5")
    with ada.page.context.expect_page() as opened:
        ada.page.click("text=Log in in a new tab")
    ada.log_in(opened.value)
    ada.page.evaluate("dispatchEvent(new Event('focus'))")  # Playwright's pages have it always
    ada.submitted("case_5")
    assert np.array_equal(stored(ada.server, "case_5"), drawn)


def test_two_tabs_on_one_case_know_of_each_other(ada: Annotator) -> None:
    ada.opened("case_3")
    other = another_tab(ada)
    other.open("case_3")
    other.asked("Open in another tab")
    ada.expect_said("opened in another tab")
    other.answer("Do not open it")
    expect(other.page.locator("#in-hand h2")).to_have_text("No case in hand")
    other.open("case_3")
    other.answer("Open it here, too")
    assert other.case == "case_3"
    other.check()


@pytest.mark.slow
def test_work_in_hand_is_not_offered_in_another_tab_until_it_is_out_of_hand(ada: Annotator) -> None:
    ada.opened("case_1").paint()
    ada.kept()
    (drawn,) = ada.drafts("case_1")
    other = another_tab(ada)
    row = other.page.locator("[data-draft=case_1]")
    expect(row).to_contain_text("open in another tab", timeout=SLOW)
    expect(row.locator("button")).to_have_count(0)
    other.page.evaluate(REMOVED)  # as by a tab to which this one could not answer
    ada.expect_said("so it was kept anew")
    assert np.array_equal(ada.drafts("case_1")[0], drawn)
    ada.opened("case_4")
    row.get_by_role("button", name="Continue").click()
    expect(other.page.locator("#in-hand")).to_contain_text("unsent work", timeout=SLOW)
    other.kept()
    (kept,) = ada.drafts("case_1")
    assert np.array_equal(kept, drawn)
    expect(ada.page.locator("[data-draft=case_1]")).to_contain_text("open in another tab", timeout=SLOW)
    other.page.close(run_before_unload=False)
    expect(ada.page.locator("[data-draft=case_1] button")).to_have_count(2, timeout=SLOW)
    other.check()


@pytest.mark.slow
def test_two_people_at_once(browser: Browser, server: AppServer, keys: dict[str, str], ada: Annotator) -> None:
    """A case is one person's; who submits in between is seen, and neither label is lost."""
    with at_work(browser, server, keys["annotator"]) as ben:
        assert "admins" in ben.why_not("train")
        ada.opened("case_2")
        ben.open("case_2")
        ben.expect_said("reserved for Ada")
        ada.paint()
        ada.submitted("case_2")
        first = stored(server, "case_2")
        ben.opened("case_2").paint(down=40)
        ada.paint(right=-50)
        expect(ada.page.locator("#lease .message")).to_contain_text("reserved for Ben", timeout=SLOW)
        ada.submit()
        ada.asked("Someone else works on this")
        ada.answer("Submit all the same")
        ada.expect_said("Submitted case_2.")
        second = stored(server, "case_2")
        assert not np.array_equal(first, second)
        ben.submit()
        ben.asked("Someone submitted a label meanwhile")
        ben.answer("Look at both first")
        ben.expect_said("shown as an outline")
        ben.page.click("text=Compare, earlier labels")
        expect(ben.page.locator("#compare option:checked")).to_have_text("label of Ada")
        ben.submit()
        ben.answer("Submit mine")
        ben.expect_said("Submitted case_2.")
        assert not np.array_equal(stored(server, "case_2"), second)
        header = {"Authorization": f"Bearer {keys['admin']}"}
        history = server.get("/rep3d/cases/case_2/history", headers=header).json()
        assert [entry["author"] for entry in history] == ["Ben", "Ada", "Ada"]
        assert "reviewers" in ben.why_not("review")
        ben.page.locator("#in-hand .history li").nth(1).get_by_role("button", name="Restore").click()
        expect(ben.page.locator("#in-hand")).to_contain_text("by Ada", timeout=SLOW)
        assert np.array_equal(stored(server, "case_2"), second)


def test_a_review_with_a_remark(browser: Browser, server: AppServer, keys: dict[str, str]) -> None:
    with at_work(browser, server, keys["reviewer"]) as rosa:
        rosa.opened("case_0")
        rosa.page.fill("[aria-label=Remark]", "the tail <b>ends</b> too early")
        rosa.press("review")
        expect(rosa.page.locator(".review")).to_contain_text("Reviewed by Rosa", timeout=SLOW)
        expect(rosa.page.locator(".review")).to_contain_text("the tail <b>ends</b> too early")
        rosa.press("review")
        expect(rosa.page.locator("[aria-label=Remark]")).to_be_visible(timeout=SLOW)


def test_images_that_cannot_be_read_are_told_and_the_case_in_hand_stays(ada: Annotator, keys: dict[str, str]) -> None:
    holes = np.full(SHAPE, 100, np.float32)
    holes[3, 4, 5] = np.nan
    write_nifti(ada.server.studies / "case_holes.nii.gz", holes)
    file = ada.server.studies / "case_3.nii.gz"
    content = file.read_bytes()
    ada.opened("case_3").paint()
    ada.kept()
    ada.open("case_holes")
    error = ada.page.locator("#flow .message.error")
    expect(error).to_contain_text("image case_holes has the value nan at voxel (3, 4, 5)", timeout=SLOW)
    assert ada.case == "case_3" and not _case(ada, "case_holes", keys["admin"])["lease"]
    ada.press("open_case")
    row = ada.page.locator("dialog [data-case=case_holes]")
    expect(row).to_contain_text("Unusable", timeout=SLOW)
    expect(row).to_contain_text("the value nan")
    expect(row.locator("button")).to_be_disabled()
    ada.page.keyboard.press("Escape")
    file.write_bytes(content[:300])  # now the one in hand, too
    try:
        ada.submit()
        expect(error).to_contain_text("Your work is kept here.", timeout=SLOW)
        assert len(ada.drafts("case_3")) == 1
    finally:
        file.write_bytes(content)


@pytest.mark.slow
def test_a_server_that_is_restarted_and_asks_for_the_key_again(
    browser: Browser, keys: dict[str, str], server: AppServer, tmp_path: Path
) -> None:
    """Last: the server of these tests is another one afterwards."""
    server.request("DELETE", "/rep3d/leases/case_3", headers={"Authorization": f"Bearer {keys['admin']}"})
    with at_work(browser, server, keys["annotator"]) as ben:
        ben.opened("case_3").paint()
        server.stop()
        ben.paint(down=50)
        ben.expect_state("Server not reachable, trying again")
        ben.kept()
        assert "asked again by itself" in ben.why_not("submit")
        with AppServer(server.studies, tmp_path, SETTINGS, port=server.port) as again:
            ben.expect_state("Logged out")
            with ben.page.context.expect_page() as opened:
                ben.page.click("text=Log in in a new tab")
            ben.log_in(opened.value)
            ben.page.bring_to_front()
            ben.expect_state("Ready")
            (drawn,) = ben.drafts("case_3")
            ben.submitted("case_3")
            assert np.array_equal(stored(again, "case_3"), drawn)
