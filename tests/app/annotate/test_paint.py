"""What the page does with voxels, function by function, on small arrays, with answers worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.app.server import APP_DIR

ADDRESS = "http://paint.test/"
FOLDER = APP_DIR / "annotate" / "paint"


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """Yield a page whose site is the folder of these functions; no server is needed."""
    found = browser.new_page()
    types = {".js": "text/javascript", ".html": "text/html"}

    def answer(route: Any) -> None:
        name = route.request.url.removeprefix(ADDRESS) or "index.html"
        body = "<!doctype html>" if name == "index.html" else (FOLDER / name).read_text(encoding="utf-8")
        route.fulfill(body=body, content_type=types[name[name.rindex(".") :]])

    found.route(f"{ADDRESS}**", answer)
    found.goto(ADDRESS)
    yield found
    found.close()


def _box(page: Page, module: str, work: str, labels: np.ndarray, options: dict[str, Any], **more: Any) -> np.ndarray:
    """Return what a function of a box makes of labels (I, J, K)."""
    box = {"shape": labels.shape, "spacing": [1, 1, 1], "labels": labels.ravel(order="F").tolist(), **more}
    flat = page.evaluate(
        """async ([module, work, box, options]) => {
          box.labels = Uint8Array.from(box.labels);
          box.grey &&= Float32Array.from(box.grey);
          return Array.from((await import(`./${module}.js`))[work](box, options));
        }""",
        [module, work, box, options],
    )
    return np.array(flat).reshape(labels.shape, order="F")


def _labels(*slices: str) -> np.ndarray:
    """Return (I, J, K) labels from slices of rows of digits: i runs along a row, j down."""
    return np.array([[[int(value) for value in row] for row in one.split()] for one in slices], np.uint8).transpose(
        2, 1, 0
    )


# The label in hand ----------------------------------------------------------------------------------------------------

_MAP = """async () => {
  const { LabelMap } = await import("./labelmap.js");
  const map = new LabelMap([4, 3, 2]), states = [Array.from(map.voxels)];
  const paint = (words, value, indices) => {
    map.begin(words);
    for (const index of indices) map.put(index, value);
    map.end();
    states.push(Array.from(map.voxels));
  };
"""


def test_at_least_forty_steps_are_undone_and_done_again(page: Page) -> None:
    found = page.evaluate(
        _MAP
        + """
  for (let n = 0; n < 40; n++) paint(`step ${n}`, 1 + n % 3, [n % 24, (n * 7) % 24, (n * 7 + 1) % 24]);
  map.replace(new Uint8Array(24).fill(9), "replaced");
  states.push(Array.from(map.voxels));
  const back = [], again = [], words = [];
  for (let n = 0; n < 41; n++) { words.push(map.undo()); back.push(Array.from(map.voxels)); }
  const nothing = map.undo(), counts = Array.from(map.counts);
  for (let n = 0; n < 41; n++) { map.redo(); again.push(Array.from(map.voxels)); }
  return { states, back, again, words, nothing, counts, revision: map.revision };
}"""
    )
    assert found["back"] == found["states"][-2::-1] and found["again"] == found["states"][1:]
    assert found["words"][0] == "replaced" and found["words"][-1] == "step 0" and found["nothing"] == ""
    assert found["counts"][0] == 24 and sum(found["counts"]) == 24
    assert found["revision"] == 3 * 41


def test_what_is_locked_or_beyond_the_limits_is_not_painted_over(page: Page) -> None:
    found = page.evaluate(
        _MAP
        + """
  paint("two", 2, [0, 1]);
  map.locked[2] = 1;
  map.limits = { image: Float32Array.from({ length: 24 }, (_, at) => (at === 5 ? NaN : at)), low: 1, high: 7 };
  paint("one", 1, [0, 1, 2, 5, 7, 8]);
  const painted = Array.from(map.voxels), box = map.takeDirty(), none = map.takeDirty();
  map.undo();
  map.replace(new Uint8Array(24), "nothing");
  return { painted, box, none, empty: map.counts[0] };
}"""
    )
    expected = np.zeros(24)
    expected[[0, 1]], expected[[2, 7]] = 2, 1
    assert found["painted"] == expected.tolist()
    assert found["box"] == [0, 0, 0, 3, 1, 0] and found["none"] is None
    assert found["empty"] == 24, "another label map replaces what is locked as well"


def test_the_steps_keep_within_their_memory(page: Page) -> None:
    kept = page.evaluate(
        """async () => {
          const { LabelMap, MOST_BYTES } = await import("./labelmap.js");
          const map = new LabelMap([200, 200, 100]), noise = [new Uint8Array(4e6), new Uint8Array(4e6)];
          noise.forEach((labels, n) => labels.forEach((_, at) => { labels[at] = (at + n) % 2; }));
          for (let n = 0; n < 10; n++) map.replace(noise[n % 2], `noise ${n}`);
          const bytes = map.done.reduce((sum, step) => sum + step.bytes, 0);
          return { bytes, most: MOST_BYTES, last: map.done.at(-1).words, count: map.done.length };
        }"""
    )
    assert 0.5 * kept["most"] < kept["bytes"] <= kept["most"] and kept["last"] == "noise 9" and kept["count"] < 10


# The grid -------------------------------------------------------------------------------------------------------------


def test_shown_places_are_turned_into_own_ones_and_back(page: Page) -> None:
    affine = [[0, 0, -2, 9], [0, 3, 0, 9], [1, 0, 0, 9], [0, 0, 0, 1]]  # own axes run to S, A and L
    found = page.evaluate(
        """async (affine) => {
          const { Grid } = await import("./grid.js");
          const grid = new Grid([4, 5, 6], affine);
          return { order: grid.order, flipped: grid.flipped, shown: grid.shownShape, spacing: grid.shownSpacing,
            corner: grid.toOwn([1, 1.5, 0.5]), back: grid.toShown([3, 4, 5]),
            slice: grid.slice("sagittal", 1), letters: grid.letters("axial") };
        }""",
        affine,
    )
    assert found["order"] == [2, 1, 0] and found["flipped"] == [True, False, False]
    assert found["shown"] == [6, 5, 4] and found["spacing"] == [2, 3, 1]
    assert found["corner"] == [0, 0, 5] and found["back"] == [1, 13.5, 3.5]
    assert found["slice"] == {"axis": 2, "index": 4}
    assert found["letters"] == {"left": "R", "right": "L", "top": "A", "bottom": "P"}


# Regions --------------------------------------------------------------------------------------------------------------


def test_islands(page: Page) -> None:
    labels = _labels("11020 11000 00001 22200", "00000 00000 00001 00000")
    largest = _labels("11020 11000 00000 22200", "00000 00000 00000 00000")
    assert np.array_equal(_box(page, "islands", "removeIslands", labels, {"value": 1}), largest)
    above_one = _labels("11000 11000 00001 22200", "00000 00000 00001 00000")
    assert np.array_equal(_box(page, "islands", "removeIslands", labels, {"value": 2, "smallest": 2}), above_one)
    assert np.array_equal(_box(page, "islands", "removeIslands", labels, {"value": 7}), labels)


def test_slices_between_are_filled_by_distance(page: Page) -> None:
    small, large = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    small[3:6, 3:6], large[1:8, 1:8] = 1, 1
    labels = np.zeros((9, 9, 5), np.uint8)
    labels[..., 0], labels[..., 4] = small, large
    labels[4, 4, 2] = 5
    filled = _box(page, "between", "fillBetween", labels, {"value": 1, "axis": 2})
    middle = np.zeros((9, 9), np.uint8)
    middle[2:7, 2:7] = 1
    middle[4, 4] = 5
    assert np.array_equal(filled[..., 2], middle), "half way: half as far from the outline, and other labels stay"
    assert np.array_equal(filled[..., 0], small) and np.array_equal(filled[..., 4], large)
    turned = _box(page, "between", "fillBetween", labels.transpose(2, 0, 1), {"value": 1, "axis": 0})
    assert np.array_equal(turned.transpose(1, 2, 0), filled)


def test_smoothing_takes_off_spikes_and_closes_holes_and_leaves_other_labels(page: Page) -> None:
    labels = np.zeros((15, 15, 15), np.uint8)
    labels[3:12, 3:12, 3:12] = 1
    labels[7, 7, 7] = 0
    labels[12, 7, 7] = 1
    labels[13, 13, 13] = 2
    smoothed = _box(page, "smooth", "smooth", labels, {"value": 1, "sigma": 1.0})
    assert smoothed[7, 7, 7] == 1 and smoothed[12, 7, 7] == 0 and smoothed[13, 13, 13] == 2
    assert smoothed[4, 7, 7] == 1 and smoothed[11, 7, 7] == 1 and smoothed[3, 3, 3] == 0
    assert np.array_equal(_box(page, "smooth", "smooth", labels, {"value": 1, "sigma": 0.1}), labels)


def test_seeds_grow_as_far_as_the_grey_value_is_theirs(page: Page) -> None:
    grey = np.zeros((12, 12, 12), np.float32)
    grey[2:10, 2:10, 2:6], grey[2:10, 2:10, 6:10] = 100, 200
    labels = np.zeros(grey.shape, np.uint8)
    labels[5, 5, 3], labels[5, 5, 8] = 4, 9
    grown = _box(page, "grow", "growCut", labels, {"open": [False] * 6}, grey=grey.ravel(order="F").tolist())
    assert np.array_equal(grown, np.where(grey == 100, 4, np.where(grey == 200, 9, 0)))


def test_flood_and_contour_stay_in_their_slice(page: Page) -> None:
    found = page.evaluate(
        """async () => {
          const { fillPolygon, flood } = await import("./fill.js");
          const labels = new Uint8Array(60), inside = [], shape = [5, 4, 3];
          const grey = Float32Array.from({ length: 60 }, (_, at) => (at % 5 < 3 ? 10 : 20));
          const contour = [[0.6, 0.6, 1], [3.4, 0.6, 1], [3.4, 2.4, 1], [0.6, 2.4, 1]];
          fillPolygon(shape, 2, contour, (index) => inside.push(index));
          const filled = (flat, reach) => flood(shape, [0, 0, 1], flat, labels, grey, reach).length;
          return { slice: filled(2, 5), all: filled(-1, 5), anywhere: filled(-1, 10),
            inside: [...new Set(inside)].sort((a, b) => a - b) };
        }"""
    )
    assert (found["slice"], found["all"], found["anywhere"]) == (12, 36, 60)
    assert found["inside"] == [20 + 5 * j + i for j in (1, 2) for i in (1, 2, 3)]


def test_uncertain_places_are_found_the_worst_first(page: Page) -> None:
    found = page.evaluate(
        """async () => {
          const { places } = await import("./doubt.js");
          const map = new Float32Array(40 * 40 * 20);
          const at = (i, j, k) => i + 40 * (j + 40 * k), near = [-2, -1, 0, 1, 2];
          const ball = (i, j, k, value) => {
            for (const z of near) for (const y of near) for (const x of near) map[at(i + x, j + y, k + z)] = value;
            map[at(i, j, k)] = value + 0.05;
          };
          ball(6, 6, 6, 0.6);
          ball(30, 30, 15, 0.9);
          const found = (values) => places([40, 40, 20], [2, 2, 2], values, () => null);
          return [await found(map), await found(new Float32Array(32000))];
        }"""
    )
    assert found == [[[30, 30, 15], [6, 6, 6]], []]
