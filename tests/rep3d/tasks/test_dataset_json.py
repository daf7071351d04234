"""Tables of labels as people and nnU-Net write them: used where they can mean one thing only, else refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rep3d.data.cohort import decathlon_cohort, phantom_cohort
from rep3d.errors import TaskError
from rep3d.tasks.dataset_json import (
    Annotated,
    annotated_from_dataset_json,
    channels_from_dataset_json,
    ignore_from_dataset_json,
    label_table,
    labels_from_dataset_json,
    modality_from_dataset_json,
)


def written(folder: Path, content: Any, encoding: str = "utf-8") -> Path:
    path = folder / "dataset.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding=encoding)
    return path


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "A": 1, "B": 3},
        {"A": 1, "B": 3},
        {"0": "background", "1": "A", "3": "B"},
        {"0": "Clear Label", "1": "A", "3": "B"},
        {"background": "0", "A": "1", "B": " 3 "},
        {"background": 0.0, "A": 1.0, "B": "3.0"},
        {"0": "background", "background": 0, "1": "A", "A": 1, "B": 3},
        {" A ": 1, "B\n": 3},
        {"background": 0, "A": [1], "B": [3]},
        {"0": "Background", "1.0": "A", "03": "B"},
    ],
    ids=["nnunet", "no background", "decathlon", "itk-snap", "texts", "floats", "both", "spaces", "regions", "keys"],
)
def test_tables_that_mean_one_thing_are_used(tmp_path: Path, labels: dict) -> None:
    assert labels_from_dataset_json(written(tmp_path, {"labels": labels})) == {"A": 1, "B": 3}


def test_names_that_are_their_own_numbers_and_slashes_are_names(tmp_path: Path) -> None:
    labels = {"17": 17, "prostate/uterus": 2, "18": "18"}
    assert labels_from_dataset_json(written(tmp_path, {"labels": labels})) == {"17": 17, "prostate/uterus": 2, "18": 18}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"0": "background", "1": "A", "2": "A"}, "'A' has two values, 1 and 2"),
        ({"1": "A", "A": 2}, "'A' has two values, 1 and 2"),
        ({"A": 1, "B": 1}, "the value 1 has two names, 'A' and 'B'"),
        ({"A": 1, "ignore": 1}, "'ignore' has the value 1; expected one that no label"),
        ({"A": 1, "ignore": 0}, "'ignore' has the value 0"),
        ({"A": 1, "ignore": 2, "3": "Ignore"}, "'ignore' has the value 2 and 3"),
        ({"background": 1, "A": 2}, "'background' has the value 1, but the background is 0"),
        ({"A": 0, "B": 1}, "'A' has the value 0, which is the background's"),
        ({"A": True}, "value True; expected a whole number from 1 to 65535"),
        ({"A": 1.5}, "value 1.5; expected"),
        ({"A": -1}, "value -1; expected"),
        ({"-1": "A"}, "value '-1'; expected"),
        ({"A": 65536}, "value 65536; expected"),
        ({"A": 10**400}, "expected a whole number"),
        ({"A": "one"}, "value 'one'; expected"),
        ({"A": None}, "value None; expected"),
        ({"A": {"value": 1}}, "expected a whole number"),
        ({"whole tumour": [1, 2, 3], "core": [2, 3]}, "'whole tumour' is a region of several values"),
        ({"1": "2"}, "neither can be told to be the name"),
        ({"1": ["A", "B"]}, "neither can be told to be the name"),
        ({"": 1}, "expected a name of 1 to 128"),
        ({"1": "  "}, "expected a name of 1 to 128"),
        ({"A\nB": 1}, "expected a name of 1 to 128"),
        ({"A\udce9": 1}, "expected a name of 1 to 128"),
        ({"A" * 129: 1}, "expected a name of 1 to 128"),
        ({"Liver": 1, "liver": 2}, "'Liver' and 'liver' differ only in capitals"),
        ({"left  lung": 1, "left lung": 2}, "differ only in capitals or white space"),
        ({"background": 0}, "at least one label"),
        ({}, "at least one label"),
        (["background", "A"], "expected .*NAME: 1"),
        (None, "expected .*NAME: 1"),
    ],
)
def test_tables_that_could_mean_two_things_are_refused(tmp_path: Path, labels: Any, words: str) -> None:
    path = written(tmp_path, {"labels": labels})
    with pytest.raises(TaskError, match=words) as refusal:
        labels_from_dataset_json(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("labels", [{"A": 1, "ignore": 2}, {"1": "A", "2": " Ignore"}])
def test_ignore_is_no_label(tmp_path: Path, labels: dict) -> None:
    path = written(tmp_path, {"labels": labels})
    assert (labels_from_dataset_json(path), ignore_from_dataset_json(path)) == ({"A": 1}, 2)
    with pytest.raises(TaskError, match="no structure"):
        label_table([("A", 1), ("ignore", 2)])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Annotated()),
        (["B"], Annotated(("B",))),
        ({"x": ["B", "A"], "y": []}, Annotated(None, {"x": ("A", "B"), "y": ()})),
    ],
)
def test_what_was_annotated_is_read(tmp_path: Path, given: Any, expected: Annotated) -> None:
    path = written(tmp_path, {"labels": {"A": 1, "B": 2}, **({} if given is None else {"annotated": given})})
    assert annotated_from_dataset_json(path) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [("A", "expected a list"), ({"x": "A"}, "of x: expected a list"), ({"x": ["a"]}, "of x names 'a', which is none")],
)
def test_what_was_annotated_must_be_labels(tmp_path: Path, given: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        annotated_from_dataset_json(written(tmp_path, {"labels": {"A": 1}, "annotated": given}))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows_editors_are_read_by_all(tmp_path: Path, encoding: str) -> None:
    phantom_cohort(tmp_path, 1, 1, seed=0)
    content = {"name": "Léber", "labels": {"0": "background", "1": "A"}, "modality": {"0": "CT"}}
    path = written(tmp_path, content, encoding)
    assert (labels_from_dataset_json(path), modality_from_dataset_json(path)) == ({"A": 1}, "CT")
    assert decathlon_cohort(tmp_path, 1, 1, seed=0).name == "Léber"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"labels": {"A": 1,\n  "B": 2,\n}}', r"line [23], column \d"),
        ('{"labels": {"A": 1, "A": 2}}', "'A' is there twice, with 1 and with 2"),
        ("[]", "JSON object"),
    ],
)
def test_files_that_are_no_json_are_refused_with_the_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        labels_from_dataset_json(written(tmp_path, text))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"modality": {"0": "MRI"}}, "MRI"),
        ({"channel_names": {"0": "CT"}}, "CT"),
        ({"channel_names": {"1": " CT "}}, "CT"),
        ({"modality": "CT"}, "CT"),
        ({"modality": ["CT"]}, "CT"),
        ({"modality": {"CT": 0}}, "CT"),
        ({"modality": {"0": "CT"}, "channel_names": {"0": "noNorm"}}, "CT"),
        ({"modality": {}}, None),
        ({}, None),
    ],
)
def test_modality_of_one_channel(tmp_path: Path, content: dict, expected: str | None) -> None:
    assert modality_from_dataset_json(written(tmp_path, content)) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"channel_names": {"0": "T2", "1": "ADC"}}, r"2 channels \(T2, ADC\), but only images of one channel"),
        ({"modality": ["T2", "ADC"]}, "2 channels"),
        ({"modality": {"0": "CT"}, "channel_names": {"0": "MRI"}}, "two kinds of image"),
        ({"modality": {"0": 3.5}}, "expected .modality"),
        ({"channel_names": {"0": "T1", "2": "T2"}}, "expected .channel_names"),
        ({"modality": ["CT", "MR"], "channel_names": {"0": "MR", "1": "CT"}}, "two kinds of image"),
        ({"modality": ["CT"], "channel_names": {"0": "CT", "1": "CT"}}, "two kinds of image"),
        ({"modality": 3}, "expected .modality"),
    ],
)
def test_modality_that_cannot_be_used_is_refused(tmp_path: Path, content: dict, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        modality_from_dataset_json(written(tmp_path, content))


def test_channels_come_in_their_order(tmp_path: Path) -> None:
    names = {str(number): f"c{number}" for number in (10, 2, *range(2), *range(3, 10))}
    assert channels_from_dataset_json(written(tmp_path, {"channel_names": names})) == tuple(f"c{n}" for n in range(11))
    assert channels_from_dataset_json(written(tmp_path, {"modality": {"FLAIR": 1, "T1": 0}})) == ("T1", "FLAIR")
    assert channels_from_dataset_json(written(tmp_path, {})) == ()


VALUES = st.sampled_from([0, 1, 2, "1", "2.0", 2.0, True, None, [1], [1, 2], -1, 70000])


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["A", "a", "B", " B", "background", "ignore"]), VALUES), max_size=4))
def test_a_table_is_one_to_one_or_refused(pairs: list) -> None:
    try:
        table = label_table(pairs)
    except TaskError:
        return
    assert len(set(table.values())) == len(table) and all(1 <= value <= 65535 for value in table.values())
    told = {name.strip() for name, _ in pairs}
    assert set(table) == told - {"background"}
