"""A task is checked when it is made, survives the trip through JSON, and reads both kinds of dataset.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rep3d.errors import TaskError
from rep3d.tasks.config import Code, Intensity, TaskConfig, Term, labels_from_dataset_json, modality_from_dataset_json

TASK = TaskConfig("toy", {"Tail": 7, "Head": 2}, (1.0, 1.5, 2.0), Intensity("window", -125, 275), "LPS", (32, 48, 16))


def test_channels_follow_the_voxel_values_not_the_order_of_writing() -> None:
    assert TASK.label_names == ("Head", "Tail")
    assert TASK.label_values == (2, 7)
    assert TASK.out_channels == 3


def test_json_round_trip_is_exact() -> None:
    assert TaskConfig.from_dict(json.loads(json.dumps(TASK.to_dict()))) == TASK


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {}}, "at least one"),
        ({"labels": {"a": 0}}, "from 1 to 65535"),
        ({"labels": {"a": 1, "b": 1}}, "distinct"),
        ({"labels": {" ": 1}}, "non-empty"),
        ({"labels": {"a": 1.0}}, "voxel value"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing"),
        ({"orientation": "RRS"}, "orientation"),
        ({"roi_size": (16, 16)}, "roi_size"),
        ({"name": ""}, "name"),
    ],
)
def test_impossible_tasks_are_refused(change: dict, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        replace(TASK, **change)


@pytest.mark.parametrize("values", [("clip", 0, 1), ("window", 5, 5), ("zscore", -1, 99), ("window", 0, float("inf"))])
def test_impossible_intensities_are_refused(values: tuple) -> None:
    with pytest.raises(TaskError):
        Intensity(*values)


def test_from_dict_refuses_missing_and_unknown_fields() -> None:
    with pytest.raises(TaskError):
        TaskConfig.from_dict({"name": "x"})
    with pytest.raises(TaskError):
        TaskConfig.from_dict({**TASK.to_dict(), "colour": "red"})


@pytest.mark.parametrize(
    "labels", [{"0": "background", "1": "Head", "2": "Tail"}, {"background": 0, "Head": 1, "Tail": 2}]
)
def test_both_forms_of_dataset_json(tmp_path: Path, labels: dict) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": labels, "modality": {"0": "MRI"}}))
    assert labels_from_dataset_json(path) == {"Head": 1, "Tail": 2}
    assert modality_from_dataset_json(path) == "MRI"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"labels": 3}', '{"labels": {"0": "background"}}', '{"labels": {"a": "b"}}']
)
def test_unusable_dataset_json_is_refused_naming_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(TaskError):
        labels_from_dataset_json(path)


def test_missing_dataset_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="cannot be read"):
        labels_from_dataset_json(tmp_path / "dataset.json")


ORGAN = Term(
    (10, 20, 30),
    Code("123037004", "SCT", "Anatomical Structure"),
    Code("64033007", "SCT", "Kidney"),
    Code("7771000", "SCT", "Left"),
)


def test_terms_and_modality_survive_json_and_may_be_absent() -> None:
    lesion = Term((1, 2, 3), ORGAN.category, Code("108369006", "SCT", "Neoplasm"), region=ORGAN.type)
    task = replace(TASK, terms={"Tail": ORGAN, "Head": lesion}, modality="CT")
    written = task.to_dict()
    assert written["terms"]["Head"]["region"] == {"value": "64033007", "scheme": "SCT", "meaning": "Kidney"}
    assert "modifier" not in written["terms"]["Head"]
    assert TaskConfig.from_dict(json.loads(json.dumps(written))) == task
    older = {name: value for name, value in TASK.to_dict().items() if name not in ("terms", "modality")}
    assert TaskConfig.from_dict(older) == TASK


def test_other_labels_keep_the_terms_of_those_that_stay() -> None:
    task = replace(TASK, terms={"Tail": ORGAN, "Head": Term((0, 0, 0))})
    changed = task.with_labels({"Tail": 1, "Body": 2})
    assert (changed.labels, dict(changed.terms)) == ({"Tail": 1, "Body": 2}, {"Tail": ORGAN})
    assert (changed.spacing, changed.intensity, changed.roi_size) == (TASK.spacing, TASK.intensity, TASK.roi_size)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Term((1, 2)),  # type: ignore[arg-type]
        lambda: Term((0, 0, 256)),
        lambda: Term((0, 0, 0.5)),  # type: ignore[arg-type]
        lambda: Term((0, 0, 0), type=ORGAN.type),
        lambda: Term((0, 0, 0), modifier=ORGAN.modifier),
        lambda: Code("", "SCT", "Liver"),
        lambda: Code("1", "SCT", 3),  # type: ignore[arg-type]
        lambda: replace(TASK, terms={"Body": ORGAN}),
        lambda: replace(TASK, terms={"Head": "red"}),
        lambda: TaskConfig.from_dict({**TASK.to_dict(), "terms": {"Head": {"color": [1, 2, 3]}}}),
        lambda: TaskConfig.from_dict({**TASK.to_dict(), "terms": ["Head"]}),
    ],
)
def test_impossible_terms_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(TaskError):
        make()
