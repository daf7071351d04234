"""The commands on odd files: what cannot be written is refused first, and one bad case costs no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.data import cases as data_cases
from rep3d.evaluation import measuring
from rep3d.inference.predictor import Predictor
from rep3d.training import plan as training_plan
from tests.rep3d.balls import ball_data_set, small_checkpoint, small_config
from tests.rep3d.cli.command import Done


@pytest.fixture
def model(tmp_path: Path) -> Path:
    made = small_checkpoint()
    save_checkpoint(tmp_path / "model.pt", made.model, made.task, made.info)
    return tmp_path / "model.pt"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data set of three cases, of which the second's image is cut short, and an image without a label."""
    place = ball_data_set(tmp_path / "data", 3)
    cut = place / "imagesTr" / "c1.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    nib.save(nib.Nifti1Image(np.zeros((8, 8, 8)), np.eye(4)), place / "imagesTr" / "alone.nii")
    (place / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "3": "Ball"}}))
    return place


def test_every_command_refuses_its_input_as_output_and_changes_nothing(
    tmp_path: Path, rep3d: Callable[..., Done], model: Path, data: Path
) -> None:
    scan = data / "imagesTr" / "c0.nii.gz"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "explain.html").symlink_to(model)
    before = {path: path.read_bytes() for path in (scan, model)}
    for command in (
        ("segment", model, scan, scan),
        ("train", "--data", data, "--start", model, "--output", model),
        ("explain", "--checkpoint", model, "--out", tmp_path / "linked"),
    ):
        done = rep3d(*command)
        assert done.returncode == 1 and "is the same file as" in done.stderr and "Wrote" not in done.stdout, command
    for command, words in (
        (("segment", model, scan, tmp_path / "new" / "x.nii.gz"), "there is no folder"),
        (("segment", model, scan, tmp_path / "x.nrrd"), "must end in .nii.gz or .nii"),
        (("export", "--checkpoint", model, "--output", tmp_path), "must end in .onnx or .pt2"),
        (("train", "--data", data, "--output", tmp_path / "model.pth"), "must end in .pt"),
        (("simulate", data, "--out", scan), "cannot be written"),
        (("demo", "--out", scan), "cannot be written"),
        (("evaluate", model, "--data", data, "--out", model), "cannot be written"),
        (("evaluate", model, "--data", data, "--out", data / "labelsTr"), "lies among the images or label maps of"),
        (("plan", data, "--out", data / "imagesTr" / "x"), "lies among the images or label maps of"),
    ):
        done = rep3d(*command)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr, command
    assert {path: path.read_bytes() for path in before} == before


def test_what_was_segmented_is_there_under_the_name_that_was_told(
    tmp_path: Path, rep3d: Callable[..., Done], model: Path, data: Path
) -> None:
    for name in ("OUT.NII.GZ", "plain.nii"):
        done = rep3d("segment", model, data / "imagesTr" / "c0.nii.gz", tmp_path / name)
        assert done.returncode == 0 and f"Wrote {tmp_path / name}" in done.stdout.replace("\n", "")
        assert nib.load(tmp_path / name).shape == (32, 32, 32)
    (tmp_path / "plain.nii").write_bytes(b"drawn by a person")
    again = ("segment", model, data / "imagesTr" / "c0.nii.gz", tmp_path / "plain.nii")
    refused = rep3d(*again)
    assert refused.returncode == 1 and "plain.nii is there already, perhaps a person's work" in refused.stderr
    assert (tmp_path / "plain.nii").read_bytes() == b"drawn by a person"
    assert rep3d(*again, "--replace").returncode == 0
    assert nib.load(tmp_path / "plain.nii").get_data_dtype() == np.uint8
    assert not list(tmp_path.glob(".*"))


