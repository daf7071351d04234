"""The registered tasks: what the paper and the data sets say, codes that exist, and found by their labels."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from rep3d.errors import TaskError
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.tasks.config import TaskConfig, labels_from_dataset_json, modality_from_dataset_json
from rep3d.tasks.registry import TASKS, matching_task, registered_task, same_modality


@pytest.mark.parametrize(
    ("name", "classes", "spacing", "window"),
    [
        ("amos_ct", 16, (1.5, 1.5, 2.0), (-125, 275)),
        ("amos_mri", 14, (1.0, 1.0, 1.0), (0, 1000)),
        ("kits", 4, (1.5, 1.5, 2.0), (-125, 275)),
        ("msd_pancreas", 3, (1.5, 1.5, 2.0), (-125, 275)),
        ("msd_hepatic_vessel", 3, (1.5, 1.5, 2.0), (0, 230)),
    ],
)
def test_the_papers_tasks(name: str, classes: int, spacing: tuple, window: tuple) -> None:
    task = registered_task(name)
    assert (task.out_channels, task.spacing, task.roi_size, task.orientation) == (classes, spacing, (96,) * 3, "RAS")
    assert (task.intensity.mode, task.intensity.low, task.intensity.high) == ("window", *window)


def test_amos_has_its_own_order() -> None:
    ct, mri = registered_task("amos_ct"), registered_task("amos_mri")
    assert (ct.labels["spleen"], ct.labels["liver"], ct.labels["prostate/uterus"]) == (1, 6, 15)
    assert mri.label_names == ct.label_names[:13]
    assert mri.terms == {name: ct.terms[name] for name in mri.labels}


def test_hippocampus_is_that_of_the_data_set(shared_data: Path) -> None:
    dataset = shared_data / "hippocampus" / "dataset.json"
    found = matching_task(labels_from_dataset_json(dataset), modality_from_dataset_json(dataset))
    assert found is registered_task("msd_hippocampus")
    assert found.intensity.mode == "zscore"


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_each_task_is_whole(task: TaskConfig) -> None:
    assert task.label_values == tuple(range(1, len(task.labels) + 1))
    assert set(task.terms) == set(task.labels)
    assert task.modality in ("CT", "MRI") and task.description
    assert all(side % UnetrSegmenter.stride == 0 for side in task.roi_size)
    assert TaskConfig.from_dict(json.loads(json.dumps(task.to_dict()))) == task
    for one, other in combinations(task.terms.values(), 2):
        assert math.dist(one.colour, other.colour) > 35, (one, other)
    meanings = [(term.type, term.modifier) for term in task.terms.values() if term.type]
    assert len(set(meanings)) == len(meanings)


def test_codes_are_those_of_dicoms_dictionary() -> None:
    """Each code, and what we say it means, against the concepts of DICOM PS3.16 that pydicom carries."""
    concepts = pytest.importorskip("pydicom.sr._concepts_dict").concepts["SCT"]
    known: dict[str, set[str]] = {}
    for entries in concepts.values():
        for value, (meaning, *_) in entries.items():
            known.setdefault(value, set()).add(meaning.lower())
    # 3D Slicer's wording of two concepts that DICOM words otherwise.
    known["49755003"].add("morphologically altered structure")
    known["89837001"].add("urinary bladder")
    codes = {code for task in TASKS.values() for term in task.terms.values() for code in term.codes.values()}
    assert len(codes) > 20
    for code in codes:
        assert code.scheme == "SCT" and code.meaning.lower() in known[code.value], code


def test_only_a_label_of_two_organs_has_no_code() -> None:
    without = [name for task in TASKS.values() for name, term in task.terms.items() if term.type is None]
    assert without == ["prostate/uterus"]


def test_tasks_are_found_by_names_and_values() -> None:
    kits = registered_task("kits")
    assert matching_task(kits.labels) is kits
    assert matching_task({"tumor": 2, "cyst": 3, "kidney": 1}, "ct") is kits
    assert matching_task(kits.labels, "MRI") is None
    assert matching_task({"kidney": 1, "tumor": 3, "cyst": 2}) is None
    assert matching_task({"kidney": 1, "tumor": 2}) is None
    assert matching_task({"Kidney": 1, "tumor": 2, "cyst": 3}) is None


def test_amos_is_found_in_its_published_spelling() -> None:
    spelling = {"aorta": "arota", "gallbladder": "gall bladder"}
    for name in ("amos_ct", "amos_mri"):
        published = {spelling.get(label, label): value for label, value in registered_task(name).labels.items()}
        assert "arota" in published
        assert matching_task(published) is registered_task(name)


def test_modalities() -> None:
    assert same_modality("MRI", "mr") and same_modality(None, "CT") and same_modality("CT", "")
    assert not same_modality("CT", "MRI")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(TaskError, match="'liver'.*amos_ct.*msd_hippocampus"):
        registered_task("liver")


def _tasks(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "rep3d.cli.main", "tasks", *arguments]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, env=environment)


def test_tasks_do_not_load_torch() -> None:
    code = "import sys, rep3d.cli.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_command_lists_them_all() -> None:
    shown = _tasks()
    assert shown.returncode == 0, shown.stderr
    for words in (*TASKS, "prostate/uterus=15", "1.5 x 1.5 x 2", "-125 .. 275", "96 x 96 x 96"):
        assert words in shown.stdout


def test_command_shows_one_with_its_codes() -> None:
    shown = _tasks("kits")
    assert shown.returncode == 0, shown.stderr
    assert "Neoplasm (SCT 108369006)" in shown.stdout and "Kidney (SCT 64033007)" in shown.stdout
    assert "#fadc3c" in shown.stdout and "amos_ct" not in shown.stdout


def test_command_gives_json() -> None:
    assert json.loads(_tasks("--json").stdout) == {name: task.to_dict() for name, task in TASKS.items()}
    assert list(json.loads(_tasks("kits", "--json").stdout)) == ["kits"]


def test_command_refuses_an_unknown_task() -> None:
    refused = _tasks("liver")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "There is no task 'liver'" in refused.stderr and "msd_pancreas" in refused.stderr
