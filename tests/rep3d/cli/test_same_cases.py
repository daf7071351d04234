"""``rep3d plan``, ``train``, ``evaluate``, ``convert`` say the same of the same files, and none loses a case unsaid."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.checkpoint import load_checkpoint
from rep3d.training import plan as training_plan
from tests.rep3d.balls import ball_data_set, small_config
from tests.rep3d.cli.command import Done

LABELS = {"background": 0, "Ball": 3, "Bar": 5, "ignore": 9}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data set of four cases, the first three of which have both labels."""
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    place = ball_data_set(tmp_path / "data", 4)
    (place / "dataset.json").write_text(json.dumps({"labels": LABELS, "channel_names": {"0": "MRI"}}))
    for name in ("c0", "c1", "c2"):
        _change(place / "labelsTr" / f"{name}.nii.gz", lambda voxels: voxels[:4].fill(5))
    return place


def _change(file: Path, change: Callable[[np.ndarray], object], affine: np.ndarray | None = None) -> None:
    image = nib.load(file)
    voxels = np.array(image.dataobj)
    change(voxels)
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), file)


def _train(data: Path, rep3d: Callable[..., Done], output: Path) -> Done:
    return rep3d("train", "--data", data, "--output", output, "--iterations", 1, "--spacing", 1, 1, 1)


def test_what_a_plan_leaves_out_a_training_leaves_out_for_the_same_reason(
    tmp_path: Path, data: Path, rep3d: Callable[..., Done], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4, 9):
        for folder in ("imagesTr", "labelsTr"):
            shutil.copy(data / folder / "c3.nii.gz", data / folder / f"c{number}.nii.gz")
        _change(data / "imagesTr" / f"c{number}.nii.gz", lambda voxels, number=number: voxels.__iadd__(number))
    _change(data / "labelsTr" / "c4.nii.gz", lambda voxels: voxels.fill(9))  # nothing is known of it
    _change(data / "labelsTr" / "c5.nii.gz", lambda voxels: voxels.fill(0))
    for folder in ("imagesTr", "labelsTr"):  # mirrored, and its label map too
        _change(data / folder / "c6.nii.gz", lambda voxels: None, np.diag([-1.0, 1, 1, 1]))
    (data / "labelsTr" / "c7.nii.gz").unlink()
    (data / "imagesTr" / "c7.nii.gz").write_bytes(b"")
    # c8 was looked through for the bar alone, and has none: its ball is no label there.
    description = {"labels": LABELS, "channel_names": {"0": "MRI"}, "annotated": {"c8": ["Bar"]}}
    (data / "dataset.json").write_text(json.dumps(description))
    # A bad copy comes first by name; it does not cost the good one.
    shutil.copy(data / "imagesTr" / "c3.nii.gz", data / "imagesTr" / "a.nii.gz")
    shutil.copy(data / "labelsTr" / "c5.nii.gz", data / "labelsTr" / "a.nii.gz")
    planned = rep3d("plan", data, "--out", tmp_path / "plan")
    assert planned.returncode == 0, planned.stderr
    assert "10 cases found, 5 can be trained on, 5 left out" in " ".join(planned.stdout.split())
    trained = _train(data, rep3d, tmp_path / "model.pt")
    assert trained.returncode == 0, trained.stderr
    info = load_checkpoint(tmp_path / "model.pt").info
    assert info["cases"] == ["c0", "c1", "c2", "c3", "c6"]
    defects = json.loads((tmp_path / "plan" / "fingerprint.json").read_text())["defects"]
    reasons = {defect["id"]: defect["reason"] for defect in defects if defect["rule"] == "left out"}
    assert reasons == {entry["id"]: entry["reason"] for entry in info["left_out"]}
    for id_, words in (
        ("a", "a copy of c3.nii.gz"),
        ("c4", "all its voxels have the value 9, to be ignored"),
        ("c5", "no voxel has a label"),
        ("c8", "no voxel has a label"),
    ):
        assert words in reasons[id_]
    used = [defect for defect in defects if defect["rule"] != "left out"]
    assert [defect["id"] for defect in used] == ["c6"]
    assert used[0]["reason"].partition(".")[0] in caplog.text  # of as many others


