"""How long the page for annotating takes to show an image and a stroke, beside NiiVue's own drawing, and what memory.

Run ``python benchmarks/annotate.py [--small] [--output FILE]`` in the project's environment, on a machine that does
nothing else. It needs Chromium and the viewer (``make viewer``). A real server gives an image of 256 x 256 x 200 voxels
to Chromium, whose window has 1366 x 768 pixels and whose WebGL is software. Strokes are drawn by mouse. A stroke's time
runs from the browser's event to the picture's last pixel, which is waited for: drawing alone says nothing, the card
works on behind it.

"niivue" is the same image, window and mouse with NiiVue by itself, as its demonstrations use it: all its views are
drawn anew after the whole label was sent to the card. The large image, 512 x 512 x 400, is opened by the page only:
what counts is the longest time for which the page does not answer, and the memory of all of the browser's processes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from measuring import command, machine, write_result  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402

from tests.app.annotate.stage_page import StagePage  # noqa: E402
from tests.app.browser import chromium  # noqa: E402
from tests.app.data import CONF  # noqa: E402
from tests.app.server import AppServer  # noqa: E402

WINDOW = {"width": 1366, "height": 768}
STROKES, MOVES = 6, 12
_TIMED = """() => {
  window.times = [];
  let since = 0;
  window.addEventListener("pointermove", (event) => { since ||= event.timeStamp; }, { capture: true });
  window.drawn = () => { if (since) times.push(performance.now() - since); since = 0; };
}"""
_OURS = """() => {
  const paint = theStage.screen.paint.bind(theStage.screen);
  theStage.screen.paint = () => {
    const due = theStage.screen.due.size;
    paint();
    theStage.screen.slices.finish();
    if (due) drawn();
  };
}"""
_THEIRS = """async ([url]) => {
  const { Niivue, NVImage } = await import("./niivue.js");
  const start = performance.now(), canvas = document.createElement("canvas");
  document.getElementById("stage").append(canvas);
  window.nv = new Niivue({ logLevel: "silent", multiplanarShowRender: 0 });
  await nv.attachToCanvas(canvas, false);
  const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer()), end = bytes.indexOf(10);
  const { shape, affine } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
  window.finish = () => nv.gl.readPixels(0, 0, 1, 1, nv.gl.RGBA, nv.gl.UNSIGNED_BYTE, new Uint8Array(4));
  const opening = performance.now();
  const mm = [0, 1, 2].map((axis) => Math.hypot(...affine.map((row) => row[axis])));
  const box = await nv.createNiftiArray(shape, mm, affine.flat(), 4, bytes.slice(end + 1));
  nv.addVolume(await NVImage.loadFromUrl({ url: box, name: "image.nii" }));
  nv.setDrawingEnabled(true);
  nv.setPenValue(1, false);
  finish();
  const scene = nv.drawScene.bind(nv);
  nv.drawScene = () => { scene(); finish(); drawn(); };
  return { started: (opening - start) / 1000, opened: (performance.now() - opening) / 1000 };
}"""
_TASKS = """() => {
  window.longest = 0;
  const seen = (list) => { for (const { duration } of list.getEntries()) longest = Math.max(longest, duration); };
  new PerformanceObserver(seen).observe({ type: "longtask" });
}"""


def write_image(path: Path, shape: tuple[int, int, int]) -> None:
    """Write an image like a CT: int16, left-handed, 0.8 x 0.8 x 1.2 mm, soft tissue and noise in a ball of air."""
    random = np.random.default_rng(0)
    voxels = np.empty(shape, np.int16)
    i, j = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    for index in range(shape[2]):
        inside = i * i + j * j + (2 * index / shape[2] - 1) ** 2 < 0.8
        voxels[:, :, index] = np.where(inside, random.normal(40, 30, shape[:2]), -1000)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.8, 0.8, 1.2, 1.0])), path)


def strokes(page: Page, left: float, top: float, width: float, height: float) -> dict[str, float]:
    """Draw by mouse in a rectangle of the page, and return how long its pictures took."""
    page.evaluate("times.length = 0")
    for stroke in range(STROKES):
        y = top + height * (0.3 + 0.4 * stroke / STROKES)
        page.mouse.move(left + width * 0.3, y)
        page.mouse.down()
        for move in range(MOVES):
            page.mouse.move(left + width * (0.3 + 0.4 * (move + 1) / MOVES), y + 3 * (move % 2))
            page.wait_for_timeout(30)
        page.mouse.up()
        page.wait_for_timeout(400)
    times = page.evaluate("times")
    return {
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20)[-1], 1),
        "pictures": len(times),
    }


def median_ms(page: Page, work: str, rounds: int = 7) -> float:
    """Return the median of what some JavaScript takes until its picture is there."""
    return round(
        statistics.median(
            page.evaluate(f"() => {{ const start = performance.now(); {work}; return performance.now() - start; }}")
            for _ in range(rounds)
        ),
        1,
    )


def seconds(work: Any) -> float:
    """Return how long a function takes."""
    start = time.perf_counter()
    work()
    return round(time.perf_counter() - start, 2)


def megabytes() -> int:
    """Return what all of the browser's processes hold by themselves."""
    processes = [process for process in psutil.Process().children(recursive=True) if "chrom" in process.name()]
    return round(sum(process.memory_full_info().uss for process in processes) / 2**20)


