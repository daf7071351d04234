"""``rep3d evaluate`` is stopped and goes on, takes predictions of others; ``rep3d compare`` reads what it wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from filelock import FileLock

from rep3d import files
from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.cli.evaluate import same_values
from rep3d.evaluation.seen import Seen
from rep3d.imaging.marks import image_mark
from rep3d.inference.predictor import Predictor, Segmentation
from rep3d.training import plan as training_plan
from rep3d.training import train as training
from tests.rep3d.balls import ball_case, ball_data_set, small_checkpoint, small_config
from tests.rep3d.cli.command import Done


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data set of three cases; the label of the second lies elsewhere than its image."""
    place = ball_data_set(tmp_path / "data", 3)
    label = nib.load(place / "labelsTr" / "c1.nii.gz")
    voxels = np.asarray(label.dataobj)
    nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 1.5, 1])), place / "labelsTr" / "c1.nii.gz")
    (place / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3}}))
    return place


def test_a_stop_loses_nothing_and_one_bad_label_costs_no_other_case(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_checkpoint()
    model, out = tmp_path / "model.pt", tmp_path / "scores"
    save_checkpoint(model, made.model, made.task, {**made.info, "trained_on": ["c2"]})
    segment, segmented = Predictor.segment, []

    def stopped(self: Predictor, image: Path, output: Path) -> Segmentation:
        if len(segmented) == 1:
            raise KeyboardInterrupt
        segmented.append(image[0].name)
        return segment(self, image, output)

    monkeypatch.setattr(Predictor, "segment", stopped)
    command = ("evaluate", model, "--data", data, "--out", out)
    out.mkdir()
    (out / "scores.csv").write_text("a table of someone's own")
    refused = rep3d(*command)
    assert refused.returncode == 1 and "scores.csv is there already" in refused.stderr
    assert (out / "scores.csv").read_text() == "a table of someone's own"
    (out / "scores.csv").unlink()
    done = rep3d(*command)
    assert done.returncode == 130 and "the same command goes on" in done.stdout and "Mean" not in done.stdout
    assert [json.loads(line)["case"] for line in (out / "scores.jsonl").read_text().splitlines()] == ["c0"]

    def counted(self: Predictor, image: Path, output: Path) -> Segmentation:
        segmented.append(image[0].name)
        return segment(self, image, output)

    monkeypatch.setattr(Predictor, "segment", counted)
    done = rep3d(*command)
    assert done.returncode == 1 and segmented == ["c0.nii.gz", "c2.nii.gz"]
    assert "1 of 3 cases could not be measured: c1.nii.gz: labelsTr/c1.nii.gz does not lie on" in done.stderr
    assert "the voxels of image imagesTr/c1.nii.gz: expected" in done.stderr
    assert "c2 (trained on)" in done.stdout and "Mean over 1 cases not trained on" in done.stdout
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3 and "c1.nii.gz does not lie" in page
    other = tmp_path / "other.pt"
    save_checkpoint(other, made.model, made.task, made.info)
    refused = rep3d("evaluate", other, "--data", data, "--out", out)
    assert refused.returncode == 1 and "holds the evaluation of another model" in refused.stderr
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 1}}))
    assert "has the value 3 for 'Ball'" in rep3d(*command).stderr
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "liver": 3}}))
    assert "calls the value 3 'Ball', and" in (stderr := rep3d(*command).stderr) and "says 'liver'" in stderr
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "ball ": 3}}))
    assert "Mean over 1 cases" in rep3d(*command).stdout  # the same name, spelled in another way


def test_published_misspellings_are_the_same_names(tmp_path: Path) -> None:
    described = {"background": 0, "arota": 8, "gall bladder": 4}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": described}))
    assert same_values({"aorta": 8, "gallbladder": 4}, tmp_path) == {"aorta": 8, "gallbladder": 4}


