"""What goes wrong is said in words on the page, and costs nothing: no viewer, no card, no storage, damage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Browser, Route, expect

from tests.app.annotate.annotator import SLOW, Annotator, at_work, stored
from tests.app.browser import watched
from tests.app.data import AFFINE, CONF, LABELS, SHAPE, publish_small_model, write_image, write_nifti
from tests.app.server import AppServer
from tests.voxel_bodies import VOXELS, packed

NO_WEBGL = """const real = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === "webgl2" ? null : real.call(this, kind, ...more);
};"""
NO_STORAGE = "Object.defineProperty(window, 'indexedDB', { value: undefined });"


@pytest.fixture
def anna(browser: Browser, server: AppServer) -> Iterator[Annotator]:
    with at_work(browser, server) as person:
        yield person


@pytest.mark.parametrize(
    ("trouble", "words"),
    [("viewer", "python scripts/install_viewer.py"), ("webgl", "WebGL 2")],
)
def test_what_is_missing_is_told_in_words(browser: Browser, server: AppServer, trouble: str, words: str) -> None:
    with watched(browser) as seen:
        if trouble == "viewer":
            seen.page.route("**/niivue.js", lambda route: route.fulfill(status=404))
        else:
            seen.page.add_init_script(NO_WEBGL)
        seen.page.goto(f"{server.url}/rep3d/annotate/")
        expect(seen.page.locator("#stage .obstacle")).to_contain_text(words, timeout=SLOW)
        assert seen.page.locator("#flow .home").is_visible()


def test_a_browser_that_keeps_nothing_is_told_and_edits_are_lost_only_after_a_question(
    browser: Browser, server: AppServer
) -> None:
    with watched(browser) as seen:
        seen.page.add_init_script(NO_STORAGE)
        person = Annotator(seen, server).arrive().opened("case_1")
        person.paint()
        person.expect_said("Edits are only in this window: this browser's settings forbid")
        expect(seen.page.locator("#kept")).to_have_text("Edits are only in this window: submit soon.")
        person.open("case_2")
        person.asked("Edits cannot be kept")
        seen.page.keyboard.press("Escape")
        expect(seen.page.locator("#flow .activity")).to_be_hidden(timeout=SLOW)
        assert person.case == "case_1"
        person.open("case_2")
        person.answer("Go on and lose it")
        expect(seen.page.locator("#in-hand .name")).to_have_text("case_2", timeout=SLOW)


def test_a_full_disk_is_told_keeping_is_tried_again_and_submit_works(browser: Browser, server: AppServer) -> None:
    with watched(browser) as seen:
        seen.page.clock.install()
        person = Annotator(seen, server).arrive().opened("case_4")
        session = seen.page.context.new_cdp_session(seen.page)
        session.send("Storage.overrideQuotaForOrigin", {"origin": server.url, "quotaSize": 1})
        person.paint()
        person.expect_said("Edits are only in this window: the browser's storage is full. Submit works all the same")
        expect(seen.page.locator("#kept")).to_have_text("Edits are only in this window: submit soon.")
        person.submitted("case_4")
        assert stored(server, "case_4").any() and person.drafts("case_4") == []
        person.paint(down=30)
        expect(seen.page.locator("#kept")).to_have_text("Edits are only in this window: submit soon.")
        session.send("Storage.overrideQuotaForOrigin", {"origin": server.url})
        seen.page.clock.fast_forward(12_000)
        person.expect_said("Edits are kept in this browser again.")
        assert len(person.drafts("case_4")) == 1
        assert server.request("DELETE", "/datastore/label", params={"id": "case_4", "tag": "final"}).ok


@pytest.mark.parametrize("what", ["version", pytest.param("id", marks=pytest.mark.slow)])
def test_another_version_of_the_server_or_another_folder_asks_for_a_reload(anna: Annotator, what: str) -> None:
    def newer(route: Route) -> None:
        found = route.fetch().json()
        assert found["server"][what]
        found["server"][what] = "9.9"
        route.fulfill(json=found)

    anna.opened("case_1").paint()
    anna.page.route("**/rep3d/status", newer)
    anna.expect_state("Reload the page")
    assert "edits are kept" in anna.why_not("submit")
    assert anna.page.get_by_role("button", name="Reload the page").is_visible()
    anna.kept()


def test_work_is_never_laid_on_another_image_of_the_same_name(anna: Annotator) -> None:
    file = anna.server.studies / "case_1.nii.gz"
    before = file.read_bytes()
    anna.opened("case_1").paint()
    try:
        write_image(file, 9)
        anna.submit()
        anna.expect_said("case_1 was changed or replaced after this label was begun, so nothing was stored")
        anna.open("case_2")
        row = anna.page.locator("[data-draft=case_1]")
        row.get_by_role("button", name="Continue").click()
        anna.expect_said("case_1 is another image now than the one that this was drawn on")
        assert len(anna.drafts("case_1")) == 1
    finally:
        file.write_bytes(before)
    row.get_by_role("button", name="Continue").click()  # the same voxels in another file
    expect(row).to_have_count(0, timeout=SLOW)
    anna.submitted("case_1")
    assert stored(anna.server, "case_1").any()
    assert anna.server.request("DELETE", "/datastore/label", params={"id": "case_1", "tag": "final"}).ok


def test_a_label_that_comes_between_the_check_and_the_submission_may_be_taken_and_mine_is_not_lost(
    anna: Annotator,
) -> None:
    theirs = np.full(SHAPE, LABELS["tail"], np.uint8)

    def outrun(route: Route) -> None:
        body = packed({"label": theirs}, AFFINE, {"client_id": "Ben", "override_lease": True})
        assert anna.server.put("/rep3d/voxels/labels/case_2", data=body, headers=VOXELS).ok
        route.continue_()

    anna.opened("case_2").paint()
    anna.page.route("**/rep3d/voxels/labels/**", outrun, times=1)
    anna.submit()
    anna.asked("Someone submitted a label meanwhile")
    assert np.array_equal(stored(anna.server, "case_2"), theirs)
    (mine,) = anna.drafts("case_2")
    anna.answer("Take theirs")
    anna.expect_said("The other label is in hand. Yours is kept as unsent work, and one Undo away.")
    facts = anna.page.locator("#in-hand .facts")
    expect(facts).to_contain_text("label of Ben")
    expect(facts).to_contain_text("by Ben, today")
    expect(anna.page.locator("[data-draft=case_2] button")).to_have_count(2)
    expect(anna.page.locator("#kept")).to_be_empty()
    anna.page.keyboard.press("Control+z")
    anna.submitted("case_2")  # nothing is asked: theirs has been seen
    assert np.array_equal(stored(anna.server, "case_2"), mine)
    assert len(anna.server.get("/rep3d/cases/case_2/history").json()) == 2
    assert anna.drafts("case_2") == []
    assert anna.server.request("DELETE", "/datastore/label", params={"id": "case_2", "tag": "final"}).ok


def test_voxels_that_were_damaged_on_their_way_are_not_shown(anna: Annotator) -> None:
    def damaged(route: Route) -> None:
        answer = route.fetch()
        body = bytearray(answer.body())
        body[-1] ^= 1
        headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
        route.fulfill(status=200, headers=headers, body=bytes(body))

    anna.page.route("**/rep3d/voxels/images/**", damaged)
    anna.open("case_2")
    anna.expect_said("damaged on their way")
    expect(anna.page.locator("#in-hand h2")).to_have_text("No case in hand")


def test_an_image_beyond_the_card_is_refused_before_it_is_fetched(anna: Annotator) -> None:
    def large(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["image"]["shape"] = [40000, 512, 400]
        route.fulfill(json=found)

    anna.page.route("**/rep3d/cases/case_3", large)
    anna.open("case_3")
    refused = re.compile(
        "has 40000 x 512 x 400 voxels; .* takes up to [0-9]+ along an axis.*in 3D Slicer.*A coarser view"
    )
    expect(anna.page.locator("#flow .message.error")).to_have_text(refused, timeout=SLOW)
    expect(anna.page.locator("#in-hand h2")).to_have_text("No case in hand")
    assert not any("voxels/images/case_3" in url for url in anna.seen.requests)


def test_a_segmentation_that_is_cancelled_ends_at_the_server_too(anna: Annotator) -> None:
    anna.opened("case_4").paint()
    anna.press("auto_segment")
    anna.press("cancel")
    anna.expect_said("Cancelled.")
    for _ in range(100):
        if not anna.server.get("/rep3d/requests").json():
            break
        anna.page.wait_for_timeout(100)
    else:
        raise AssertionError("it still runs")
    anna.kept()


def test_a_reservation_is_renewed_while_someone_works(browser: Browser, server: AppServer) -> None:
    with watched(browser) as seen:
        seen.page.clock.install()
        person = Annotator(seen, server).arrive().opened("case_2")
        before = _lease(server, "case_2")
        person.paint()
        with seen.page.expect_response(re.compile("/rep3d/leases/case_2")):
            seen.page.clock.fast_forward(330_000)
        assert _lease(server, "case_2") > before


def _lease(server: AppServer, image: str) -> str:
    """Return until when a case is reserved."""
    return str(next(lease["until"] for lease in server.get("/rep3d/leases").json() if lease["image"] == image))


def test_a_small_laptop_has_all_of_it(anna: Annotator) -> None:
    anna.opened("case_1")
    stage = anna.fits(1366, 768)
    assert stage["height"] > 768 / 2 and stage["width"] > 1366 / 2
    anna.paint()
    anna.kept()


def test_of_several_channels_the_first_is_shown_and_another_can_be(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> None:
    studies: Path = tmp_path_factory.mktemp("two")
    voxels = np.asarray(nib.load(write_image(studies / "case_1.nii.gz")).dataobj)
    write_nifti(studies / "case_1.nii.gz", np.stack([voxels, 300 - voxels], -1))
    publish_small_model(studies, channels=("T1", "T2"))
    with (
        AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as server,
        at_work(browser, server) as person,
    ):
        person.opened("case_1").paint()
        person.kept()
        before = person.page.locator("#stage").screenshot()
        person.page.select_option("#channel", label="T2")
        expect(person.page.locator("#flow .activity")).to_be_hidden(timeout=SLOW)
        expect(person.page.locator("#channel")).to_have_value("T2")
        assert person.page.locator("#stage").screenshot() != before
        (drawn,) = person.drafts("case_1")
        person.submitted("case_1")
        label = stored(server, "case_1")
        assert np.array_equal(label, drawn) and label.any()


def test_what_is_undone_is_no_unsent_work_until_it_is_done_again(anna: Annotator) -> None:
    anna.opened("case_3").paint()
    anna.kept()
    (drawn,) = anna.drafts("case_3")
    anna.page.keyboard.press("Control+z")
    expect(anna.page.locator("#kept")).to_be_empty()
    _wait(lambda: anna.drafts("case_3") == [])
    anna.page.keyboard.press("Control+y")
    anna.kept()
    assert np.array_equal(anna.drafts("case_3")[0], drawn)


def test_a_draft_with_the_very_voxels_that_were_submitted_goes(anna: Annotator) -> None:
    write_image(anna.server.studies / "case_twice.nii.gz", 3)
    anna.opened("case_twice").paint()
    anna.kept()
    (drawn,) = anna.drafts("case_twice")
    anna.press("auto_segment")
    anna.expect_said("Segmented by")
    assert len(anna.drafts("case_twice")) == 1
    anna.page.keyboard.press("Control+z")
    anna.submitted("case_twice")
    assert np.array_equal(stored(anna.server, "case_twice"), drawn)
    assert anna.drafts("case_twice") == []


def test_voxels_that_no_label_stands_for_are_told_and_cleared_only_after_a_question(anna: Annotator) -> None:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[2:5, 3:6, 4:7], voxels[9, 9, 9] = 7, LABELS["head"]
    write_image(anna.server.studies / "case_strange.nii.gz", 4)
    file = write_nifti(anna.server.studies / "labels" / "final" / "case_strange.nii.gz", voxels)
    anna.opened("case_strange")
    anna.expect_said("the value 7, which no label of this model stands for")
    anna.submit()
    anna.asked("A part that no label stands for")
    anna.answer("Go back")
    anna.expect_said("Nothing was sent.")
    assert np.array_equal(nib.load(file).dataobj, voxels)
    anna.submit()
    anna.answer("Clear them and submit")
    anna.expect_said("Submitted case_strange.")
    assert np.array_equal(stored(anna.server, "case_strange"), np.where(voxels == 7, 0, voxels))


def test_what_failed_for_want_of_the_server_is_said_no_longer_when_it_is_back(anna: Annotator) -> None:
    anna.opened("case_4").paint()
    anna.page.route("**/rep3d/**", lambda route: route.abort())
    anna.submit()
    anna.expect_said("Not submitted: The server cannot be reached.")
    expect(anna.page.locator("#flow .state")).to_have_text("Server not reachable, trying again", timeout=5_000)
    anna.page.unroute("**/rep3d/**")
    anna.expect_state("Ready")
    expect(anna.page.locator("#flow .message")).to_be_hidden()


def _wait(done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    for _ in range(100):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError("it never was")


@pytest.mark.timed
def test_edits_are_kept_within_two_seconds(anna: Annotator) -> None:
    anna.opened("case_3").paint()
    rested = time.monotonic()
    anna.kept()
    assert time.monotonic() - rested < 2.0
