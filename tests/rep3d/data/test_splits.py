"""k-fold splits in a file: each case is held out once, patients stay together, what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rep3d.data.cases import Case
from rep3d.data.splits import make_splits, read_patients, read_splits, split_cases
from rep3d.errors import ConfigError

IDS = [f"case_{number:02}" for number in range(11)]
CASES = [Case(id_, Path(f"{id_}.nii.gz"), Path("label.nii.gz")) for id_ in IDS]


def test_each_case_is_held_out_once_and_the_file_is_made_once(tmp_path: Path) -> None:
    file = tmp_path / "splits.json"
    parts = [split_cases(CASES, fold, file, 5) for fold in range(5)]
    held_out = [case.id for _, validation, _ in parts for case in validation]
    assert sorted(held_out) == IDS and {len(validation) for _, validation, _ in parts} == {2, 3}
    for training, validation, left_out in parts:
        assert sorted(case.id for case in (*training, *validation)) == IDS and not left_out
    assert make_splits(IDS[::-1], 5) == read_splits(file)  # their order does not matter
    content = json.loads(file.read_text())
    assert [sorted(entry) for entry in content] == [["train", "val"]] * 5
    # Another case came: it is in no fold, and that is said.
    more = [*CASES, Case("case_99", Path("case_99.nii.gz"), Path("label.nii.gz"))]
    *_, left_out = split_cases(more[1:], 0, file)
    assert [(entry.id, entry.reason) for entry in left_out] == [
        ("case_00", "fold 0 names it, but it cannot be used here."),
        ("case_99", "fold 0 does not name it."),
    ]


def test_a_patients_cases_stay_together_where_a_file_says_so(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,patient\n" + "".join(f"{id_},P{number // 4}\n" for number, id_ in enumerate(IDS[:8])))
    patients = read_patients(table)
    as_json = tmp_path / "patients.json"
    as_json.write_text(json.dumps(patients))
    assert read_patients(as_json) == patients
    folds = make_splits(IDS, 3, patients)
    for fold in folds:
        of_val, of_train = (
            {patients[id_] for id_ in part if id_ in patients} for part in (fold.validation, fold.training)
        )
        assert not of_val & of_train
    assert sorted(len(fold.validation) for fold in folds) == [3, 4, 4]
    with pytest.raises(ConfigError, match="from 2 to 5, as there are 5 patients, got 6"):
        make_splits(IDS, 6, patients)
    apart = tmp_path / "apart.json"
    apart.write_text(json.dumps([{"train": IDS[:3], "val": IDS[3:]}]))
    with pytest.raises(ConfigError, match="measures on case_03 and is trained on case_02, both of the patient P0"):
        split_cases(CASES, 0, apart, patients=patients)
    table.write_text("case,patient\na,P1\na,P2\n")
    with pytest.raises(ConfigError, match="line 3 of .* has no case, no patient, or a second one"):
        read_patients(table)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file .*Give --folds"),
        ("{", "is no JSON"),
        ("{}", "must hold a list of folds"),
        ('[{"train": ["a"]}]', "fold 0 of .* has no 'train' and 'val'"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "is trained and measured on b"),
        ('[{"train": ["case_00"], "val": ["other"]}]', "fold 0 .* names no case to measure on that is in the data set"),
        ('[{"train": ["case_00"], "val": ["case_01"]}]', "expected from 0 to 0, the folds of .*, got 1"),
    ],
)
def test_what_cannot_be_a_split_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "splits.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=words):
        split_cases(CASES, 1 if "got 1" in words else 0, file)
    if content is not None:
        with pytest.raises(ConfigError):
            split_cases(CASES, 0, file, 7)