def test_what_is_computed_in_another_way_is_another_evaluation(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_checkpoint()
    model, out = tmp_path / "model.pt", tmp_path / "scores"
    save_checkpoint(model, made.model, made.task, made.info)
    load = Predictor.load

    def tuned(*of: Any) -> Predictor:
        predictor = load(*of)
        predictor.tuned = "In bfloat16; the mean Dice changes by 0.001."
        return predictor

    monkeypatch.setattr(Predictor, "load", tuned)
    assert "Wrote" in rep3d("evaluate", model, "--data", data, "--out", out).stdout
    facts = json.loads((out / "evaluation.json").read_text())["source"]
    assert facts["SHA-256"] == files.file_hash(model) and facts["Speed"].startswith("In bfloat16")
    monkeypatch.setattr(Predictor, "load", load)
    refused = rep3d("evaluate", model, "--data", data, "--out", out)
    assert refused.returncode == 1 and "computed in another way" in refused.stderr
    assert json.loads((out / "evaluation.json").read_text())["source"] == facts


def test_predictions_of_others_are_measured_and_compared(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path
) -> None:
    places = []
    for name, step in (("near", 1), ("far", 4)):
        folder = tmp_path / name
        folder.mkdir()
        for seed in (0, 2):
            label = nib.load(data / "labelsTr" / f"c{seed}.nii.gz")
            voxels = np.roll(np.asarray(label.dataobj), step, axis=0)
            nib.save(nib.Nifti1Image(voxels, label.affine), folder / f"c{seed}.nii.gz")
        places.append(tmp_path / f"out_{name}")
        done = rep3d("evaluate", "--predictions", folder, "--data", data, "--out", places[-1], "--tolerance", 3)
        assert done.returncode == 1 and "There is no prediction c1.nii.gz or c1.nii" in done.stderr
        assert "Mean over 2 cases: 0." in done.stdout
        unknown = "It is not known which cases the model was trained on"
        assert unknown in done.stdout and unknown in (places[-1] / "evaluation.html").read_text(encoding="utf-8")
    near = json.loads((places[0] / "evaluation.json").read_text())
    assert near["means"]["nsd"]["labels"]["Ball"]["mean"] == 1.0 and near["tolerance_mm"] == 3.0
    assert near["means"]["hd95"]["labels"]["Ball"]["mean"] == pytest.approx(1.0)
    done = rep3d("compare", *places, "--out", tmp_path / "compared")
    assert done.returncode == 0, done.stderr
    assert "Ball: too few cases to tell: 2, and with fewer than 6" in done.stdout
    compared = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert compared["models"] == ["out_near", "out_far"] and compared["cases"] == ["c0", "c2"]
    assert "<html" in (tmp_path / "compared" / "comparison.html").read_text(encoding="utf-8")
    for arguments, words in (
        ((places[0], places[0] / "evaluation.json"), "given twice"),
        ((places[0], tmp_path), "holds no evaluation"),
        ((*places, "--metric", "iou"), "expected dice, nsd, hd95, volume-off"),
    ):
        refused = rep3d("compare", *arguments)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    for arguments, words in (
        ((data / "labelsTr",), "c0.nii.gz is the true label map itself. Give the folder of the predictions"),
        ((tmp_path / "far", "--skip", 3), "--skip: "),
    ):
        refused = rep3d("evaluate", "--data", data, "--out", tmp_path / "none", "--predictions", *arguments)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    both = rep3d("evaluate", tmp_path / "m.pt", "--predictions", tmp_path, "--data", data)
    assert both.returncode == 1 and "either a model file or --predictions" in both.stderr


def test_a_truth_off_its_image_is_named_and_an_image_that_cannot_be_drawn_costs_its_picture(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    shutil.copytree(data / "labelsTr", given)  # c1 is where its truth is, and both are where the image is not
    (data / "imagesTr" / "c2.nii.gz").write_bytes(b"no image")
    done = rep3d("evaluate", "--predictions", given, "--data", data, "--out", out)
    assert done.returncode == 1 and "1 of 3 cases could not be measured: c1.nii.gz: labelsTr/c1.nii.gz" in done.stderr
    assert "Draw the label on this image, or export it with the image as reference" in done.stderr
    assert list(json.loads((out / "evaluation.json").read_text())["cases"]) == ["c0", "c2"]
    page = (out / "evaluation.html").read_text(encoding="utf-8")
    assert page.count("<img") == 3 and "No picture: c2.nii.gz is damaged, or is no NIfTI image" in page


def _set_voxel(file: Path, value: int) -> None:
    image = nib.load(file)
    voxels = np.array(image.dataobj)
    voxels[0, 0, 0] = value
    nib.save(nib.Nifti1Image(voxels, image.affine), file)


def test_values_that_no_label_has_are_named_in_truth_and_prediction(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path
) -> None:
    """What the data set declares is fine, and so is what it ignores."""
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3, "Cyst": 5, "ignore": 9}}))
    shutil.copytree(data / "labelsTr", tmp_path / "given")
    (data / "labelsTr" / "c1.nii.gz").unlink()
    made = small_checkpoint()
    save_checkpoint(tmp_path / "model.pt", made.model, made.task, made.info)
    by_model = ("evaluate", tmp_path / "model.pt", "--data", data, "--out", tmp_path / "model")
    _set_voxel(data / "labelsTr" / "c0.nii.gz", 5)
    _set_voxel(data / "labelsTr" / "c2.nii.gz", 9)
    assert rep3d(*by_model).returncode == 0
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3, "ignore": 9}}))
    done = rep3d(*by_model)  # what was measured before is not taken for it
    assert done.returncode == 1 and "1 of 2 cases could not be measured: c0.nii.gz: labelsTr/c0.nii.gz" in done.stderr
    assert "has unexpected values: [5]" in done.stderr and "server" not in done.stderr
    _set_voxel(data / "labelsTr" / "c0.nii.gz", 0)
    _set_voxel(tmp_path / "given" / "c2.nii.gz", 7)
    done = rep3d("evaluate", "--predictions", tmp_path / "given", "--data", data, "--out", tmp_path / "others")
    assert done.returncode == 1 and "given/c2.nii.gz has unexpected values: [7]" in done.stderr
    assert list(json.loads((tmp_path / "others" / "evaluation.json").read_text())["cases"]) == ["c0"]


