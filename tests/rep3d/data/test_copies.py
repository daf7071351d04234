"""A patient who is there twice is found by what the files contain, whatever they are called and however packed."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np

from rep3d.data.cases import Case, DataSet
from rep3d.data.copies import copies, without_copies


def _case(folder: Path, name: str, image: np.ndarray, label: np.ndarray, ending: str = ".nii.gz") -> Case:
    paths = folder / f"{name}_image{ending}", folder / f"{name}_label{ending}"
    for path, values in zip(paths, (image, label), strict=True):
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return Case(name, *paths)


def test_copies_are_found_under_other_names_and_otherwise_packed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    one, other = (random.integers(0, 900, (6, 5, 4), np.int16) for _ in range(2))
    label = (one > 400).astype(np.uint8)
    cases = [
        _case(tmp_path, "a", one, label),
        _case(tmp_path, "b", other, label),
        _case(tmp_path, "c", one, label, ".nii"),
        _case(tmp_path, "d", one, 1 - label),
    ]
    # The last one is packed again, at another level and another time.
    cases[3].image.write_bytes(gzip.compress(gzip.decompress(cases[3].image.read_bytes()), 1))
    found = {entry.id: entry for entry in copies(cases, lambda case: True)}
    assert list(found) == ["c", "d"]
    assert found["c"].file == "c_image.nii" and "copy of a_image.nii.gz" in found["c"].reason
    assert "label maps are the same" in found["c"].reason and "label maps differ" in found["d"].reason
    once = without_copies(DataSet(tmp_path, tuple(cases), ()), lambda case: True)
    assert [case.id for case in once.cases] == ["a", "b"] and once.found == 4
    asked: list[str] = []

    def usable(case: Case) -> bool:
        asked.append(case.id)
        return case.id == "d"

    once = without_copies(DataSet(tmp_path, tuple(cases), ()), usable)  # a good label map is not lost to a bad one
    assert [case.id for case in once.cases] == ["b", "d"] and asked == ["a", "c", "d"]
    assert all("copy of d_image.nii.gz" in entry.reason for entry in once.left_out)
    assert [case.id for case in without_copies(once, usable).cases] == ["b", "d"] and asked == ["a", "c", "d"]


def test_what_cannot_be_read_is_no_copy(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.nii.gz" for name in "abc"]
    paths[0].write_bytes(b"none")
    paths[1].write_bytes(b"no gzip file, with the same end")
    paths[2].write_bytes(b"neither, but with the same end")
    assert copies([Case(path.stem, path, path) for path in (*paths, tmp_path / "gone.nii.gz")], lambda case: True) == []