def test_evaluate_measures_the_others_where_one_case_fails(
    tmp_path: Path, rep3d: Callable[..., Done], model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = rep3d("evaluate", model, "--data", data, "--out", tmp_path / "scores")
    assert done.returncode == 1 and "c0: 0." in done.stdout and "c2: 0." in done.stdout
    assert "Mean over 2 cases: " in done.stdout and "4 cases found, 3 to measure" in done.stdout
    assert "left out: imagesTr/alone.nii: there is no label" in done.stdout
    assert "1 of 3 cases could not be measured: c1.nii.gz: " in done.stderr and "c0" not in done.stderr
    failed = json.loads((tmp_path / "scores" / "evaluation.json").read_text())["failed"]
    assert [entry["id"] for entry in failed] == ["c1"]

    def odd(*arguments: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(measuring, "score_files", odd)
    done = rep3d("evaluate", model, "--data", data, "--out", tmp_path / "none")
    assert done.returncode == 1 and "None of the 3 cases could be measured" in done.stderr
    assert "c2.nii.gz: ZeroDivisionError: nobody thought of this" in done.stderr

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Predictor, "segment", full)  # no fault of the case: to go on would be senseless
    assert "rep3d: The disk is full." in rep3d("evaluate", model, "--data", data, "--out", tmp_path / "full").stderr


def test_train_says_what_it_found_uses_and_leaves_out(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "notes.txt").write_text("mine")
    output = tmp_path / "made.pt"
    done = rep3d("train", "--data", data, "--output", output, "--iterations", 1, "--resume", keep)
    assert done.returncode == 0, done.stderr
    assert "4 cases found, 3 to train with" in done.stdout and "v1, 2 cases" in done.stdout
    assert "left out: imagesTr/alone.nii: there is no label" in done.stdout and "left out: c1.nii.gz: " in done.stdout
    assert (keep / "notes.txt").read_text() == "mine"


def test_train_holds_a_fold_out_and_refuses_what_does_not_fit_it(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    splits, output = tmp_path / "splits_final.json", tmp_path / "made.pt"
    splits.write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "gone"]}]))
    train = ("train", "--data", data, "--output", output)
    fold = ("--recipe", "paper", "--iterations", 1, "--crops", 1, "--fold", 0, "--splits", splits)
    best = tmp_path / "best.pt"
    step = ("--batch", 2, "--micro-batch", 1, "--ema", 0.9, "--precision", "float32", "--max-time", "1h")
    done = rep3d(
        *train, *fold, *step, "--prepared", tmp_path / "kept", "--prepared-gb", 0, "--cache-gb", "inf", "--best", best
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept" / "index.json").exists() and not list((tmp_path / "kept").glob("*.volume"))
    assert output.with_suffix(".csv").read_text().count("\n") == 2
    info = load_checkpoint(output).info
    assert (info["cases"], info["validation_measured"], info["sampling"]) == (["c0"], ["c2"], "paper")
    so_far, weights = (load_checkpoint(file).model.state_dict() for file in (best, output))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in so_far.items())
    made = info["settings"]
    assert (made["batch"], made["micro_batch"], made["ema"], made["max_minutes"]) == (2, 1, 0.9, 60)
    assert "4 cases found, 2 to train with, 1 held out to validate" in done.stdout
    assert "splits_final.json: fold 0 names it" in done.stdout and info["resolution"] is None
    before = output.read_bytes()
    (tmp_path / "run").mkdir()
    old = {
        "cases": [["c0", None, None]],
        "settings": {**made, "learning_rate": 0.01, "max_minutes": 1e6},
        "program": "0.1",
    }
    torch.save({"format": "rep3d-run", "format_version": 1, "identity": old}, tmp_path / "run" / "run.pt")
    left = tmp_path / ".more.pt.prepared"  # by the killed run
    left.mkdir()
    dataset = data / "dataset.json"
    for changed, options, words in (
        (None, ("--fold", 0), "--fold: give the file of the folds with --splits"),
        (None, ("--folds", 5), "Give --fold as well"),
        (None, ("--folds", 5, *fold), "has 1 folds, not 5"),
        (None, ("--folds", 3, "--fold", 3, "--splits", tmp_path / "new.json"), "--fold: expected from 0 to 2"),
        (None, ("--start", output, *fold[:-3], 0, "--splits", _swapped(splits)), "were trained on by the model"),
        (None, ("--resume", tmp_path / "run"), "the cases to train on (c0 changed, c1 new, c2 new)"),
        (None, ("--resume", tmp_path / "run"), "the release of rep3d 0.1, now "),
        (None, (*fold, "--resume", tmp_path / "run"), "--learning-rate 0.01, now 0.0001; "),
        (None, (*fold, "--max-time", "1h", "--resume", tmp_path / "run"), "--max-time none, now 60m"),
        (None, ("--best", tmp_path / "more.pt"), "is the same file as"),
        (None, ("--prepared-gb", 1), "Give it with --prepared"),
        (None, ("--ema", 1), "ema: expected a number from 0 to 0.99999"),
        (None, ("--recipe", "mine"), "recipe: expected one of"),
        (None, ("--max-time", "soon"), "--max-time: expected a time such as 90m"),
        ({"labels": {"Liver": 3}}, ("--start", model), "The model to go on from has other labels"),
    ):
        if changed:
            dataset.write_text(json.dumps(changed))
        refused = rep3d(*("train", "--data", data, "--output", tmp_path / "more.pt", *options))
        assert refused.returncode == 1 and words in refused.stderr, (options, refused.stderr)
    assert output.read_bytes() == before and not (tmp_path / "more.pt").exists()
    assert (tmp_path / "run" / "run.pt").exists() and left.is_dir() and not (tmp_path / "new.json").exists()