def ours(browser: Browser, server: AppServer) -> dict[str, Any]:
    """Measure the page's stage."""
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(600_000)
    before = megabytes()
    stage: list[StagePage] = []
    found: dict[str, Any] = {"page_s": seconds(lambda: stage.append(StagePage(page, server)))}
    found["first_picture_s"] = seconds(lambda: stage[0].open("middle"))
    found["again_s"] = seconds(lambda: stage[0].open("middle"))
    found["memory_mb"] = megabytes() - before
    page.evaluate(_TIMED)
    page.evaluate(_OURS)
    for layout in ("axial", "three"):
        stage[0].set(layout=layout)
        stage[0].settle()
        found[f"stroke_{layout}"] = strokes(page, *stage[0].pane("axial"))
    draw = "const { screen: s } = theStage; s.draw(); s.settle()"
    found["undo_ms"] = median_ms(page, f"theStage.undo(); {draw}")
    found["picture_ms"] = median_ms(page, draw)
    found["new_window_ms"] = median_ms(page, f"theStage.nextWindow(); {draw}")
    found["renderer"] = page.evaluate("theStage.screen.slices.renderer")
    page.close()
    return found


def theirs(browser: Browser, server: AppServer) -> dict[str, Any]:
    """Measure NiiVue by itself."""
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(600_000)
    before = megabytes()
    StagePage(page, server)
    page.evaluate(_TIMED)
    found = {name: round(value, 2) for name, value in page.evaluate(_THEIRS, ["/rep3d/voxels/images/middle"]).items()}
    found = {"first_picture_s": round(sum(found.values()), 2), "memory_mb": megabytes() - before}
    box = page.locator("canvas").bounding_box()
    assert box is not None
    page.evaluate("nv.setSliceType(0)")
    found["stroke_axial"] = strokes(page, box["x"], box["y"], box["width"], box["height"])
    page.evaluate("nv.setSliceType(3)")
    left, top, width, height = page.evaluate("nv.screenSlices[0].leftTopWidthHeight")
    found["stroke_three"] = strokes(page, box["x"] + left, box["y"] + top, width, height)
    found["undo_ms"] = median_ms(page, "nv.drawUndo()")
    found["picture_ms"] = median_ms(page, "nv.drawScene()")
    found["new_window_ms"] = median_ms(page, "nv.volumes[0].cal_max += 1; nv.updateGLVolume()", 3)
    page.close()
    return found


def large(browser: Browser, server: AppServer) -> dict[str, Any]:
    """Open the large image, with a label, and paint."""
    page = browser.new_page(viewport=WINDOW)
    page.set_default_timeout(600_000)
    before = megabytes()
    stage = StagePage(page, server)
    stage.open("middle")
    page.evaluate(
        """async (url) => {
          const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer()), end = bytes.indexOf(10);
          const { shape, affine } = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
          window.image = { id: "large", shape, affine, data: new Int16Array(bytes.slice(end + 1).buffer) };
          window.given = new Uint8Array(image.data.length);
          given.fill(1, given.length / 3, given.length / 2);
        }""",
        "/rep3d/voxels/images/large",
    )
    page.evaluate(_TASKS)
    found: dict[str, Any] = {"open_s": seconds(lambda: page.evaluate("theStage.open(image, given, theStage.entries)"))}
    found["longest_task_ms"] = round(page.evaluate("longest"))
    page.evaluate("window.given = null")
    found["memory_mb"] = megabytes() - before
    page.evaluate(_TIMED)
    page.evaluate(_OURS)
    stage.set(layout="axial", value=3)
    stage.settle()
    found["stroke_axial"] = strokes(page, *stage.pane("axial"))
    page.close()
    return found


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="small images, to see that it runs")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "annotate.json")
    arguments = parser.parse_args()
    shapes = {"middle": (256, 256, 200), "large": (512, 512, 400)}
    if arguments.small:
        shapes = {"middle": (64, 64, 50), "large": (128, 128, 100)}
    with tempfile.TemporaryDirectory() as folder:
        studies, scratch = Path(folder) / "studies", Path(folder) / "scratch"
        for made in (studies, scratch):
            made.mkdir()
        for name, shape in shapes.items():
            write_image(studies / f"{name}.nii.gz", shape)
        with AppServer(studies, scratch, CONF) as server, chromium() as browser:
            server.get("/rep3d/voxels/images/middle")  # read once: the disk is not what is measured
            result = {
                "command": command(),
                "machine": machine(torch.device("cpu")),
                "browser": browser.version,
                "shapes": shapes,
                "ours": ours(browser, server),
                "niivue": theirs(browser, server),
                "large": large(browser, server),
            }
    print(json.dumps({name: result[name] for name in ("ours", "niivue", "large")}, indent=1))
    write_result(arguments.output, result)


if __name__ == "__main__":
    main()
