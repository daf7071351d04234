"""Makes the pictures of docs/slicer.md: the real panel in a real session, on images that the project generates.

Run ``python -m tests.extension.pictures docs/images`` in the project's environment (about two minutes). The figures in
the pictures are those that the server measured in that session. Slicer's segment editor is a stand-in on the bench and
is left closed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "slicer_extension" / "Rep3DLabel")]

from rep3d.data.cohort import phantom_cohort  # noqa: E402
from tests.app.server import AppServer  # noqa: E402
from tests.extension.clinician import Clinician  # noqa: E402
from tests.slicerbench import driver, install  # noqa: E402

WIDTH = 380
CONF = {"iterations": "150", "max_minutes": "2", "preset": "tiny", "device": "cpu", "score_minutes": "0.5"}


class Photographer:
    """Takes pictures of the panel as high as what is open in it."""

    def __init__(self, person: Clinician, folder: Path) -> None:
        self._person, self._folder = person, folder
        self._root = person.opened.widget.panel._root

    def take(self, name: str, *sections: str) -> None:
        """Writes a picture with only these sections open."""
        for section in ("labels", "editor", "training", "versions", "cases", "batch", "options", "local", "access"):
            getattr(self._person.ui, f"{section}Section").collapsed = section not in sections
        driver.spin(0.3)
        self._root.resize(WIDTH, self._root.layout().heightForWidth(WIDTH))
        driver.spin(0.2)
        print(driver.screenshot(self._root, self._folder / f"slicer_{name}.png"))


def main(folder: Path) -> None:
    """Plays a session and takes the pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        cohort = phantom_cohort(Path(temporary) / "cohort", 8, 1, 0)
        studies = Path(temporary) / "studies"
        studies.mkdir()
        experts = {}
        for case in cohort.pool:
            shutil.copy(case.image, studies)
            experts[case.id] = case.label
        conf = {**CONF, "labels": ",".join(f"{name}={value}" for name, value in cohort.labels.items())}
        with AppServer(studies, Path(temporary), conf) as server:
            bench = install()
            bench.start_test()
            person = Clinician(bench)
            camera = Photographer(person, folder)
            camera.take("start", "local")
            person.connect(server.url)
            for _ in range(6):
                person.correct(experts[person.next_sample()], cohort.labels)
                person.submit()
            camera.take("submitted", "labels")
            person.open("trainingSection")
            person.click("trainButton")
            person.wait(lambda: person.view.training.progress > 0.4 and person.view.training.losses, 300)
            camera.take("training", "training")
            person.wait(lambda: not person.view.training.is_active, 300)
            person.wait(lambda: person.view.versions, 30)
            person.open("optionsSection")
            person.click("uncertaintyCheckBox")
            case = person.next_sample()
            person.auto_segment()
            person.open("labelsSection")
            if person.view.uncertainty.places:
                person.click("showUncertaintyCheckBox")
                person.click("jumpButton")
            camera.take("panel", "labels")
            person.draw(next(iter(cohort.labels)), person.in_scene(experts[case]) > 0)
            person.wait(lambda: person.view.draft_time)
            bench.slicer.mrmlScene.Clear(False)
            person.open("casesSection")
            person.click("refreshCasesButton")
            person.wait(lambda: person.view.cases, 30)
            camera.take("unsent", "cases")
            camera.take("versions", "versions", "options")
            bench.end_test()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
