"""The viewer, its tools and its table of labels, used by mouse and keys in Chromium on a real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from urllib.parse import urlsplit

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.app.annotate.stage_page import StagePage
from tests.app.browser import watched
from tests.app.data import CONF
from tests.app.server import AppServer

SHAPE = (40, 36, 24)
AFFINE = np.diag([-1.0, 1.0, 1.5, 1.0])
ORGAN = np.s_[12:28, 10:26, 6:18]


@pytest.fixture(scope="module")
def found(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagePage]:
    """Yield the stage on a server with one image: a bright block in the dark."""
    studies = tmp_path_factory.mktemp("viewed")
    values = np.full(SHAPE, 20, np.int16)
    values[ORGAN] = 200
    nib.save(nib.Nifti1Image(values, AFFINE), studies / "block.nii.gz")
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as server, watched(browser) as seen:
        yield StagePage(seen.page, server)
        assert [line for line in seen.console if "GPU stall" not in line] == []
        assert {urlsplit(url).netloc for url in seen.requests if not url.startswith(("data:", "blob:"))} == {
            urlsplit(server.url).netloc
        }


@pytest.fixture
def stage(found: StagePage) -> StagePage:
    """Return the stage with the image opened anew, and nothing labelled."""
    found.open("block")
    found.set(tool="brush", size=6, ball=False, value=1, layout="three", outline=0, opacity=0.5, limited=False)
    found.look_at((20, 18, 12))
    return found


def _middle(stage: StagePage, plane: str = "axial") -> tuple[float, float]:
    left, top, width, height = stage.pane(plane)
    return left + width / 2, top + height / 2


def _volume(stage: StagePage, value: int) -> float:
    return float(stage.page.locator(f"tr[data-value='{value}'] .n").inner_text())


def _box(outer: tuple[slice, ...], value: int = 1) -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[outer] = value
    return label


def test_painting_is_measured_undone_and_done_again(stage: StagePage) -> None:
    page = stage.page
    x, y = _middle(stage)
    untouched = page.evaluate("theStage.revision")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    painted = stage.label(SHAPE)
    assert _volume(stage, 1) == pytest.approx(painted.sum() * 1.5 / 1000, abs=0.002), "the volume follows the brush"
    page.mouse.up()
    assert np.flatnonzero(painted.any((0, 1))).tolist() == [12]
    stage.set(outline=1)
    page.mouse.click(x - 40, y - 40)
    stage.settle()
    drawn = {plane: stage.picture(plane) for plane in ("axial", "coronal", "sagittal")}
    page.evaluate("theStage.screen.draw()")
    stage.settle()
    for plane, picture in drawn.items():
        assert np.array_equal(picture, stage.picture(plane)), "only what changed was drawn: nothing else had to be"
    page.keyboard.press("Control+z")
    assert np.array_equal(stage.label(SHAPE), painted)
    page.keyboard.press("3")  # there are two labels: nothing
    page.keyboard.press("2")
    page.keyboard.press("]")
    page.mouse.click(x - 120, y)
    both, drawn_both = stage.label(SHAPE), page.evaluate("theStage.revision")
    assert np.array_equal(both == 1, painted == 1) and (both == 3).sum() > 0
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert not stage.label(SHAPE).any() and page.evaluate("theStage.revision") == untouched
    assert page.get_by_role("button", name="Undo").is_disabled()
    page.keyboard.press("Control+Shift+Z")
    page.keyboard.press("Control+y")
    assert np.array_equal(stage.label(SHAPE), both)
    assert page.evaluate("theStage.revision") == drawn_both != untouched


def test_a_stroke_that_another_label_interrupts_ends_there_and_changes_nothing_of_it(stage: StagePage) -> None:
    page = stage.page
    x, y = _middle(stage)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y)
    drawn = stage.label(SHAPE)
    page.evaluate("theStage.replace(new Uint8Array(40 * 36 * 24), 'Auto-segment')")
    page.mouse.move(x + 60, y)
    page.mouse.up()
    assert drawn.any() and not stage.label(SHAPE).any()
    page.keyboard.press("Control+z")
    assert np.array_equal(stage.label(SHAPE), drawn)
    page.mouse.down()
    stage.open("block")
    page.mouse.move(x, y)
    assert not stage.label(SHAPE).any() and page.get_by_role("button", name="Undo").is_disabled()
    page.mouse.up()


def test_a_locked_label_and_grey_values_beyond_the_limits_are_protected(stage: StagePage) -> None:
    page = stage.page
    stage.open("block", _box(np.s_[18:22, 16:20, 12:13], 3))
    stage.look_at((20, 18, 12))
    page.get_by_role("button", name="Lock tail").click()
    stage.set(size=60, limited=True, limits=[100, 300])
    x, y = _middle(stage)
    page.mouse.click(x, y)
    painted = stage.label(SHAPE)
    expected = _box(np.s_[12:28, 10:26, 12:13])
    expected[18:22, 16:20, 12] = 3
    assert np.array_equal(painted, expected)
    page.keyboard.press("e")
    page.mouse.click(x, y)
    assert np.array_equal(stage.label(SHAPE), _box(np.s_[18:22, 16:20, 12:13], 3))
    page.get_by_role("button", name="Unlock tail").click()
    page.mouse.click(x, y)
    assert not stage.label(SHAPE).any()


def test_a_value_that_is_not_in_the_table_is_seen_and_painted_over_only_when_unlocked(stage: StagePage) -> None:
    page = stage.page
    strange = _box(np.s_[18:22, 16:20, 12:13], 7)
    stage.open("block", strange)
    stage.look_at((20, 18, 12))
    stage.set(crosshair=False, opacity=1)
    stage.settle()
    drawn = stage.picture("axial")
    assert (np.abs(drawn.astype(int) - 165).max(-1) < 3).mean() > 0.005, "it is drawn in grey"
    row = page.locator("tr[data-value='7']")
    expect(row).to_contain_text("7 (not in the table)")
    expect(row.locator("[type=radio]")).to_have_count(0)
    x, y = _middle(stage)
    stage.set(size=60)
    page.mouse.click(x, y)
    assert np.array_equal(stage.label(SHAPE) == 7, strange == 7) and (stage.label(SHAPE) == 1).any()
    page.keyboard.press("Shift+G")
    assert np.array_equal(stage.label(SHAPE) == 7, strange == 7), "it does not grow"
    page.keyboard.press("e")
    page.get_by_role("button", name="Unlock 7").click()
    page.mouse.click(x, y)
    assert not (stage.label(SHAPE) == 7).any()
    expect(row).to_have_count(0)
    page.keyboard.press("Control+z")
    expect(row.get_by_role("button", name="Lock 7")).to_be_visible()
    stage.open("block", strange)
    expect(row.get_by_role("button", name="Unlock 7")).to_be_visible()


def test_contour_fill_and_what_is_done_with_a_whole_label(stage: StagePage) -> None:
    page = stage.page
    x, y = _middle(stage)
    page.keyboard.press("f")
    page.mouse.click(x, y)
    assert np.array_equal(stage.label(SHAPE), _box(np.s_[12:28, 10:26, 12:13]))
    page.keyboard.press("Control+z")
    page.keyboard.press("Shift+F")
    page.mouse.click(x, y)
    assert np.array_equal(stage.label(SHAPE), _box(ORGAN)), "through all slices"
    page.keyboard.press("Shift+F")
    page.keyboard.press("Control+z")
    # A contour in two slices, and what lies between.
    page.keyboard.press("c")
    for slice_index in (8, 16):
        stage.look_at((20, 18, slice_index))
        page.mouse.move(x - 100, y - 100)
        page.mouse.down()
        for dx, dy in ((100, -100), (100, 100), (-100, 100)):
            page.mouse.move(x + dx, y + dy)
        page.mouse.up()
    drawn = stage.label(SHAPE)
    assert np.flatnonzero(drawn.any((0, 1))).tolist() == [8, 16] and np.array_equal(drawn[..., 8], drawn[..., 16])
    square = np.argwhere(drawn[..., 8])
    assert len(square) == np.prod(np.ptp(square, axis=0) + 1) and drawn[20, 18, 8] == 1
    page.keyboard.press("Shift+B")
    assert np.array_equal(
        stage.label(SHAPE), drawn[..., 8:9].repeat(SHAPE[2], 2) * (abs(np.arange(SHAPE[2]) - 12) <= 4)
    )
    page.keyboard.press("Control+z")
    # From a dab in the block, it grows to the block.
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    page.keyboard.press("b")
    stage.look_at((20, 18, 12))
    page.mouse.click(x, y)
    page.keyboard.press("Shift+G")
    assert np.array_equal(stage.label(SHAPE), _box(ORGAN))
    # A spot beside it is not its largest part.
    stage.look_at((35, 31, 12))
    page.evaluate(
        "theStage.map.begin('spot'); theStage.map.put(35 + 40 * (31 + 36 * 12), 1); theStage.edited(theStage.map.end())"
    )
    page.keyboard.press("Shift+K")
    assert np.array_equal(stage.label(SHAPE), _box(ORGAN))


def test_wheel_zoom_pan_and_window(stage: StagePage) -> None:
    page = stage.page
    x, y = _middle(stage)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -120)
    stage.settle()
    assert page.evaluate("theStage.screen.sliceOf('axial')") == 13
    page.keyboard.press("ArrowDown")
    page.keyboard.press("PageDown")
    assert page.evaluate("theStage.screen.sliceOf('axial')") == 2
    page.keyboard.press("PageUp")
    # Zoomed and moved, a click still paints what is under the mouse.
    page.keyboard.down("Control")
    page.mouse.wheel(0, -150)
    page.keyboard.up("Control")
    page.mouse.down(button="middle")
    page.mouse.move(x - 70, y + 40, steps=3)
    page.mouse.up(button="middle")
    edge = np.argwhere(stage.picture("axial")[..., 0] > 150).max(0)  # the block's corner at the patient's left and back
    left, top, _, _ = stage.pane("axial")
    stage.set(size=0)
    page.mouse.click(left + float(edge[1]) - 3, top + float(edge[0]) - 3)
    (voxel,) = np.argwhere(stage.label(SHAPE))
    assert voxel.tolist() == [27, 10, 12]
    # To the right is more contrast, upwards brighter.
    before = page.evaluate("theStage.settings.get('window')")
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x - 100, y - 50, steps=3)
    page.mouse.up(button="right")
    low, width = page.evaluate("theStage.settings.get('window')")
    assert width < before[1] and low + width / 2 < before[0] + before[1] / 2
    expect(page.get_by_label("Window", exact=True)).to_have_value("By hand")
    page.keyboard.press("p")
    assert page.evaluate("theStage.settings.get('window')") == before
    page.keyboard.press("r")
    page.keyboard.press("b")
    page.mouse.move(x + 5, y)
    expect(page.locator(".ring")).to_be_visible()
    page.keyboard.press("x")
    assert page.evaluate("theStage.screen.shown") == ["axial"]
    expect(page.locator(".ring")).to_be_hidden()


def test_ct_has_windows_in_hounsfield_units(stage: StagePage) -> None:
    stage.open("block", modality="CT")
    names = stage.page.get_by_label("Window", exact=True).locator("option:not([hidden])").all_inner_texts()
    assert names == ["Soft tissue", "Lung", "Bone", "All"]
    assert stage.page.evaluate("theStage.settings.get('window')") == [-160, 400]


def test_what_is_shown_of_labels_uncertainty_and_comparison(stage: StagePage) -> None:
    page = stage.page
    stage.open("block", _box(np.s_[18:24, 16:22, 10:14]))
    stage.look_at((20, 18, 12))
    stage.set(crosshair=False, opacity=1)
    stage.settle()
    red = [220, 60, 60]
    count = lambda colour: int((np.abs(stage.picture("axial").astype(int) - colour).max(-1) < 3).sum())  # noqa: E731
    filled = count(red)
    assert filled > 1000
    page.keyboard.press("k")
    page.keyboard.press("k")
    stage.settle()
    assert 0 < count(red) < filled / 5, "the outline alone"
    page.keyboard.press("h")
    stage.settle()
    assert count(red) == 0
    page.keyboard.press("h")
    stage.set(outline=0)
    plain = stage.picture("axial")
    page.evaluate(
        "theStage.compare('the proposal', theStage.label().map((value, at) => (at % 40 > 25 && at % 40 < 30 ? 3 : 0)))"
    )
    stage.settle()
    assert (stage.picture("axial") != plain).any()
    page.keyboard.press("m")
    stage.settle()
    assert np.array_equal(stage.picture("axial"), plain)
    page.evaluate("theStage.compare('the proposal', null)")
    page.evaluate(
        """() => {
          const unsure = new Float32Array(40 * 36 * 24);
          for (let at = 0; at < unsure.length; at++) {
            const i = at % 40, j = Math.floor(at / 40) % 36, k = Math.floor(at / 1440);
            if (i > 25 && i < 35 && j > 25 && k > 16) unsure[at] = 0.9;
          }
          unsure[33 + 40 * (30 + 36 * 20)] = 1;
          return theStage.showUncertainty(unsure);
        }"""
    )
    page.keyboard.press("u")
    assert page.evaluate("theStage.grid.toOwn(theStage.screen.cursor).map(Math.round)") == [33, 30, 20]
    stage.settle()
    orange = stage.picture("axial")
    assert ((orange[..., 0] > 150) & (orange[..., 2] < 60)).any()
    expect(page.locator("#tools .message")).to_contain_text("Uncertain place 1 of")


def test_a_card_that_stops_drawing_costs_no_edit_and_draws_all_again(stage: StagePage) -> None:
    page = stage.page
    page.evaluate("theStage.compare('another', theStage.label().fill(3, 0, 9000))")
    x, y = _middle(stage)
    page.mouse.click(x, y)
    drawn, before = stage.label(SHAPE), stage.picture("axial")
    card = "theStage.screen.slices.gl.getExtension('WEBGL_lose_context')"
    note = page.locator(".note")
    page.evaluate(f"{card}.loseContext()")
    expect(note).to_contain_text("The graphics card stopped drawing. Your edits are safe")
    page.mouse.click(x + 30, y)  # nothing is painted that is not seen
    note.get_by_role("button", name="Draw again").click()
    expect(note).to_be_hidden()
    assert np.array_equal(stage.label(SHAPE), drawn)  # which waits for the picture
    assert np.array_equal(stage.picture("axial"), before)
    page.evaluate(f"window.card = {card}; card.loseContext()")
    expect(note).to_be_visible()
    page.evaluate("card.restoreContext()")
    expect(note).to_be_hidden()
    assert np.array_equal(stage.label(SHAPE), drawn) and np.array_equal(stage.picture("axial"), before)


def test_the_3d_view_is_there_when_asked_for(stage: StagePage) -> None:
    page = stage.page
    stage.open("block", _box(ORGAN))
    assert page.locator(".solid").count() == 0
    before = page.viewport_size
    page.set_viewport_size({"width": 1260, "height": 660})
    page.keyboard.press("Shift+X")
    canvas = page.locator(".solid canvas")
    expect(canvas).to_be_visible()
    for _ in range(100):
        page.wait_for_timeout(100)
        if page.evaluate("theStage.solid.nv?.drawBitmap?.some((value) => value === 1)"):
            break
    else:
        raise AssertionError("the label is not in the 3D view")
    stage.settle()
    whole = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGBA"))
    assert (whole[..., 3] == 255).all(), "the browser left out none of the slices beside it"
    page.set_viewport_size(before)
    page.keyboard.press("Shift+X")
    expect(canvas).to_have_count(0)


def test_every_key_does_something_and_is_on_the_sheet(stage: StagePage) -> None:
    page = stage.page
    keys = page.evaluate("import('./tools/shortcuts.js').then(({ KEYS }) => KEYS)")
    assert len({row["key"] for row in keys}) == len(keys)
    commands = set(page.evaluate("Object.keys(theStage.commands)"))
    assert {row["name"] for row in keys if row["whose"] == "stage"} == commands
    page.evaluate("window.heard = []; theStage.addEventListener('command', ({ detail }) => heard.push(detail.name))")
    page.keyboard.press("Control+Enter")
    page.keyboard.press("Shift+A")
    page.get_by_label("Lowest grey value").focus()
    page.keyboard.press("Shift+N")  # is typed, not obeyed
    assert page.evaluate("heard") == ["submit", "auto_segment"]
    page.locator(".over").focus()
    page.keyboard.press("?")
    sheet = page.get_by_role("dialog")
    expect(sheet).to_be_visible()
    assert sheet.evaluate("(one) => one.scrollTop") == 0
    assert all(row["words"] in sheet.inner_text() for row in keys)
    page.keyboard.press("Escape")
    expect(sheet).to_have_count(0)


def test_what_stands_in_the_way_is_said_in_words(stage: StagePage) -> None:
    page = stage.page
    assert page.evaluate("Stage.obstacle([512, 512, 400])") == ""
    assert "up to" in page.evaluate("Stage.obstacle([512, 512, 99999])")
    assert "WebGL 2" in page.evaluate(
        """() => {
          const get = HTMLCanvasElement.prototype.getContext;
          HTMLCanvasElement.prototype.getContext = () => null;
          try { return Stage.obstacle(); } finally { HTMLCanvasElement.prototype.getContext = get; }
        }"""
    )
    page.evaluate("theStage.pace(1200)")
    expect(page.locator("#tools .message")).to_contain_text("1.2 s")
    page.evaluate("theStage.pace(20)")
    expect(page.locator("#tools .message")).to_be_empty()
    assert page.evaluate(
        "try { theStage.replace(new Uint16Array(3), 'x') } catch (error) { error.message }"
    ).startswith("The label has values")
