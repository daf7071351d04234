"""A page with nothing but the stage of the page for annotating, on a real server: for tests of the viewer by itself."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page

from tests.app.server import AppServer

__all__ = ["ENTRIES", "StagePage"]

ENTRIES = [{"value": 1, "name": "head", "color": [220, 60, 60]}, {"value": 3, "name": "tail", "color": [60, 200, 90]}]
_HTML = """<!doctype html><html lang="en"><head><title>Stage</title><link rel="stylesheet" href="../dashboard.css">
<link rel="stylesheet" href="tools.css"><link rel="stylesheet" href="stage_page.css"></head>
<body><div id="tools"></div><div id="stage"></div><div id="labels"></div></body></html>"""
_CSS = "body{display:flex;height:100vh}#stage{flex:1;min-width:0}#tools{width:15rem;overflow:auto}#labels{width:15rem}"
_OPEN = """async ([url, label, entries, modality]) => {
  window.Stage ??= (await import("./view/stage.js")).Stage;
  const at = (id) => document.getElementById(id);
  window.theStage ??= new Stage({ stage: at("stage"), tools: at("tools"), labels: at("labels") });
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer()), end = bytes.indexOf(10);
  const { shape, affine, arrays: [{ dtype }] } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  const Kind = { "<i2": Int16Array, "<f4": Float32Array, "|u1": Uint8Array }[dtype];
  const data = new Kind(bytes.slice(end + 1).buffer);
  await theStage.open({ id: "case", shape, affine, data, modality }, label && Uint8Array.from(label), entries);
}"""


class StagePage:
    """The stage in a browser's page.

    Args:
        page: an empty page.
        server: whose files and images are shown.
    """

    def __init__(self, page: Page, server: AppServer) -> None:
        self.page = page
        self._server = server
        address = f"{server.url}/rep3d/annotate/stage_page"
        page.route(f"{address}.html", lambda route: route.fulfill(body=_HTML, content_type="text/html"))
        page.route(f"{address}.css", lambda route: route.fulfill(body=_CSS, content_type="text/css"))
        page.goto(f"{address}.html")

    def open(self, image: str, label: np.ndarray | None = None, modality: str = "") -> None:
        """Open an image of the server's; a label is (I, J, K)."""
        flat = None if label is None else label.ravel(order="F").tolist()
        self.page.evaluate(_OPEN, [f"/rep3d/voxels/images/{image}", flat, ENTRIES, modality])

    def set(self, **settings: Any) -> None:
        """Choose tool, size ... as the tools do."""
        self.page.evaluate(
            "(all) => Object.entries(all).forEach(([name, value]) => theStage.settings.set(name, value))", settings
        )

    def look_at(self, own: tuple[int, int, int]) -> None:
        """Move the crosshair to a voxel."""
        self.page.evaluate("(own) => theStage.screen.setCursor(theStage.grid.toShown(own))", list(own))
        self.settle()

    def settle(self) -> None:
        """Wait until all is done and drawn."""
        self.page.evaluate("theStage.settled()")

    def label(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return the label in hand, all voxels of it, as (I, J, K)."""
        self.settle()
        flat = self.page.evaluate("Array.from(theStage.label())")
        return np.array(flat, np.uint8).reshape(shape, order="F")

    def pane(self, plane: str) -> tuple[float, float, float, float]:
        """Return where a view lies on the page: left, top, width, height in pixels."""
        left, top, width, height = self.page.evaluate("(plane) => theStage.screen.views[plane].pane", plane)
        box = self.page.locator(".over").bounding_box()
        assert box is not None
        return box["x"] + left, box["y"] + top, width, height

    def picture(self, plane: str) -> np.ndarray:
        """Return what is drawn in a view, (height, width, 3) bytes; without letters and crosshair."""
        left, top, width, height = self.pane(plane)
        hide = (
            "(opacity) => document.querySelectorAll('.over, .ring').forEach((one) => { one.style.opacity = opacity; })"
        )
        self.page.evaluate(hide, 0)
        png = self.page.screenshot(clip={"x": left, "y": top, "width": width, "height": height})
        self.page.evaluate(hide, 1)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
