"""``rep3d predict``: folders in, label maps, numbers and a record out; what was done is kept, what is broken named."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.errors import CheckpointError, ConfigError, DiskFullError, ImageError, OutputError
from rep3d.files import file_hash
from rep3d.inference.predictor import Predictor
from rep3d.nn.rep3d import Rep3D
from rep3d.predicting import run as predicting
from rep3d.predicting.manifest import Manifest
from rep3d.predicting.run import Wanted, predict
from rep3d.predicting.sources import find_sources
from rep3d.tasks.config import Channel, Code, Intensity, TaskConfig, Term
from rep3d.tasks.file import TaskFile, write_task_file
from tests.rep3d.balls import TASK, ball_case, small_checkpoint, small_config
from tests.rep3d.cli.command import Done
from tests.rep3d.imaging.grids import placed
from tests.rep3d.imaging.test_dicom import COUNT, write_series

TWO_CHANNELS = (Channel("T1", Intensity()), Channel("T2", Intensity()))


def model_file(path: Path, seed: int, task: TaskConfig = TASK) -> Path:
    """Return an untrained model with other weights for each seed, which finds its label in about half of an image."""
    made = small_checkpoint()
    network = made.model if task.in_channels == 1 else Rep3D(small_config(in_channels=task.in_channels)).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for weight in network.parameters():
            weight.add_(0.3 * weight.std(correction=0) * torch.randn_like(weight))
    save_checkpoint(path, network, task, {**made.info, "version": f"v{seed}"})
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return model_file(tmp_path / "model.pt", 1)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of three images, of which the second is cut short, and a file that is none."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(3):
        case = ball_case(tmp_path, seed)
        case.image.rename(folder / f"c{seed}_0000.nii.gz")
    cut = folder / "c1_0000.nii.gz"
    cut.write_bytes(cut.read_bytes()[:2000])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_broken_image_costs_no_other_and_what_was_done_is_kept(
    tmp_path: Path, rep3d: Callable[..., Done], model: Path, images: Path
) -> None:
    out = tmp_path / "out"
    done = rep3d("predict", model, images, out, "--uncertainty", "--previews", "--device", "cpu", "--engine", "torch")
    assert (
        done.returncode == 1 and "1 of 3 cases could not be predicted: c1: c1_0000.nii.gz is cut short" in done.stderr
    )
    assert "[2 of 3] c1: failed" in done.stdout and "[3 of 3] c2: " in done.stdout and "Wrote 2 cases" in done.stdout
    record = json.loads((out / "manifest.json").read_text())
    assert {case: entry["state"] for case, entry in record["cases"].items()} == {
        "c0": "done",
        "c1": "failed",
        "c2": "done",
    }
    assert "cut short" in record["cases"]["c1"]["reason"]
    entry = record["cases"]["c0"]
    assert entry["models"] == [file_hash(model)] and entry["version"] == "v1"
    assert entry["input_sha256"] == file_hash(images / "c0_0000.nii.gz")
    assert set(entry["outputs"]) == {"nifti", "uncertainty", "preview"}
    for written in entry["outputs"].values():
        assert file_hash(out / written["file"]) == written["sha256"]
    # It is what `rep3d segment` writes.
    Predictor.load(model, "cpu", "torch").segment(images / "c0_0000.nii.gz", tmp_path / "one.nii.gz")
    assert (tmp_path / "one.nii.gz").read_bytes() == (out / "c0.nii.gz").read_bytes()
    values = np.asarray(nib.load(out / "c0.nii.gz").dataobj)
    image = nib.load(images / "c0_0000.nii.gz").get_fdata()
    (row,) = [row for row in csv.DictReader((out / "statistics.csv").open()) if row["case"] == "c0"]
    assert (row["label"], row["value"], int(row["voxels"])) == ("Ball", "3", np.count_nonzero(values))
    assert 0 < int(row["voxels"]) < values.size and float(row["volume_ml"]) == pytest.approx(values.sum() / 3e3)
    inside = image[values == 3]
    expected = [inside.mean(), inside.std(), inside.min(), inside.max(), *np.argwhere(values).mean(0)]
    columns = ("mean", "sd", "min", "max", "centroid_r", "centroid_a", "centroid_s")
    np.testing.assert_allclose([float(row[column]) for column in columns], expected, atol=1e-3)
    assert Image.open(out / "c0.png").size == (3 * 384 + 8, 384)

    (images / "c1_0000.nii.gz").write_bytes((images / "c2_0000.nii.gz").read_bytes())
    (out / "c2.png").unlink()
    times = {name: (out / name).stat().st_mtime_ns for name in ("c0.nii.gz", "c2.nii.gz")}
    again = rep3d("predict", model, images, out, "--uncertainty", "--previews", "--device", "cpu", "--engine", "torch")
    assert again.returncode == 0 and "Wrote 2 cases" in again.stdout and "1 were there already" in again.stdout
    assert "[1 of 3] c0: was there already\n" in again.stdout
    assert (out / "c0.nii.gz").stat().st_mtime_ns == times["c0.nii.gz"]
    assert (out / "c2.nii.gz").stat().st_mtime_ns > times["c2.nii.gz"]  # a file of its own was gone
    other = predict([model_file(tmp_path / "other.pt", 2)], images, out, Wanted(), "cpu", "torch")
    assert other.done == ["c0", "c1", "c2"]  # by another model
    former = [f"c0{kind}" for kind in (".png", ".uncertainty.nii.gz")]  # of the label map that was there before
    assert other.earlier["c0"] == former and all((out / name).exists() for name in former)
    assert json.loads((out / "manifest.json").read_text())["cases"]["c0"]["earlier"] == former

    sound = (images / "c0_0000.nii.gz").read_bytes()
    (images / "c0_0000.nii.gz").write_bytes(b"no image")
    assert "changed" not in predict([model], images, out, Wanted(), "cpu", "torch").failed["c0"]
    (out / "c0.nii.gz").write_bytes(sound)  # a person's correction, after a run that failed
    for image in (sound, b"no image", sound):
        (images / "c0_0000.nii.gz").write_bytes(image)
        third = predict([model], images, out, Wanted(), "cpu", "torch")
        assert third.failed.keys() == {"c0"} and third.kept == ["c1", "c2"]
        assert "c0.nii.gz is not, or no longer, what was written here" in third.failed["c0"]
        assert (out / "c0.nii.gz").read_bytes() == sound


def test_folds_answer_with_the_mean_of_their_probabilities(tmp_path: Path, images: Path) -> None:
    folds = [model_file(tmp_path / f"fold{seed}.pt", seed) for seed in (1, 2)]
    image = images / "c0_0000.nii.gz"
    each = [Predictor.load(fold, "cpu", "torch").probabilities(image, views=2).as_tensor() for fold in folds]
    first, *others = map(load_checkpoint, folds)
    together = Predictor(first, "cpu", "torch", others=others)
    found = together.probabilities(image, views=2).as_tensor()
    torch.testing.assert_close(found, torch.stack(each).mean(0), rtol=0, atol=1e-6)
    assert float((found - each[0]).abs().max()) > 0.01 and together.version == "v1 + v2"
    result = predict(folds, image, tmp_path / "out", Wanted(), "cpu", "torch")
    assert result.done == ["c0"]
    assert len(json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]["c0"]["models"]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": {"Cube": 3}}, "labels: Ball = 3 in the first one, Cube = 3 in model 2"),
        ({"orientation": "LPS"}, "orientation: RAS in the first one, LPS in model 2"),
        ({"intensity": replace(TASK.intensity, high=98.0)}, "percentiles 0.5 to 98 of the image in model 2"),
        ({"spacing": (1.0, 1.0, 2.0)}, "voxel size: 1 x 1 x 1 mm in the first one, 1 x 1 x 2 mm in model 2"),
        ({"channels": TWO_CHANNELS}, r"number of channels: 1 in the first one, 2 \(T1, T2\) in model 2"),
    ],
)
def test_models_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, model: Path, images: Path, change: dict[str, object], words: str
) -> None:
    other = model_file(tmp_path / "other.pt", 2, replace(TASK, **change))
    with pytest.raises(CheckpointError, match=words):
        predict([model, other], images, tmp_path / "out", Wanted(), "cpu", "torch")


def test_a_model_does_not_count_twice(tmp_path: Path, model: Path, images: Path) -> None:
    copy = tmp_path / "copy.pt"
    copy.write_bytes(model.read_bytes())
    for same, words in ((model, "is given twice"), (copy, r"copy\.pt is the same model as .*model\.pt")):
        with pytest.raises(CheckpointError, match=words):
            predict([model, same], images, tmp_path / "out", Wanted(), "cpu", "torch")


def test_series_become_dicom_results_that_fit_them(tmp_path: Path, model: Path) -> None:
    pytest.importorskip("highdicom")
    folder = tmp_path / "in"
    for name, place in (("a", "oblique"), ("b", "flipped")):
        write_series(folder / "patient 1" / name, placed(place), uid=f"1.2.3.{name == 'a':d}")
    write_series(folder / "gap", placed("oblique"), uid="1.2.4")
    (folder / "gap" / "95.dcm").unlink()
    (folder / "half.dcm").write_bytes(bytes(128) + b"DICM" + b"rubbish")
    wanted = Wanted(("nifti", "dicom-seg", "rtstruct"))
    result = predict([model], folder, folder / "out", wanted, "cpu", "torch")
    assert result.done == ["patient_1_a", "patient_1_b"] and len(result.left_out) == 1
    assert "1 of its slices are missing" in result.failed["gap"]
    for case in result.done:
        values = np.asarray(nib.load(folder / "out" / f"{case}.nii.gz").dataobj)
        data = pydicom.dcmread(folder / "out" / f"{case}.seg.dcm")
        assert values.shape == (5, 4, COUNT) and data.SegmentSequence[0].SegmentLabel == "Ball"
        assert data.pixel_array.sum() == np.count_nonzero(values)
        structures = pydicom.dcmread(folder / "out" / f"{case}.rtstruct.dcm")
        assert bool(structures.ROIContourSequence[0].ContourSequence) == bool(values.any())
    again = predict([model], folder, folder / "out", wanted, "cpu", "torch")  # its own results are no input
    assert again.kept == result.done and again.left_out == result.left_out
    with pytest.raises(OutputError, match="lies among the images"):
        predict([model], folder, folder / "patient 1" / "out", wanted, "cpu", "torch")


def test_what_cannot_be_done_is_refused_before_any_work(tmp_path: Path, model: Path, images: Path) -> None:
    with pytest.raises(OutputError, match="is the folder of the images"):
        predict([model], images, images, Wanted(), "cpu", "torch")
    with pytest.raises(OutputError, match="is the folder of the images"):
        predict([model], images / "c0_0000.nii.gz", images, Wanted(), "cpu", "torch")
    (images / "inner").mkdir()
    with pytest.raises(OutputError, match="lies among the images"):
        predict([model], images, images / "inner" / "out", Wanted(), "cpu", "torch")
    with pytest.raises(ConfigError, match=r"c0_0000\.nii\.gz is no DICOM series"):
        predict([model], images, tmp_path / "out", Wanted(("dicom-seg",)), "cpu", "torch")
    with pytest.raises(ConfigError, match="expected one or more of nifti, dicom-seg, rtstruct"):
        Wanted(("nifti", "png"))
    (images / "c0.uncertainty.nii.gz").write_bytes((images / "c0_0000.nii.gz").read_bytes())
    with pytest.raises(OutputError, match=r"c0\.uncertainty\.nii\.gz would be written for the image c0 and for"):
        predict([model], images, tmp_path / "out", Wanted(uncertainty=True), "cpu", "torch")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["c0.nii.gz", "c0.png", "c2.seg.dcm", "statistics.csv"])
def test_a_file_that_no_prediction_wrote_is_not_replaced(
    tmp_path: Path, images: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "labelsTr"
    out.mkdir()
    (out / name).write_bytes(b"drawn by a person")
    monkeypatch.setattr(predicting, "_with_formats", lambda _, cases: cases)  # of series: they are not needed here
    wanted = Wanted(("nifti", "dicom-seg"), previews=True)
    with pytest.raises(OutputError, match=rf"{name} is there already.*give another folder"):
        predict([tmp_path / "never read.pt"], images, out, wanted)
    assert [file.name for file in out.iterdir()] == [name]
    assert (out / name).read_bytes() == b"drawn by a person"
    (out / name).unlink()
    killed = Manifest(out, 1, 2)
    killed.begin("c", [name], {})
    killed.making("c", {name: hashlib.sha256(b"of ours").hexdigest()})
    (out / name).write_bytes(b"of ours")
    with pytest.raises(CheckpointError, match="never read"):
        predict([tmp_path / "never read.pt"], images, out, wanted)


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_person_drew_for_an_image_that_failed_is_not_replaced(
    tmp_path: Path, model: Path, images: Path, killed: bool
) -> None:
    out = tmp_path / "out"
    assert set(predict([model], images, out, Wanted(), "cpu", "torch").failed) == {"c1"}
    if killed:  # before anything was made
        Manifest(out).begin("c1", ["c1.nii.gz"], {})
    (out / "c1.nii.gz").write_bytes(b"drawn by a person")
    (images / "c1_0000.nii.gz").write_bytes((images / "c2_0000.nii.gz").read_bytes())
    if killed:
        assert "what a person drew is not replaced" in predict([model], images, out, Wanted()).failed["c1"]
    with pytest.raises(OutputError, match=r"c1\.nii\.gz is there already"):
        predict([model], images, out, Wanted(), "cpu", "torch")
    assert (out / "c1.nii.gz").read_bytes() == b"drawn by a person"
    (out / "c1.nii.gz").unlink()
    assert predict([model], images, out, Wanted(), "cpu", "torch").done == ["c1"]


def test_what_a_kill_left_is_ours_and_goes(tmp_path: Path, model: Path, images: Path) -> None:
    out = tmp_path / "out"
    predict([model], images, out, Wanted(), "cpu", "torch")
    whole = (out / "c0.nii.gz").read_bytes()
    manifest = Manifest(out)
    made_before = manifest.cases()["c0"]
    for number, content in enumerate((b"of the run before", b"of the run that was killed")):
        old, new = (hashlib.sha256(each).hexdigest() for each in (b"of the run before", b"of the run that was killed"))
        outputs = {"nifti": {"file": "c0.nii.gz", "sha256": old}}
        manifest.note("c0", {**made_before, "outputs": outputs, "settings": {}})
        (out / "c0.nii.gz").write_bytes(b"of the run before")
        manifest.begin("c0", ["c0.nii.gz"], {})
        manifest.making("c0", {"c0.nii.gz": new})
        (out / "c0.nii.gz").write_bytes(content)  # killed before, and after it came to its place
        left = out / f".c0.{number}.part"
        left.mkdir()
        (left / "c0.nii.gz").write_bytes(b"half a patient")
        os.utime(left, (0, 0))
        assert predict([model], images, out, Wanted(), "cpu", "torch").done == ["c0"]
        assert (out / "c0.nii.gz").read_bytes() == whole
    assert sorted(file.name for file in out.iterdir() if file.name != ".lock") == [
        *("c0.nii.gz", "c2.nii.gz", "manifest.json", "statistics.csv")
    ]


def test_a_missing_output_is_said_in_words(tmp_path: Path, rep3d: Callable[..., Done], images: Path) -> None:
    models = [tmp_path / name for name in ("fold0.pt", "fold1.pt")]
    assert "OUTPUT is missing" in rep3d("predict", models[0], images).stderr
    models[1].write_bytes(b"a model")
    assert "OUTPUT is missing" in rep3d("predict", *models, images).stderr


def test_two_files_of_one_name_are_one_case_that_names_both(tmp_path: Path, images: Path) -> None:
    (images / "c2_0000.nii").write_bytes(b"another")
    (images / "c0.Nii").write_bytes(b"mixed letters")
    cases = {case.id: case.refused for case in find_sources(images).cases}
    assert set(cases) == {"c0", "c0.Nii", "c1", "c2"} and not cases["c0"]
    assert "(images/c2_0000.nii, images/c2_0000.nii.gz). Rename or remove" in cases["c2"]
    assert "mixes small and capital letters" in cases["c0.Nii"]


def test_of_a_data_set_the_folder_of_images_is_named(tmp_path: Path, images: Path) -> None:
    (tmp_path / "hip").mkdir()
    images.rename(tmp_path / "hip" / "imagesTr")
    with pytest.raises(ImageError, match=r"holds no images.*give .*hip/imagesTr\."):
        find_sources(tmp_path / "hip")


def test_a_case_may_have_a_file_for_each_channel(tmp_path: Path, rep3d: Callable[..., Done], images: Path) -> None:
    task = replace(TASK, channels=TWO_CHANNELS)
    model = tmp_path / "model.pt"
    save_checkpoint(model, Rep3D(small_config(in_channels=2)).eval(), task, {"version": "v1", "preset": "tiny"})
    image = (images / "c0_0000.nii.gz").read_bytes()
    for name in ("c2_0001", "c5_0001"):
        (images / f"{name}.nii.gz").write_bytes(image)
    (images / "c1_0000.nii.gz").unlink()
    assert find_sources(images).cases[1].files == (images / "c2_0000.nii.gz", images / "c2_0001.nii.gz")
    result = predict([model], images, tmp_path / "out", Wanted(previews=True), "cpu", "torch")
    assert result.done == ["c2"] and set(result.failed) == {"c0", "c5_0001"}
    for words in result.failed.values():  # the second one alone has no first channel to go with
        assert "1 channel, where 2 are needed" in words
    (images / "c6_0000.nii.gz").write_bytes(image)
    told = rep3d("predict", model, images, tmp_path / "told", "--device", "cpu", "--engine", "torch").stderr
    assert "3 of 4 cases could not be predicted: 3 cases (c0, c5_0001, c6): 1 channel, where 2 are needed" in told
    assert told.count("where 2 are needed") == 1
    alone = predict([model], images / "c2_0000.nii.gz", tmp_path / "alone", Wanted(), "cpu", "torch")
    assert alone.done == ["c2"]  # with its other channel, under the same name
    assert (tmp_path / "alone" / "c2.nii.gz").read_bytes() == (tmp_path / "out" / "c2.nii.gz").read_bytes()
    first = predict([model_file(tmp_path / "one.pt", 1)], images / "c2_0000.nii.gz", tmp_path / "one", Wanted(), "cpu")
    assert first.done == ["c2"]
    (images / "c2_0001.nii.gz").write_bytes((images / "c2_0000.nii.gz").read_bytes())
    assert predict([model], images, tmp_path / "out", Wanted(previews=True), "cpu", "torch").done == ["c2"]


def test_a_full_disk_ends_it_and_the_same_command_goes_on(
    tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "c1_0000.nii.gz").unlink()
    whole, out = predicting.label_statistics, tmp_path / "out"

    def full(*arguments: object) -> object:
        if any(out.glob(".c2.*/c2.nii.gz")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(predicting, "label_statistics", full)
    with pytest.raises(DiskFullError):
        predict([model], images, out, Wanted(), "cpu", "torch")
    assert {case: entry["state"] for case, entry in Manifest(out).cases().items()} == {"c0": "done", "c2": "begun"}
    monkeypatch.undo()
    result = predict([model], images, out, Wanted(), "cpu", "torch")
    assert (result.kept, result.done) == (["c0"], ["c2"])


def test_processes_share_the_cases(tmp_path: Path, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    Manifest(out, 1, 2).note("c9", {"state": "failed", "time": "2020"})  # of a process that was killed
    seen = {}
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        found = predict([model], images, out, Wanted(), "cpu", "torch")
        seen[rank] = [*found.done, *found.failed]
    assert seen == {0: ["c0", "c2"], 1: ["c1"]}
    assert list(json.loads((out / "manifest.json").read_text())["cases"]) == ["c0", "c1", "c2", "c9"]
    assert not list(out.glob("manifest.*.json")) and len((out / "statistics.csv").read_text().splitlines()) == 3
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="RANK, WORLD_SIZE"):
        predict([model], images, out, Wanted(), "cpu", "torch")


@pytest.mark.slow
def test_under_torchrun_a_failed_case_costs_no_other_process_its_own(tmp_path: Path, model: Path, images: Path) -> None:
    """torchrun stops all processes as soon as one has ended with status 1."""
    image = (images / "c0_0000.nii.gz").read_bytes()
    for number in range(12):  # those of one process are all broken
        (images / f"d{number:02d}_0000.nii.gz").write_bytes(image[: len(image) if number % 2 else 400])
    (images / "c1_0000.nii.gz").unlink()
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "rep3d")
    asked = ("predict", model, images, tmp_path / "out", "--device", "cpu", "--engine", "torch")
    done = subprocess.run([sys.executable, *command, *map(str, asked)], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    cases = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]
    assert {name: entry["state"] for name, entry in cases.items()} == {
        **{name: "done" for name in ("c0", "c2", *(f"d{number:02d}" for number in range(1, 12, 2)))},
        **{f"d{number:02d}": "failed" for number in range(0, 12, 2)},
    }


def test_two_runs_into_one_folder_lose_no_entry(tmp_path: Path) -> None:
    runs = [Manifest(tmp_path), Manifest(tmp_path)]

    def note(number: int) -> None:
        for count in range(30):
            runs[number].note(f"{number}_{count}", {"state": "failed", "time": "2020"})

    threads = [threading.Thread(target=note, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Manifest(tmp_path).cases()) == 60


def test_a_name_without_room_for_an_ending_costs_its_case_only(tmp_path: Path, model: Path, images: Path) -> None:
    long = f"a{'x' * 239}"
    (images / f"{long}.nii.gz").write_bytes((images / "c0_0000.nii.gz").read_bytes())
    result = predict([model], images, tmp_path / "out", Wanted(uncertainty=True), "cpu", "torch")
    assert result.done == ["c0", "c2"] and "name too long" in result.failed[long]
    assert "Choose another name or folder" in result.failed[long]


def test_numbers_without_a_first_channel_are_part_of_the_names(tmp_path: Path, images: Path) -> None:
    for number in (1, 4):
        (images / f"c0_{number:04d}.nii.gz").write_bytes(b"no matter")
        (images / f"amos_{number:04d}.nii.gz").write_bytes(b"no matter")
    found = {case.id: len(case.files) for case in find_sources(images).cases if not case.refused}
    assert found == {"amos_0001": 1, "amos_0004": 1, "c1": 1, "c2": 1}  # of c0 two channels are missing


def test_images_of_four_dimensions_may_be_numbered(tmp_path: Path) -> None:
    for number in range(2):
        voxels = np.zeros((6, 6, 6, 2), np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"pat_{number:04d}.nii.gz")
    assert [case.id for case in find_sources(tmp_path).cases] == ["pat_0000", "pat_0001"]


def test_a_task_file_is_checked_and_says_what_the_labels_are(
    tmp_path: Path, model: Path, images: Path, rep3d: Callable[..., Done]
) -> None:
    kidney = Term((200, 0, 0), Code("91723000", "SCT", "Anatomical Structure"), Code("64033007", "SCT", "Kidney"))
    known = TaskFile(replace(TASK, terms={"Ball": kidney}, spacing=(2.0, 2.0, 2.0)))
    write_task_file(tmp_path / "task.yaml", known)
    command = ("predict", model, images, tmp_path / "out", "--device", "cpu", "--engine", "torch", "--task")
    assert "Wrote 2 cases" in rep3d(*command, tmp_path / "task.yaml").stdout
    entry = json.loads((tmp_path / "out" / "manifest.json").read_text())["cases"]["c0"]
    assert entry["settings"]["terms"]["Ball"]["type"]["meaning"] == "Kidney"
    write_task_file(tmp_path / "other.yaml", TaskFile(TASK.with_labels({"Ball": 4})))
    refused = rep3d(*command, tmp_path / "other.yaml")
    assert refused.returncode == 1 and "other.yaml has the labels {'Ball': 4}, the model {'Ball': 3}" in refused.stderr


def test_an_image_that_is_no_series_costs_no_dicom_result(tmp_path: Path, model: Path, images: Path) -> None:
    pytest.importorskip("highdicom")
    folder = tmp_path / "mixed"
    write_series(folder / "series", placed("oblique"))
    (folder / "c0.nii.gz").write_bytes((images / "c0_0000.nii.gz").read_bytes())
    result = predict([model], folder, tmp_path / "out", Wanted(("dicom-seg",)), "cpu", "torch")
    assert result.done == ["series"] and "c0.nii.gz is no DICOM series" in result.failed["c0"]


def test_what_nothing_can_refer_to_is_not_computed_first(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(data: pydicom.Dataset, number: int) -> None:
        placed("oblique")(data, number)
        del data.FrameOfReferenceUID

    series = write_series(tmp_path / "series", change)
    monkeypatch.setattr(Predictor, "segment", lambda *_, **__: pytest.fail("it was computed"))
    result = predict([model], series, tmp_path / "out", Wanted(("nifti", "rtstruct")), "cpu", "torch")
    assert "has no FrameOfReferenceUID" in result.failed["series"]
