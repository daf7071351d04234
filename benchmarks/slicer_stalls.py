"""How long the Slicer module holds Slicer up, action by action, beside Slicer's own ways of doing the same.

Run ``python benchmarks/slicer_stalls.py [--small] [--output FILE]`` in the project's environment. The real module is
clicked on the test bench (real MRML scene, real Qt; nothing is rendered) against a real server with an untrained
network, on an image of 512 x 512 x 300 voxels (``--small``: 96 x 96 x 60). For each action: the longest callback,
which is how long Slicer would not answer, and the seconds until it is done. Beside it, in the same process, what a
module does that calls Slicer's reader and writer instead; Slicer does not answer for as long as those take.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "slicer_extension" / "Rep3DLabel")]

import nibabel as nib  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from measuring import command, machine, write_result  # noqa: E402

from tests.app.data import CONF, LABELS, publish_small_model  # noqa: E402
from tests.app.server import AppServer  # noqa: E402
from tests.slicerbench import driver, install  # noqa: E402
from tests.slicerbench.stall import stall_meter  # noqa: E402

LARGE, SMALL = (512, 512, 300), (96, 96, 60)


def write_images(folder: Path, shape: tuple[int, int, int]) -> None:
    """Two images like CTs, int16, left-handed, 0.75 x 0.75 x 1 mm."""
    for number in range(2):
        random = np.random.default_rng(number)
        voxels = np.empty(shape, np.int16)
        for index in range(shape[2]):
            voxels[:, :, index] = random.normal(40, 200, shape[:2])
        nib.save(nib.Nifti1Image(voxels, np.diag([-0.75, 0.75, 1.0, 1.0])), folder / f"scan_{number}.nii.gz")


def organs(shape: tuple[int, ...]) -> np.ndarray:
    """Return a label map (K, J, I) with a large ball in two halves."""
    k, j, i = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    ball = k * k + j * j + i * i < 0.6
    values = np.where(k > 0, *LABELS.values()).astype(np.uint8)
    return (ball * values).astype(np.uint8)


def play(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Click through a case and measure each action."""
    from tests.extension.clinician import Clinician

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        studies = folder / "studies"
        studies.mkdir()
        write_images(studies, shape)
        publish_small_model(studies)
        with AppServer(studies, folder, {**CONF, "strategy": "first", "score_minutes": "0"}) as server:
            bench = install()
            bench.start_test()
            person = Clinician(bench)
            actions: dict[str, dict[str, float]] = {}

            def measure(name: str, action: Callable[[], object]) -> None:
                started = time.perf_counter()
                with stall_meter() as meter:
                    action()
                seconds = time.perf_counter() - started
                actions[name] = {"longest_ms": round(1e3 * meter.longest, 1), "seconds": round(seconds, 2)}
                print(f"{name:32} longest {1e3 * meter.longest:7.1f} ms ({meter.where}), {seconds:6.2f} s")

            def until_kept() -> None:
                person.wait(lambda: person.view.draft_time)

            def answer_if_asked(name: str) -> None:
                person.click(name)
                person.wait(person.idle, 300)

            measure("connect", lambda: person.connect(server.url))
            measure("next sample", person.next_sample)
            person.open("optionsSection")
            person.click("uncertaintyCheckBox")
            person.bench.dialogs.reset()
            measure("auto-segment with uncertainty", lambda: answer_if_asked("autoSegmentButton"))
            if person.view.uncertainty.available:
                measure("show uncertainty", lambda: person.click("showUncertaintyCheckBox"))
                if person.view.uncertainty.places:
                    measure("next uncertain place", lambda: person.click("jumpButton"))
            values = organs(bench.slicer.util.arrayFromVolume(person.volume).shape)
            for name, value in LABELS.items():
                person.draw(name, values == value)
            measure("keep edits on disk", until_kept)
            measure("submit", lambda: answer_if_asked("submitButton"))
            assert "Submitted" in person.message, person.message
            case = person.view.sample.id
            measure("open the submitted case", lambda: (person.flow.open_case(case), person.wait(person.idle, 300)))
            person.draw(next(iter(LABELS)), values > 0)
            started = time.perf_counter()
            bench.slicer.mrmlScene.Clear(False)
            closing = 1e3 * (time.perf_counter() - started)
            actions["close the scene with edits"] = {
                "longest_ms": round(closing, 1),
                "seconds": round(closing / 1e3, 2),
            }
            print(f"{'close the scene with edits':32} longest {closing:7.1f} ms")
            key = person.view.drafts[0].key
            measure("go on with unsent work", lambda: (person.flow.restore_draft(key), person.wait(person.idle, 300)))
            assert person.view.sample is not None and person.view.edited, person.message
            others = beside(bench, studies / "scan_0.nii.gz", values, folder)
            bench.end_test()
    return {"shape": list(shape), "module": actions, "slicer_itself": others}


def beside(bench: Any, image: Path, values: np.ndarray, folder: Path) -> dict[str, float]:
    """Time what a module does that has Slicer read and write files itself, in ms."""
    slicer, found = bench.slicer, {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = action()
        found[name] = round(1e3 * (time.perf_counter() - started), 1)
        print(f"{name:48} {found[name]:9.1f} ms")
        return result

    volume = timed("slicer.util.loadVolume of the image", lambda: slicer.util.loadVolume(str(image)))
    label = slicer.util.addVolumeFromArray(values, nodeClassName="vtkMRMLLabelMapVolumeNode")
    label.CopyOrientation(volume)
    path = folder / "label.nii.gz"
    timed("saveNode of a label map as .nii.gz", lambda: slicer.util.saveNode(label, str(path)))
    segmentation = timed("loadSegmentation of that", lambda: slicer.util.loadSegmentation(str(path)))
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    timed(
        "saveNode of a segmentation as .seg.nrrd",
        lambda: slicer.util.saveNode(segmentation, str(folder / "saved.seg.nrrd")),
    )
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small image, to see that it works")
    parser.add_argument("--output", type=Path, help="result file (JSON)")
    arguments = parser.parse_args()
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        **play(SMALL if arguments.small else LARGE),
    }
    print(json.dumps(result["machine"]))
    driver.spin()
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
