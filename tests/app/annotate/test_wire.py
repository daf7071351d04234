"""Voxels over the wire, between the server's own code and the page's: every type, both ways, and whatever damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lib.storage.voxels import Receiver, pack
from playwright.sync_api import Browser, Page

from rep3d.imaging.grid import Geometry
from tests.app.browser import watched
from tests.app.data import AFFINE
from tests.app.server import AppServer

SHAPE = (3, 4, 2)
GRID = Geometry(SHAPE, AFFINE)
READ = """async ([bytes, size]) => {
  const { read } = await import("./voxels.js");
  async function* blocks() {
    for (let at = 0; at < bytes.length; at += size) yield Uint8Array.from(bytes.slice(at, at + size));
  }
  const told = [];
  try {
    const found = await read(blocks(), (done, total) => told.push([done, total]));
    const arrays = Object.entries(found.arrays).map(([name, array]) => [name, [...array]]);
    return { ...found, arrays: Object.fromEntries(arrays), told: told.at(-1) };
  } catch (error) {
    return { error: error.message, kind: error.constructor.name };
  }
}"""
PACK = """async ([label, shape, affine]) => {
  const { pack } = await import("./voxels.js");
  const packed = await pack("label", Uint8Array.from(label), shape, affine, { empty: true });
  return [...new Uint8Array(await packed.arrayBuffer())];
}"""
LABEL = """async ([values]) => {
  const { asLabel } = await import("./voxels.js");
  try { return [...asLabel(Uint16Array.from(values))]; } catch (error) { return error.message; }
}"""


@pytest.fixture(scope="module")
def page(server: AppServer, browser: Browser) -> Iterator[Page]:
    """Yield a page of which only the module is of interest."""
    with watched(browser) as found:
        found.page.goto(f"{server.url}/rep3d/annotate/wire/voxels.js")
        yield found.page


def _sent(**arrays: np.ndarray) -> bytes:
    return b"".join(pack(arrays, GRID, {"version": "v1"}))


def _read(page: Page, sent: bytes, size: int = 1000) -> dict[str, Any]:
    return dict(page.evaluate(READ, [list(sent), size]))


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", "<i2", "<u4", "<i4", "<i8", "<u8", "<f4", "<f8"])
def test_each_type_comes_as_it_was_sent(page: Page, dtype: str) -> None:
    values = (np.arange(24) * 5 - (0 if "u" in dtype else 60)).astype(dtype).reshape(SHAPE, order="F")
    for size in (7, 1000):
        found = _read(page, _sent(image=values, label=np.ones(SHAPE, np.uint8)), size)
        assert found["arrays"]["image"] == values.ravel(order="F").tolist()
        assert found["arrays"]["label"] == [1] * 24 and found["params"] == {"version": "v1"}
        assert found["shape"] == list(SHAPE) and np.array_equal(found["affine"], AFFINE)
        total = values.nbytes + 24
        assert found["told"] == [total, total]


def test_damage_of_every_kind_is_told(page: Page) -> None:
    sent = _sent(image=np.arange(24, dtype="<i2").reshape(SHAPE, order="F"))
    flipped = sent[:-5] + bytes([sent[-5] ^ 4]) + sent[-4:]
    for bad, words in (
        (flipped, "damaged on their way"),
        (sent[:-1], "47 of 48 bytes"),
        (sent + b"\0", "More than the announced 48 bytes"),
        (b"<!doctype html>\n<p>a proxy", "holds no voxels"),
        (sent.replace(b"[3, 4, 2]", b"[3, 4, 9]"), "holds no voxels"),
        (b"", "holds no voxels"),
    ):
        found = _read(page, bad)
        assert words in found["error"] and found["kind"] == "Damaged"


def test_more_than_the_browser_has_room_for_is_told(page: Page) -> None:
    line = b'{"shape":[32767,32767,32767],"affine":[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]],"params":{},"arrays":'
    found = _read(page, line + b'[{"name":"image","dtype":"|u1","bytes":%d,"crc32":0}]}\n' % 32767**3)
    assert found["kind"] == "TooLarge" and "has no room for" in found["error"]


def test_what_the_page_packs_the_server_reads(page: Page, tmp_path: Path) -> None:
    label = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    packed = page.evaluate(PACK, [label.ravel(order="F").tolist(), list(SHAPE), AFFINE.tolist()])
    receiver = Receiver(tmp_path / "voxels", "gzip")
    receiver.feed(bytes(packed))
    received = receiver.finish()
    assert np.array_equal(received.voxels, label) and received.params == {"empty": True}
    assert np.array_equal(received.grid.affine, AFFINE)


def test_labels_up_to_255_and_no_more(page: Page) -> None:
    assert page.evaluate(LABEL, [[0, 7, 255]]) == [0, 7, 255]
    assert "the value 300" in page.evaluate(LABEL, [[0, 300]])
