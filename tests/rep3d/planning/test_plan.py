"""What a plan measures, which defects it names, that a training agrees on them, and what is proposed."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.data.cases import read_data_set
from rep3d.imaging.grid import Geometry
from rep3d.planning.fingerprint import fingerprint
from rep3d.planning.inspecting import CaseFacts, Inspection, inspect
from rep3d.planning.plan import Plan
from rep3d.planning.proposal import Proposal, propose
from rep3d.planning.writing import write_plan
from rep3d.tasks.file import read_task_file
from rep3d.training.preparing import why_unusable

LABELS = {"liver": 1, "<b>cyst</b>": 4}


def _write(folder: Path, part: str, name: str, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    (folder / part).mkdir(parents=True, exist_ok=True)
    place = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(values, place), folder / part / f"{name}.nii.gz")


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 400, (12, 10, 8), np.int16)


def _label() -> np.ndarray:
    label = np.zeros((12, 10, 8), np.uint8)
    label[2:8, 2:8, 2:6] = 1
    label[9, 9, 7] = 4
    return label


def _data(folder: Path, sound: int = 5) -> Path:
    for number in range(sound):
        _write(folder, "imagesTr", f"sound_{number}", _image(number))
        _write(folder, "labelsTr", f"sound_{number}", _label())
    description = {"labels": {"background": 0, **LABELS}, "modality": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def _facts(name: str, spacing: tuple[float, float, float], shape: tuple[int, int, int] = (40, 40, 10)) -> CaseFacts:
    samples = np.arange(-100, 101, dtype=np.float32)[None]
    grid = Geometry(shape, np.diag([*spacing, 1.0]))
    return CaseFacts(name, grid, -1000.0, 500.0, True, samples, 0.0, 58.0, {"liver": 3.0}, {"liver": 12.0})


def _proposed(
    facts: list[CaseFacts], modality: str | None = "CT", memory: float = 64e9, per_voxel: int = 1000
) -> Proposal:
    labels = {"liver": 1}
    found = fingerprint(facts, labels)
    return propose("t", labels, modality, facts, found, "tiny", 16, lambda p: per_voxel * int(np.prod(p)), int(memory))


def test_each_defect_is_named_and_a_training_leaves_out_the_same_cases(tmp_path: Path) -> None:
    folder = _data(tmp_path)
    wrong = _label()
    wrong[0, 0, 0] = 9
    broken = _image(14).astype(np.float32)
    broken[3, 2, 1] = np.nan
    bad: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        "empty": (_image(10), np.zeros_like(wrong)),
        "unknown": (_image(11), wrong),
        "grid": (_image(12), wrong[:, :, :7]),
        "alone": (_image(13), None),
        "nan": (broken, _label()),
        "twin": (_image(0), _label()),
    }
    for name, (image, label) in bad.items():
        _write(folder, "imagesTr", name, image)
        if label is not None:
            _write(folder, "labelsTr", name, label)
    _write(folder, "imagesTr", "turned", _image(15), np.diag([1.0, -1.0, 2.0, 1.0]))
    _write(folder, "labelsTr", "turned", _label(), np.diag([1.0, -1.0, 2.0, 1.0]))
    data = read_data_set(folder)
    calls: list[tuple[int, int]] = []
    seen = inspect(data, LABELS, {"sound_1"}, lambda done, of: calls.append((done, of)))
    told = {defect.entry.id: defect for defect in seen.defects}
    words = {
        "empty": "no voxel has a label",
        "unknown": "unexpected values: [9]",
        "grid": "does not lie on the voxels of image grid.nii.gz",
        "alone": "there is no label alone.nii.gz",
        "nan": "has the value nan at voxel (3, 2, 1)",
        "twin": "a copy of sound_0.nii.gz",
        "turned": "its axes run RPS, and those of 9 others LPS",
    }
    assert set(told) == set(words)
    for name, expected in words.items():
        assert expected in told[name].entry.reason, name
        assert told[name].entry.file.endswith(f"{name}.nii.gz") and told[name].used == (name == "turned")
    assert [facts.id for facts in seen.facts] == [*(f"sound_{number}" for number in range(5)), "turned"]
    assert seen.found == 12 and calls[-1] == (10, 10)
    assert [len(facts.slices) for facts in seen.facts] == [0, 3, 0, 0, 0, 0]
    for case in data.cases:  # one definition: what a training says of a case is what the plan says
        if (reason := why_unusable(case, LABELS)) is not None:
            assert reason == told[case.id].entry
    assert {case.id for case in data.cases if why_unusable(case, LABELS)} == {"unknown", "grid", "nan"}


def test_what_is_measured(tmp_path: Path) -> None:
    seen = inspect(read_data_set(_data(tmp_path, 3)), LABELS)
    found = fingerprint(seen.facts, LABELS)
    liver, cyst = found.labels["liver"], found.labels["<b>cyst</b>"]
    assert liver.volume and liver.volume.median == pytest.approx(6 * 6 * 4 * 2 / 1000)
    assert liver.thickness and liver.thickness.median == pytest.approx(5.0)  # of 6 x 6 voxels of 1 mm, 4 of 2 mm
    assert liver.share == pytest.approx(144 / 145) and cyst.cases == 3 and found.thinnest == ("<b>cyst</b>", 1.0)
    assert [side.median for side in found.spacing] == [1, 1, 2] and [side.median for side in found.shape] == [12, 10, 8]
    assert found.orientations == {"LPS": 3} and found.air
    inside = np.concatenate([_image(number)[_label() > 0] for number in range(3)])
    assert (found.mean, found.sd) == (pytest.approx(inside.mean()), pytest.approx(inside.std()))
    assert found.channels[0].low == pytest.approx(np.percentile(inside, 0.5))


def test_spacing_is_the_median_and_finer_across_thick_slices() -> None:
    even = _proposed([_facts("a", (1, 1, 2)), _facts("b", (2, 1, 2)), _facts("c", (3, 1, 2.5))]).file.task
    assert even.spacing == (2, 1, 2)
    thick = _proposed([_facts(str(side), (1, 1, side)) for side in (4, 8, 8, 8, 8)])
    assert thick.file.task.spacing == (1, 1, pytest.approx(5.6)) and "tenth percentile" in thick.reasons["spacing"]
    assert "The thinnest structure, liver, is 12 mm thick: 12.0 voxels." in thick.reasons["spacing"]


def test_intensity_is_by_modality_or_by_values() -> None:
    facts = [_facts("a", (1, 1, 1))]
    ct = _proposed(facts).file.task
    assert (ct.intensity.mode, ct.intensity.low, ct.intensity.high, ct.modality) == ("window", -99, 99, "CT")
    by_values = _proposed(facts, None)
    assert by_values.file.task.intensity.mode == "window" and "No modality is named" in by_values.reasons["intensity"]
    mr = _proposed(facts, "MR").file.task
    assert (mr.intensity.mode, mr.modality) == ("zscore", "MRI")
    assert _proposed(facts, "PET").file.task.intensity.mode == "zscore"


def test_the_patch_is_the_median_image_as_far_as_memory_goes() -> None:
    facts = [_facts("a", (1, 1, 2), (100, 50, 20))]
    whole = _proposed(facts)
    assert (
        whole.file.task.roi_size == (112, 64, 32)
        and "holds the median image of 100 x 50 x 20" in whole.reasons["roi_size"]
    )
    assert "0.2 GB" in whole.reasons["roi_size"]
    less = _proposed(facts, memory=0.16e9)  # 0.8 of it hold 128,000 voxels
    assert less.file.task.roi_size == (112, 64, 16) and "0.16 GB of memory allow" in less.reasons["roi_size"]
    least = _proposed(facts, memory=1e3)
    assert least.file.task.roi_size == (32, 16, 16) and "choose a smaller network" in least.reasons["roi_size"]
    assert _proposed([_facts("a", (1, 1, 1), (400, 40, 40))]).file.task.roi_size == (128, 48, 48)


def test_organs_bring_their_codes_and_tumours_do_not() -> None:
    facts = [_facts("a", (1, 1, 1))]
    labels = {"Liver": 1, "tumor": 2}
    found = fingerprint(facts, labels)
    task = propose("t", labels, "CT", facts, found, "tiny", 16, lambda p: 1, 10**9).file.task
    assert list(task.terms) == ["Liver"] and task.terms["Liver"].type.value == "10200004"


def test_the_page_is_one_file_and_names_stay_text(tmp_path: Path) -> None:
    data = read_data_set(_data(tmp_path / "data", 2))
    seen = inspect(data, LABELS, {"sound_0"})
    facts, found = seen.facts, fingerprint(seen.facts, LABELS)
    proposal = propose("<i>t</i>", LABELS, "CT", facts, found, "tiny", 16, lambda p: 1, 10**9)
    made = Plan("<i>t</i>", "CT", Inspection(seen.found, facts, seen.defects), found, proposal)
    task, page, facts_file = write_plan(made, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "<b>cyst" not in text and "&lt;b&gt;cyst" in text and "<i>t" not in text
    assert 'src="http' not in text and "<script" not in text and text.count("data:image/png;base64,") == 3
    assert read_task_file(task).task == proposal.file.task
    assert json.loads(facts_file.read_text(encoding="utf-8"))["labels"]["liver"]["cases"] == 2
