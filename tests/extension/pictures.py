"""Makes the pictures of README and docs/slicer.md from a real session, on images that the project generates.

Run ``make pictures`` (six minutes on two free cores). A real server trains three times; the figures are those that
it measured, but for the demo's curve, which is drawn from docs/results/demo_phantoms.json. Panel and dashboard are
photographed. The bench renders no images, so the slices beside the panel are drawn from the voxels of its scene
(`slice_drawing`). Slicer's segment editor is a stand-in on the bench and is left closed.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "slicer_extension" / "Rep3DLabel")]

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from rep3d.data.cohort import Cohort, phantom_cohort  # noqa: E402
from rep3d.demo.figures import CurvePoint, curve_png  # noqa: E402
from tests.app.annotate.pictures import photograph_annotating  # noqa: E402
from tests.app.browser import chromium  # noqa: E402
from tests.app.server import AppServer  # noqa: E402
from tests.extension.clinician import Clinician  # noqa: E402
from tests.extension.slice_drawing import draw_beside  # noqa: E402
from tests.slicerbench import driver, install  # noqa: E402

WIDTH = 380
CASES = 14
CONF = {"iterations": "150", "max_minutes": "3", "preset": "tiny", "device": "cpu", "score_minutes": "0.5"}


def main(folder: Path) -> None:
    """Play a session and take the pictures."""
    draw_curve(ROOT / "docs" / "results" / "demo_phantoms.json", folder / "demo_curve.png")
    with tempfile.TemporaryDirectory() as temporary:
        cohort = phantom_cohort(Path(temporary) / "cohort", CASES, 1, 0)
        studies = Path(temporary) / "phantoms"
        studies.mkdir()
        for case in cohort.pool:
            shutil.copy(case.image, studies)
        conf = {**CONF, "labels": ",".join(f"{name}={value}" for name, value in cohort.labels.items())}
        with AppServer(studies, Path(temporary), conf) as server:
            bench = install()
            bench.start_test()
            _session(Clinician(bench), server, cohort, folder)
            bench.end_test()
            photograph_dashboard(f"{server.url}/rep3d/", folder / "dashboard.png")
            photograph_annotating(server, folder)
    for picture in folder.glob("*.png"):
        _shrink(picture)


def _session(person: Clinician, server: AppServer, cohort: Cohort, folder: Path) -> None:
    """Annotate, train, correct; take a picture of each kind of work."""
    camera = Photographer(person, folder)
    experts = {case.id: case.label for case in cohort.pool}
    camera.take("start", "local")
    person.connect(server.url)

    def annotate(count: int) -> None:
        for _ in range(count):
            person.correct(experts[person.next_sample()], cohort.labels)
            person.submit()

    def train() -> None:
        person.open("trainingSection")
        person.click("trainButton")
        person.wait(lambda: person.view.training.state == "running", 120)

    def trained() -> None:
        person.wait(lambda: not person.view.training.is_active, 900)
        person.wait(person.idle)

    annotate(6)
    camera.take("submitted", "labels")
    train()
    person.wait(lambda: person.view.training.progress > 0.4 and person.view.training.losses, 900)
    camera.take("training", "training")
    trained()
    for _ in range(2):
        annotate(2)
        train()
        trained()
    person.wait(lambda: len(person.view.versions) == 3, 60)
    person.open("optionsSection")
    person.click("uncertaintyCheckBox")
    driver.choose(person.ui.strategyComboBox, "first")  # not the case that the model knows least about
    case = person.next_sample()
    person.auto_segment()
    draw_beside(camera.take("panel", "labels"), person, folder / "first_sight.png")
    person.open("labelsSection")
    if person.view.uncertainty.places:
        person.click("showUncertaintyCheckBox")
        person.click("jumpButton")
    camera.take("panel", "labels")
    person.draw(next(iter(cohort.labels)), person.in_scene(experts[case]) > 0)
    person.wait(lambda: person.view.draft_time)
    person.bench.slicer.mrmlScene.Clear(False)
    person.open("casesSection")
    person.click("refreshCasesButton")
    person.wait(lambda: person.view.cases, 30)
    camera.take("unsent", "cases")
    camera.take("versions", "versions", "options")


class Photographer:
    """Takes pictures of the panel as high as what is open in it."""

    def __init__(self, person: Clinician, folder: Path) -> None:
        self._person, self._folder = person, folder
        self._root = person.opened.widget.panel._root

    def take(self, name: str, *sections: str) -> Path:
        """Write a picture with only these sections open."""
        for section in ("labels", "editor", "training", "versions", "cases", "batch", "options", "local", "access"):
            getattr(self._person.ui, f"{section}Section").collapsed = section not in sections
        for _ in range(2):  # a section that has just been closed still asks for its width at the first time
            driver.spin(0.3)
            self._root.resize(WIDTH, self._root.layout().heightForWidth(WIDTH))
        driver.spin(0.2)
        return driver.screenshot(self._root, self._folder / f"slicer_{name}.png")


def photograph_dashboard(url: str, picture: Path) -> None:
    """Write a picture of the upper part of the dashboard."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1082})
        page.goto(url)
        page.locator("#case-list img").first.wait_for()
        page.wait_for_timeout(1500)  # pictures of cases come one by one
        page.screenshot(path=picture)


def draw_curve(results: Path, picture: Path) -> None:
    """Draw the curve of a demo from what it measured, on white."""
    content = json.loads(results.read_text(encoding="utf-8"))
    points = []
    for played in content["rounds"]:
        dice = played["dice"].values()
        means = {name: float(np.mean([case[name] for case in dice])) for name in content["labels"] if dice}
        points.append(CurvePoint(played["submitted"], means, tuple(float(np.mean([*case.values()])) for case in dice)))
    drawn = base64.b64decode(curve_png(points, "#1d2733", 7.0).partition(",")[2])
    with Image.open(io.BytesIO(drawn)) as curve:
        ground = Image.new("RGBA", curve.size, "white")
        Image.alpha_composite(ground, curve.convert("RGBA")).convert("RGB").save(picture)


def _shrink(picture: Path) -> None:
    """Store a picture with 256 colours, which the eye does not miss and makes it a third of the size.

    By coverage: else the colour of a small label goes to whatever is near and frequent.
    """
    with Image.open(picture) as whole:
        whole.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            picture, optimize=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