def test_a_truth_without_any_label_is_named_where_the_means_are(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path
) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    shutil.copytree(data / "labelsTr", given)
    (data / "labelsTr" / "c1.nii.gz").unlink()
    truth = data / "labelsTr" / "c2.nii.gz"
    image = nib.load(truth)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), truth)
    done = rep3d("evaluate", "--predictions", given, "--data", data, "--out", out)
    assert done.returncode == 0 and "c2: 0.000" in done.stdout, done.stderr
    words = "There is no label in the truth of c2."
    content = json.loads((out / "evaluation.json").read_text())
    assert words in done.stdout and words in (out / "evaluation.html").read_text(encoding="utf-8")
    assert content["empty_truth"] == ["c2"] and words in content["remarks"][-1]
    assert content["means"]["dice"]["labels"]["Ball"]["mean"] == 0.5


def test_predictions_of_ours_lead_to_what_their_model_was_trained_on(
    tmp_path: Path, rep3d: Callable[..., Done], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "labelsTr" / "c1.nii.gz").unlink()
    made, model, given = small_checkpoint(), tmp_path / "model.pt", tmp_path / "given"
    save_checkpoint(model, made.model, made.task, {**made.info, "trained_on": ["c2"]})
    assert rep3d("predict", model, data / "imagesTr", given, "--device", "cpu").returncode == 0
    command = ("evaluate", "--predictions", given, "--data", data, "--out", tmp_path / "out")
    read: list[Path] = []
    monkeypatch.setattr(files, "file_hash", lambda path, hash_=files.file_hash: read.append(path) or hash_(path))
    done = rep3d(*command)
    assert done.returncode == 0, done.stderr
    assert sorted(read) == [given / "c0.nii.gz", given / "c2.nii.gz"]  # for the record and for the scores, but once
    assert "c2 (trained on)" in done.stdout and "Mean over 1 cases not trained on" in done.stdout
    save_checkpoint(model, made.model, made.task, made.info)  # another one in its place
    done = rep3d(*command)
    assert "It is not known which cases" in done.stdout and "(trained on)" not in done.stdout
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["trained_on_known"] is False