def test_prepared_cases_lie_in_a_folder_of_their_own(tmp_path: Path, data: Path, rep3d: Callable[..., Done]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "scan.volume").write_text("another program's")
    (mine / "index.json").write_text('{"of": "another"}')
    train = ("train", "--data", data, "--output", tmp_path / "model.pt", "--iterations", 1, "--spacing", 1, 1, 1)
    for options, words in (
        (("--prepared", data / "imagesTr"), "--prepared: "),
        (("--prepared", data / "labelsTr" / "kept"), "lies among the images or label maps"),
        (("--resume", data / "imagesTr"), "--resume: "),
        (("--output", data / "labelsTr" / "model.pt"), "--output: "),
        (("--prepared", mine), "holds other files than prepared cases"),
    ):
        refused = rep3d(*train, *options)
        assert refused.returncode == 1 and words in refused.stderr, (options, refused.stderr)
    assert sorted(file.name for file in mine.iterdir()) == ["index.json", "scan.volume"]
    assert len(list((data / "imagesTr").iterdir())) == 4
    (tmp_path / "kept").mkdir()
    for _ in range(2):  # a new one, and its own
        assert rep3d(*train, "--prepared", tmp_path / "kept", "--replace").returncode == 0
    (tmp_path / "kept" / "in_use.lock").unlink(missing_ok=True)  # as on Windows
    assert rep3d(*train, "--prepared", tmp_path / "kept", "--replace").returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="names are UTF-16 there")
def test_a_name_that_no_text_file_takes_costs_its_own_case(
    tmp_path: Path, data: Path, rep3d: Callable[..., Done]
) -> None:
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(data / folder / "c3.nii.gz", os.fsencode(data / folder) + b"/M\xfcller.nii.gz")
    out = tmp_path / "plan"
    done = {
        "plan": rep3d("plan", data, "--out", out),
        "train": _train(data, rep3d, tmp_path / "model.pt"),
        "evaluate": rep3d("evaluate", tmp_path / "model.pt", "--data", data, "--out", tmp_path / "scores"),
        **{to: rep3d("convert", data, tmp_path / to, "--to", to) for to in ("decathlon", "nnunet", "plain")},
        "predict": rep3d("predict", tmp_path / "model.pt", data / "imagesTr", tmp_path / "predicted"),
    }
    fails = {"decathlon", "nnunet", "plain", "predict"}
    for name, one in done.items():
        assert one.returncode == (name in fails), (name, one.stderr)
        assert "its name is not in UTF-8" in " ".join((one.stdout + one.stderr).split()), name
    facts = json.loads((out / "fingerprint.json").read_text())
    assert (facts["found"], facts["cases"]) == (5, 4)
    assert load_checkpoint(tmp_path / "model.pt").info["cases"] == ["c0", "c1", "c2", "c3"]
    assert len(list((tmp_path / "predicted").glob("c?.nii.gz"))) == 4


def test_what_is_not_converted_is_named_and_ends_with_status_1(
    tmp_path: Path, data: Path, rep3d: Callable[..., Done]
) -> None:
    (data / "imagesTr" / "._c0.nii.gz").write_bytes(b"macOS")
    (data / "imagesTr" / "README.txt").write_text("mine")
    assert rep3d("convert", data, tmp_path / "whole", "--to", "nnunet").returncode == 0
    for number, (folder, change) in enumerate(
        (("imagesTr", lambda file: file.write_bytes(b"")), ("labelsTr", lambda file: file.unlink()))
    ):
        change(data / folder / f"c{number}.nii.gz")
        done = rep3d("convert", data, tmp_path / str(number), "--to", "plain")
        assert done.returncode == 1 and "could not be converted" in done.stderr
        assert re.search(rf"left out: \w+/c{number}.nii.gz", done.stdout)
        assert len(list((tmp_path / str(number) / "images").iterdir())) == 3 - number
    for named in (",", "T1,"):
        refused = rep3d("convert", data, tmp_path / "more", "--to", "nnunet", "--channels", named)
        assert refused.returncode == 1 and "expected a name for each channel" in refused.stderr


@pytest.mark.parametrize("name", ["n" * 246, "two\nlines"])
def test_a_name_without_room_for_a_channels_number_costs_its_own_case(
    tmp_path: Path, data: Path, rep3d: Callable[..., Done], name: str
) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (data / folder / "c3.nii.gz").rename(data / folder / f"{name}.nii.gz")
    for to, fits in (("plain", True), ("nnunet", "\n" in name)):
        done = rep3d("convert", data, tmp_path / to, "--to", to)
        assert done.returncode == (not fits), done.stderr
        found = [*(tmp_path / to).glob("labels*/*.nii.gz")]
        assert len(found) == 3 + fits and "Traceback" not in done.stderr


def test_a_tolerance_without_an_end_is_refused(tmp_path: Path, data: Path, rep3d: Callable[..., Done]) -> None:
    command = ("evaluate", "--predictions", data / "labelsTr", "--data", data, "--out", tmp_path / "out")
    refused = rep3d(*command, "--tolerance", "inf")
    assert refused.returncode == 1 and "--tolerance: expected a distance in mm" in refused.stderr
    assert not (tmp_path / "out").exists()