def test_train_looks_at_its_options_before_the_data_set(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> None:
        raise AssertionError("the data set was read")

    monkeypatch.setattr(data_cases, "read_data_set", read)
    train = ("train", "--data", data, "--output", tmp_path / "made.pt")
    for options, words in (
        (("--iterations", 0), "iterations: expected a whole number from 1"),
        (("--max-time", "abc"), "--max-time: expected a time such as 90m"),
        (("--recipe", "unknown"), "recipe: expected one of"),
        (("--fold", 0, "--splits", tmp_path / "s.json", "--validation", 1), "leave --validation out"),
        (("--fold", 0, "--splits", tmp_path / "s.json"), "Give --folds as well"),
        (("--folds", 5), "Give --fold as well"),
    ):
        refused = rep3d(*train, *options)
        assert refused.returncode == 1 and words in refused.stderr, (options, refused.stderr)


def _swapped(splits: Path) -> Path:
    """Return a file of folds that measures on what the other trains on."""
    fold = json.loads(splits.read_text())[0]
    other = splits.with_name("swapped.json")
    other.write_text(json.dumps([{"train": fold["val"], "val": fold["train"]}]))
    return other


def test_train_replaces_no_model_unasked_and_leaves_a_finished_run_as_it_is(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    output, best, run = tmp_path / "made.pt", tmp_path / "best.pt", tmp_path / "run"
    train = ("train", "--data", data, "--output", output, "--recipe", "paper", "--crops", 1)
    first = (*train, "--iterations", 2, "--validation", 1, "--best", best, "--resume", run)
    assert (done := rep3d(*first)).returncode == 0, done.stderr
    files = (output, output.with_suffix(".csv"), best)
    before = {file: file.read_bytes() for file in files}
    for options in ((), ("--replace",)):  # the same command does nothing, however it may replace
        again = rep3d(*first, *options)
        assert again.returncode == 0 and "made.pt is finished: v1, 2 steps" in again.stdout, again
        assert "Wrote" not in again.stdout
    for command, words in (
        (first[:-2], "made.pt is there already. Give another name, or --replace"),
        ((*first, "--iterations", 3), "made.pt is there already, and is not of this very run"),
        ((*first, "--iterations", 3, "--output", tmp_path / "new.pt"), "best.pt is there already, and is not of this"),
        ((*train, "--output", tmp_path / "new.pt", "--best", best), "best.pt is there already. "),
    ):
        refused = rep3d(*command)
        assert refused.returncode == 1 and words in refused.stderr, refused
    assert {file: file.read_bytes() for file in files} == before and not (tmp_path / "new.pt").exists()
    output.unlink()
    assert "made.csv is there already" in rep3d(*first[:-4]).stderr
    assert (done := rep3d(*first, "--iterations", 3, "--replace")).returncode == 0, done.stderr
    assert load_checkpoint(output).info["iterations"] == 3


def test_a_data_set_that_is_not_there_is_named_and_no_empty_folder_is_left(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, model: Path
) -> None:
    none, out = tmp_path / "none", tmp_path / "new" / "out"
    for command in (
        ("plan", none, "--out", out),
        ("train", "--data", none, "--output", out / "model.pt"),
        ("evaluate", model, "--data", none, "--out", out),
    ):
        done = rep3d(*command)
        assert done.returncode == 1 and f"rep3d: There is no folder {none}." in done.stderr, done.stderr
        assert not out.parent.exists(), command
    (out.parent).mkdir()
    (data / "dataset.json").write_text("{")
    assert rep3d("plan", data, "--out", out).returncode == 1
    assert out.parent.is_dir() and not out.exists()  # what was there before stays