def test_what_was_trained_on_is_known_by_its_image_and_not_by_its_name(
    tmp_path: Path, rep3d: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    data, model = ball_data_set(tmp_path / "data", 3), tmp_path / "model.pt"
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3}}))
    train = ("train", "--data", data, "--output", model, "--iterations", 1, "--cases", 2, "--spacing", 1, 1, 1)
    assert rep3d(*train).returncode == 0
    info = load_checkpoint(model).info
    assert info["images"] == {name: [image_mark(data / "imagesTr" / f"{name}.nii.gz")] for name in ("c0", "c1")}
    for folder in ("imagesTr", "labelsTr"):  # c1 is another image now; that of before is called c3
        (data / folder / "c1.nii.gz").rename(data / folder / "c3.nii.gz")
        shutil.copy(data / folder / "c2.nii.gz", data / folder / "c1.nii.gz")
    image = nib.load(data / "imagesTr" / "c3.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine), data / "imagesTr" / "c3.nii")  # packed no more
    (data / "imagesTr" / "c3.nii.gz").unlink()
    evaluate = ("evaluate", model, "--data", data, "--out", tmp_path / "scores")
    told = rep3d(*evaluate).stdout
    assert "Mean over 2 cases not trained on" in told and "2 cases were trained on" in told
    assert "Trained on under other names, by their images: c3." in told
    assert "with other images, so they count as new: c1." in told
    written = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert {id_: case["trained_on"] for id_, case in written["cases"].items()} == {
        **{"c0": True, "c1": False, "c2": False, "c3": True}
    }
    assert "under other names" in (tmp_path / "scores" / "evaluation.html").read_text()
    # A model of a release that noted no images is told by names.
    made = load_checkpoint(model)
    save_checkpoint(tmp_path / "old.pt", made.model, made.task, {**made.info, "images": {}})
    told = rep3d("evaluate", tmp_path / "old.pt", "--data", data, "--out", tmp_path / "old").stdout
    assert "c1 (trained on)" in told and "c3 (trained on)" not in told and "other names" not in told


def test_an_evaluation_of_which_nothing_is_left_says_so(tmp_path: Path, rep3d: Callable[..., Done], data: Path) -> None:
    predictions, out = tmp_path / "predictions", tmp_path / "scores"
    predictions.mkdir()
    for name in ("c0", "c2"):
        label = nib.load(data / "labelsTr" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj)[::-1], label.affine), predictions / f"{name}.nii.gz")
    command = ("evaluate", "--predictions", predictions, "--data", data, "--out", out)
    assert "Mean over 2 cases" in rep3d(*command).stdout
    for file in predictions.iterdir():
        file.write_bytes(b"no label map")
    failed = rep3d(*command)
    assert failed.returncode == 1 and "None of the 3 cases could be measured" in failed.stderr
    written = json.loads((out / "evaluation.json").read_text())
    assert written["cases"] == {} and len(written["failed"]) == 3
    assert "c2.nii.gz" in (out / "evaluation.html").read_text()
    with FileLock(out / ".lock"):  # another one at work
        refused = rep3d(*command)
        assert refused.returncode == 1 and "another rep3d evaluate is writing into" in refused.stderr
    refused = rep3d("compare", out, out)
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    shutil.rmtree(predictions)
    predictions.mkdir()
    assert (
        rep3d(*command[:-1], tmp_path / "new").returncode == 1 and not (tmp_path / "new" / "evaluation.json").exists()
    )


def test_what_a_model_or_its_encoder_has_seen_measures_nothing_whatever_it_is_called(
    tmp_path: Path, rep3d: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)
    monkeypatch.setattr(training, "first_config", lambda *given: small_config())
    first = ball_data_set(tmp_path / "first", 3)
    (first / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3}}))
    step = ("--iterations", 1, "--spacing", 1, 1, 1, "--preset", "tiny")
    assert rep3d("train", "--data", first, "--output", tmp_path / "first.pt", *step).returncode == 0
    data = ball_data_set(tmp_path / "data", 6)  # its first three cases are those, under other names
    for folder in ("imagesTr", "labelsTr"):
        for number in range(6):
            (data / folder / f"c{number}.nii.gz").rename(data / folder / f"p{number}.nii.gz")
    shutil.copy(first / "dataset.json", data)
    for option in ("--start", "--start-from"):
        output = tmp_path / f"{option[2:]}.pt"
        train = ("train", "--data", data, option, tmp_path / "first.pt", *step, "--output")
        done = rep3d(*train, output, "--validation", 3)
        assert done.returncode == 0 and "Trained on under other names, by their images: p" in done.stdout, done.stderr
        info = load_checkpoint(output).info
        assert info["validation_measured"] == ["p3", "p4", "p5"]
        assert [*info["images"]] == info["trained_on"] == ["c0", "c1", "c2", "p0", "p1", "p2"]
        assert info["images"]["c1"] == info["images"]["p1"]
        measured = rep3d("evaluate", output, "--data", data, "--out", output.with_suffix(""))
        assert "3 cases were trained on" in measured.stdout
        refused = rep3d(*train, tmp_path / "more.pt", "--validation", 4)
        assert refused.returncode == 1 and "the model was trained on 3 of them" in refused.stderr
        splits = tmp_path / "splits.json"
        splits.write_text(json.dumps([{"train": ["p0", "p1", "p3"], "val": ["p2", "p4"]}]))
        refused = rep3d(*train, tmp_path / "more.pt", "--fold", 0, "--splits", splits)
        assert refused.returncode == 1 and "1 cases that fold 0 measures on were trained on" in refused.stderr
    assert "3 cases: p3, p4, p5" in rep3d("tune", tmp_path / "first.pt", "--data", data).stdout


def test_of_which_only_names_are_known_it_is_said(tmp_path: Path) -> None:
    case, other = (ball_case(tmp_path, seed) for seed in (1, 2))
    seen = Seen([{"trained_on": ["case_1", "gone"]}])
    assert seen.known and seen(case) and not seen(other)
    assert "Of 2 cases that were trained on only the names are known" in seen.notes[0]
    seen = Seen([{"trained_on": ["case_1", "case_2"], "images": {"case_2": [image_mark(case.channels)]}}, {}])
    assert not seen.known and seen(case) and not seen(other)  # by its name alone; it is another image than that case_2
