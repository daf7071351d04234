"""What lies in a data set's folder is used where it is certain what it is, and is named otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.data.cases import LeftOut, listed, read_data_set
from rep3d.data.cohort import decathlon_cohort
from rep3d.errors import TaskError
from rep3d.imaging.nifti import read_image
from rep3d.training.preparing import why_unusable


def _write(path: Path, values: np.ndarray | None = None) -> None:
    values = np.arange(64, dtype=np.int16).reshape(4, 4, 4) if values is None else values
    plain = path.with_name("plain.nii.gz" if path.name.lower().endswith(".gz") else "plain.nii")
    plain.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.eye(4)), plain)
    plain.rename(path)


def _data(folder: Path, images: list[str], labels: list[str]) -> Path:
    for name in images:
        _write(folder / "imagesTr" / name)
    for name in labels:
        _write(folder / "labelsTr" / name, np.ones((4, 4, 4), np.uint8))
    return folder


def test_names_whose_meaning_is_certain_are_used(tmp_path: Path) -> None:
    images = ["a.nii", "b.nii.gz", "C.NII.GZ", "d.NII", "e_0000.nii.gz", "f_0000.nii.gz"]
    labels = ["a.nii.gz", "b.nii", "C.nii.gz", "d.NII.GZ", "e.nii.gz", "f_0000.nii.gz"]
    found = read_data_set(_data(tmp_path, images, labels))
    assert found.left_out == () and found.found == 6
    pairs = {case.id: (case.image.name, case.label.name) for case in found.cases}
    ids = ["C", "a", "b", "d", "e", "f_0000"]
    assert list(pairs) == ids and pairs["e"] == ("e_0000.nii.gz", "e.nii.gz") and pairs["d"] == ("d.NII", "d.NII.GZ")
    for case in found.cases:
        assert read_image(case.image)[0].shape == read_image(case.label)[0].shape == (4, 4, 4)


def test_channels_are_one_case_in_their_order(tmp_path: Path) -> None:
    images = ["a_0001.nii.gz", "a_0000.nii.gz", "a_0002.NII", "b.nii.gz"]
    found = read_data_set(_data(tmp_path, images, ["a.nii.gz", "b.nii.gz"]))
    assert [[file.name for file in case.channels] for case in found.cases] == [
        ["a_0000.nii.gz", "a_0001.nii.gz", "a_0002.NII"],
        ["b.nii.gz"],
    ]
    assert found.left_out == () and found.cases[0].image.name == "a_0000.nii.gz"


def test_a_plain_pair_and_two_folders(tmp_path: Path) -> None:
    _data(tmp_path, ["a.nii", "b.nii"], ["a.nii"])
    (tmp_path / "imagesTr").rename(tmp_path / "images")
    (tmp_path / "labelsTr").rename(tmp_path / "labels")
    for found in (read_data_set(tmp_path), read_data_set(tmp_path / "images", tmp_path / "labels")):
        assert [case.id for case in found.cases] == ["a"]
        assert [str(entry) for entry in found.left_out] == [
            "images/b.nii: there is no label b.nii.gz or b.nii in labels."
        ]
    with pytest.raises(TaskError, match="There is no folder .*nowhere"):
        read_data_set(tmp_path / "images", tmp_path / "nowhere")


def test_cases_know_what_was_annotated_in_them(tmp_path: Path) -> None:
    _data(tmp_path, ["a.nii", "b.nii", "c.nii"], ["a.nii", "b.nii", "c.nii"])
    content = {"labels": {"0": "background", "1": "A", "2": "B"}, "annotated": {"b": ["B"], "c": []}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    found = read_data_set(tmp_path)
    assert {case.id: case.annotated for case in found.cases} == {"a": None, "b": ("B",)}
    assert found.cases[1].known({"A": 1, "B": 2}) == {"B": 2} and found.cases[0].known({"A": 1}) == {"A": 1}
    assert [entry.id for entry in found.left_out] == ["c"] and "none of its labels" in found.left_out[0].reason
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "annotated": {"d": ["A"]}}))
    with pytest.raises(TaskError, match="cases that are not there: d"):
        read_data_set(tmp_path)


def test_what_is_not_used_is_named_with_the_reason(tmp_path: Path) -> None:
    images = [
        "a.nii.gz",
        "alone.nii",
        "twice.nii",
        "twice.nii.gz",
        "two_0000.nii",
        "two_0002.nii",
        "x.nii",
        "x_0000.nii",
    ]
    _data(tmp_path, [*images, "._a.nii.gz", "Mixed.Nii"], ["a.nii", "twice.nii", "two.nii", "x.nii", "orphan.nii"])
    place = tmp_path / "imagesTr"
    _write(place / "sub" / "deep.nii")
    (place / "lost.nii").symlink_to(tmp_path / "nowhere")
    (place / "empty.nii.gz").touch()
    (place / "scan.mha").write_text("x")
    (place / ".DS_Store").write_text("x")
    _write(tmp_path / "labelsTr" / "empty.nii.gz")
    found = read_data_set(tmp_path)
    assert [case.id for case in found.cases] == ["a"]
    told = {entry.file: entry.reason for entry in found.left_out}
    expected = {
        "imagesTr/._a.nii.gz": "hidden",
        "imagesTr/Mixed.Nii": "mixes small and capital letters",
        "imagesTr/alone.nii": "there is no label alone.nii.gz",
        "labelsTr/orphan.nii": "there is no image orphan.nii.gz",
        "imagesTr/twice.nii": "not clear which files belong together",
        "imagesTr/twice.nii.gz": "not clear which files belong together",
        "labelsTr/twice.nii": "not clear which files belong together",
        "imagesTr/two_0000.nii": "a channel of two, of which channel two_0001 is missing",
        "imagesTr/two_0002.nii": "a channel of two, of which channel two_0001 is missing",
        "labelsTr/two.nii": "the file that belongs to it cannot be used",
        "imagesTr/x.nii": "not clear which files belong together",
        "imagesTr/x_0000.nii": "not clear which files belong together",
        "labelsTr/x.nii": "not clear which files belong together",
        "imagesTr/sub": "subfolders are not looked into",
        "imagesTr/lost.nii": "a link to a file that is not there",
        "imagesTr/empty.nii.gz": "it is empty",
        "labelsTr/empty.nii.gz": "the file that belongs to it cannot be used",
        "imagesTr/scan.mha": "no NIfTI file",
    }
    assert set(told) == set(expected)
    for file, words in expected.items():
        assert words in told[file], file
    assert listed([LeftOut("x", "x.nii", "odd.")] * 25).endswith("; and 5 more")


@pytest.mark.parametrize("missing", ["imagesTr", "labelsTr"])
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, missing: str) -> None:
    (tmp_path / ("labelsTr" if missing == "imagesTr" else "imagesTr")).mkdir()
    with pytest.raises(TaskError, match=f"has no folder {missing}"):
        read_data_set(tmp_path)


def test_a_cohort_takes_another_case_for_one_that_cannot_be_used(tmp_path: Path) -> None:
    _data(tmp_path, [f"c{n}.nii" for n in range(5)], [f"c{n}.nii" for n in range(4)])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "A"}}))
    whole = (tmp_path / "imagesTr" / "c2.nii").read_bytes()
    (tmp_path / "imagesTr" / "c2.nii").write_bytes(whole[:400])
    found = decathlon_cohort(tmp_path, 2, 1, 0, why_unusable)
    assert {case.id for case in (*found.pool, *found.held_out)} == {"c0", "c1", "c3"}
    assert {"c2", "c4"} >= {entry.id for entry in found.left_out} >= {"c4"} and found.found == 5
    with pytest.raises(TaskError, match=r"3 of 5 can be used.*c4.nii.*c2.nii is damaged"):
        decathlon_cohort(tmp_path, 3, 1, 0, why_unusable)
