"""A quarter of an hour of eight annotators without a break, with trainings and batches: no errors, and no growth.

``REP3D_SOAK_MINUTES`` makes it shorter or longer, ``REP3D_RESULTS`` names a folder that the figures are written to.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.keys import KeyBook
from tests.app.data import AFFINE, CONF, publish_small_model, write_nifti
from tests.app.server import AppServer
from tests.attack.load import Load, Watch, percentile

MINUTES = float(os.environ.get("REP3D_SOAK_MINUTES", "15"))
ANNOTATORS = ("Anna", "Bela", "Carl", "Dora", "Emil", "Frida", "Gero", "Hilde")
SHAPES = ((48, 40, 36), (64, 64, 48))
CASES, WAITING = 40, 60
_HERE = "tests/attack/test_soak.py"


@pytest.mark.slow
def test_eight_annotators_a_training_and_batches(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    random = np.random.default_rng(0)
    shapes = {f"case_{number:02}": SHAPES[number % 2] for number in range(CASES)}
    for case, shape in shapes.items():
        write_nifti(studies / f"{case}.nii.gz", random.normal(100, 9, shape).astype(np.int16), AFFINE)
    publish_small_model(studies)
    book = KeyBook(studies / "rep3d")
    keys = {name: book.make("annotator", name)[1] for name in ANNOTATORS}
    conf = {**CONF, "keys": "on", "iterations": "20", "score_minutes": "0.2"}
    with AppServer(studies, tmp_path, conf, forked=False) as server:
        load = Load(server, keys, book.make("admin", "Ada")[1], shapes)
        with Watch(server.pid) as watch:
            load.start()
            time.sleep(MINUTES * 60)
            load.stop()
        while_working = load.tally.report()
        submitted, waiting = load.submit_while_many_wait(WAITING)
        log = server.log_file.stat().st_size
    early, late = watch.around(min(180.0, MINUTES * 20)), watch.around(MINUTES * 60)
    result = {
        "command": f"REP3D_SOAK_MINUTES={MINUTES:g} REP3D_RESULTS=docs/results make test-slow ARGS={_HERE}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "minutes": MINUTES,
        "images": CASES,
        "shapes": SHAPES,
        "errors": load.tally.errors[:50],
        "done": dict(load.done),
        "asked_to_come_again": dict(load.tally.busy),
        "seconds": while_working,
        "server_after_3_minutes": early,
        "server_at_the_end": late,
        "memory_growth": round(late["memory_mb"] / early["memory_mb"] - 1, 3),
        "most_memory_mb": round(max(sample[1] for sample in watch.samples)),
        "log_bytes": log,
        "submit_while_60_segmentations_were_sent": {
            "submissions": len(submitted),
            "segmentations_unanswered_after_the_last": waiting,
            "p95_seconds": round(percentile(submitted, 0.95), 3),
            "longest_seconds": round(max(submitted), 3),
        },
    }
    if folder := os.environ.get("REP3D_RESULTS"):
        Path(folder, "soak.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))

    assert load.tally.errors == []
    assert len(load.acknowledged) > CASES // 2 and load.done["trainings asked for"] and load.done["batches asked for"]
    for case, (author, voxels) in load.acknowledged.items():
        _check_label(studies, case, author, voxels)
    assert abs(result["memory_growth"]) <= 0.15
    assert waiting > 0 and percentile(submitted, 0.95) < 1.0


def _check_label(studies: Path, case: str, author: str, voxels: np.ndarray) -> None:
    file = studies / "labels" / "final" / f"{case}.nii.gz"
    np.testing.assert_array_equal(np.asanyarray(nib.load(file).dataobj), voxels)
    registry = json.loads((studies / "datastore_v2.json").read_text())
    assert registry["objects"][case]["labels"]["final"]["info"]["user"] == author
