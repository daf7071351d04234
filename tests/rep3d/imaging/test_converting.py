"""A data set in another layout has the same voxels at the same places, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.cli.main import main
from rep3d.data.cases import Case, read_data_set
from rep3d.data.meaning import meaning_of
from rep3d.errors import OutputError, TaskError
from rep3d.imaging import converting
from rep3d.imaging.channels import read_channels
from rep3d.imaging.converting import LAYOUTS, convert_data_set
from rep3d.tasks.dataset_json import (
    channels_from_dataset_json,
    ignore_from_dataset_json,
    labels_and_ignore,
    labels_from_dataset_json,
)

OBLIQUE = np.array([[0.0, -1.5, 0.2, 7.0], [0.8, 0.0, 0.0, -3.0], [0.0, 0.3, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
LABELS, IGNORE = {"Liver": 1, "Tumour": 7}, 255


def _write(path: Path, voxels: np.ndarray, slope: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(voxels, OBLIQUE)
    if slope is not None:
        image.header.set_slope_inter(slope, -3.0)
    nib.save(image, path)


def _source(folder: Path, channels: int) -> Path:
    """Return an nnU-Net data set of three cases, one not packed, with an image to test on."""
    random = np.random.default_rng(0)
    for case, ending in (("a", ".nii.gz"), ("b", ".nii"), ("c_0001", ".nii.gz")):
        for channel in range(channels):
            voxels = random.integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
            _write(folder / "imagesTr" / f"{case}_{channel:04d}{ending}", voxels, 0.25 if case == "b" else None)
        _write(folder / "labelsTr" / f"{case}{ending}", random.choice([0, 1, 7, 255], (4, 5, 6)).astype(np.uint8))
    for channel in range(channels):
        _write(folder / "imagesTs" / f"t_{channel:04d}.nii.gz", np.full((4, 5, 6), channel, np.uint8))
    content = {
        "channel_names": {str(channel): f"T{channel}" for channel in range(channels)},
        "labels": {"background": 0, **LABELS, "ignore": IGNORE},
        "licence": "CC0",
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def _convert(source: Path, layout: str, output: Path) -> converting.Converted:
    return convert_data_set(read_data_set(source), meaning_of(source), layout, output)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_layout_from_every_layout(tmp_path: Path, channels: int) -> None:
    source = _source(tmp_path / "source", channels)
    expected = {case.id: case for case in read_data_set(source).cases}
    assert list(expected) == ["a", "b", "c_0001"]
    for first in LAYOUTS:
        assert _convert(source, first, tmp_path / first).cases == ("a", "b", "c_0001")
        for second in LAYOUTS:
            place = tmp_path / f"{first}_{second}"
            done = _convert(tmp_path / first, second, place)
            assert done.tests == ("t",) and done.left_out == ()
            _assert_same(place, expected, channels)
    assert (tmp_path / "nnunet" / "imagesTr" / "a_0000.nii.gz").is_file()
    assert (tmp_path / "decathlon" / "imagesTr" / "a.nii.gz").is_file()
    assert json.loads((tmp_path / "decathlon" / "dataset.json").read_text())["numTest"] == 1
    packed = source / "labelsTr" / "a.nii.gz"
    assert (tmp_path / "plain_nnunet" / "labelsTr" / "a.nii.gz").read_bytes() == packed.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _assert_same(folder: Path, expected: dict[str, Case], channels: int) -> None:
    path = folder / "dataset.json"
    assert (labels_from_dataset_json(path), ignore_from_dataset_json(path)) == (LABELS, IGNORE)
    assert channels_from_dataset_json(path) == tuple(f"T{channel}" for channel in range(channels))
    assert json.loads(path.read_text())["licence"] == "CC0"
    found = read_data_set(folder)
    assert [case.id for case in found.cases] == list(expected)
    for case in found.cases:
        known = expected[case.id]
        assert case.annotated == known.annotated
        np.testing.assert_array_equal(nib.load(case.label).dataobj, nib.load(known.label).dataobj)
        np.testing.assert_array_equal(nib.load(case.label).affine, nib.load(known.label).affine)
        np.testing.assert_array_equal(nib.load(case.image).affine, nib.load(known.image).affine)
        stored = nib.load(case.image)
        assert stored.get_data_dtype() == np.int16
        for name in ("qform_code", "sform_code", "quatern_b", "srow_x", "xyzt_units"):
            np.testing.assert_array_equal(stored.header[name], nib.load(known.image).header[name])
        for one, other in zip(read_channels(case.channels, channels)[0], known.channels, strict=True):
            np.testing.assert_array_equal(one, np.asarray(nib.load(other).dataobj))


def test_a_case_that_cannot_be_converted_costs_no_other(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", 2)
    _write(source / "imagesTr" / "a_0001.nii.gz", np.zeros((4, 5, 7), np.int16))
    (source / "imagesTr" / "c_0001_0001.nii.gz").unlink()
    cut = source / "imagesTs" / "t_0000.nii.gz"
    cut.write_bytes(cut.read_bytes()[:30])
    done = _convert(source, "decathlon", tmp_path / "out")
    assert done.cases == ("b",) and done.tests == ()
    reasons = {entry.file: entry.reason for entry in done.left_out}
    assert "does not lie on the voxels of a_0000.nii.gz" in reasons["imagesTr/a_0000.nii.gz"]
    assert "1 channel, where 2 are needed" in reasons["imagesTr/c_0001_0000.nii.gz"]
    assert "t_0000.nii.gz" in reasons["imagesTs/t_0000.nii.gz"]
    assert [path.name for path in (tmp_path / "out").rglob("*.nii.gz")].count("b.nii.gz") == 2
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2


def test_a_studies_folder_of_files_for_each_channel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "studies", tmp_path / "new"
    source.mkdir()
    for file in (_source(tmp_path / "set", 2) / "imagesTr").iterdir():
        file.rename(source / file.name)
    expected, _ = read_channels([source / "b_0000.nii", source / "b_0001.nii"], 2)
    (source / "a_0001.nii.gz").unlink()
    (source / "dataset.json").write_text(json.dumps({"labels": {"Liver": 1}, "channel_names": {"0": "T0", "1": "T1"}}))
    monkeypatch.setattr("sys.argv", ["rep3d", "convert", str(source), str(out), "--to", "studies"])
    with pytest.raises(SystemExit, match="1"):
        main()
    told = capsys.readouterr()
    assert "a_0000.nii.gz: 1 channel, where 2 are needed" in told.out and "1 images could not" in told.err
    assert sorted(file.name for file in out.iterdir()) == ["b.nii.gz", "c_0001.nii.gz", "dataset.json"]
    found, grid = read_channels(out / "b.nii.gz", 2)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(grid.affine, OBLIQUE, atol=1e-6)
    assert channels_from_dataset_json(out / "dataset.json") == ("T0", "T1")
    assert labels_from_dataset_json(out / "dataset.json") == {"Liver": 1}


def test_what_was_annotated_is_kept_and_refused_where_it_cannot_be(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", 1)
    content = json.loads((source / "dataset.json").read_text())
    (source / "dataset.json").write_text(json.dumps({**content, "annotated": {"b": ["Liver"]}}))
    for layout in ("plain", "decathlon"):
        _convert(source, layout, tmp_path / layout)
        found = {case.id: case.annotated for case in read_data_set(tmp_path / layout).cases}
        assert found == {"a": None, "b": ("Liver",), "c_0001": None}
    with pytest.raises(TaskError, match="annotated in b.*nnU-Net .* would learn the other labels as background"):
        _convert(source, "nnunet", tmp_path / "nnunet")
    assert not (tmp_path / "nnunet").exists()


def test_scales_that_differ_are_applied(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", 2)
    _write(source / "imagesTr" / "a_0001.nii.gz", np.full((4, 5, 6), 6, np.int16), 0.5)
    _convert(source, "decathlon", tmp_path / "out")
    joined = np.asarray(nib.load(tmp_path / "out" / "imagesTr" / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(joined[..., 0], nib.load(source / "imagesTr" / "a_0000.nii.gz").dataobj)
    assert (joined[..., 1] == 0.0).all()


def test_places_that_would_overwrite_anything_are_refused(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    for place, words in (
        (source, "lies in the data set"),
        (source / "out", "lies in the data set"),
        (tmp_path, "or around it"),
        (tmp_path / "full", "is there already"),
        (tmp_path / "link", "is there already"),
        (tmp_path / "full" / "x", "is there already"),
    ):
        with pytest.raises(OutputError, match=words):
            _convert(source, "plain", place)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_of_what_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source(tmp_path / "source", 1)
    before = sorted(tmp_path.rglob("*"))

    def stop(id_: str) -> None:
        if id_ == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_data_set(read_data_set(source), meaning_of(source), "plain", tmp_path / "out", stop)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_nothing_says_must_be_given(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", 1)
    (source / "dataset.json").unlink()
    with pytest.raises(TaskError, match="its labels must be named: --labels"):
        meaning_of(source)
    table = labels_and_ignore([("Liver", "1"), ("Tumour", "7"), ("ignore", "255")])
    with pytest.raises(TaskError, match="--channels CT"):
        meaning_of(source, table)
    meaning = meaning_of(source, table, ["CT"])
    done = convert_data_set(read_data_set(source), meaning, "nnunet", tmp_path / "out")
    assert done.remarks == (
        "nnU-Net asks for labels 1, 2, 3 ... without gaps; here they are 1, 7.",
        "nnU-Net asks for the highest value for ignore, directly after the last label: 3 where labels are without "
        "gaps; here it is 255.",
    )
    assert ignore_from_dataset_json(tmp_path / "out" / "dataset.json") == 255


def test_a_real_data_set(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for part in ("imagesTr", "labelsTr"):
        (source / part).mkdir(parents=True)
        for file in sorted((shared_data / "hippocampus" / part).iterdir())[:2]:
            (source / part / file.name).symlink_to(file)
    (source / "dataset.json").write_bytes((shared_data / "hippocampus" / "dataset.json").read_bytes())
    done = _convert(source, "nnunet", tmp_path / "Dataset004_Hippocampus")
    assert len(done.cases) == 2 and done.remarks == ()
    for case, known in zip(
        read_data_set(tmp_path / "Dataset004_Hippocampus").cases, read_data_set(source).cases, strict=True
    ):
        assert case.image.name == f"{known.id}_0000.nii.gz" and not case.image.is_symlink()
        assert case.image.read_bytes() == known.image.read_bytes()
        assert case.label.read_bytes() == known.label.read_bytes()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source = _source(tmp_path / "source", 1)

    def out() -> str:
        return " ".join(capsys.readouterr())

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr("sys.argv", ["rep3d", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert run(source, tmp_path / "out", "--to", "decathlon") == 0
    assert "3 cases, 1 images without label maps (decathlon)" in out()
    assert run(source, tmp_path / "out", "--to", "decathlon") == 1 and "is there already" in out()
    folders = (source / "imagesTr", tmp_path / "two", "--to", "nnunet", "--label-maps", source / "labelsTr")
    assert run(*folders) == 1 and "--labels liver=1" in out()
    assert run(*folders, "--labels", "Liver=1,Tumour=7,ignore=255", "--channels", "CT") == 0
    assert "without gaps; here they are 1, 7" in out()
    assert run(*folders[:1], tmp_path / "none", *folders[2:], "--labels", "Anterior:1", "--channels", "CT") == 1
    assert "expected NAME=VALUE, with commas between several, got 'Anterior:1'" in out()
    assert run(source, tmp_path / "named", "--to", "plain", "--labels", "Cat=1,Dog=7,ignore=255") == 0
    assert "dataset.json were replaced: Liver=1, Tumour=7 by Cat=1, Dog=7." in out()
    assert run(source, tmp_path / "fewer", "--to", "plain", "--labels", "Cat=7") == 1
    assert "labelsTr/b.nii has unexpected values: [1, 255]" in out()
    (source / "labelsTr" / "a.nii.gz").write_bytes(b"x")
    assert run(source, tmp_path / "third", "--to", "plain") == 1
    told = out()
    assert "Wrote" in told and "left out: imagesTr/a_0000.nii.gz: a.nii.gz is" in told and "1 images could not" in told
