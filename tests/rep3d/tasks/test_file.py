"""Task files: what is written is read again, and what cannot be used is refused with the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from rep3d.errors import TaskError
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.tasks.file import TaskFile, TrainingHints, read_task_file, task_text, write_task_file
from rep3d.tasks.registry import TASKS, known_task

_TASK = """
name: liver_ct
labels: {liver: 1, tumour: 3}
spacing: [1.5, 1.5, 2.0]
intensity: {mode: window, low: -100.0, high: 200.0}
orientation: RAS
roi_size: [96, 96, 64]
terms:
  liver: {colour: [1, 2, 3]}
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "task.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", TASKS)
def test_registered_tasks_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    known = TaskFile(TASKS[name], TrainingHints("tiny", "auto", "use"))
    write_task_file(tmp_path / "copy.yaml", known, "a remark\nof two lines")
    assert read_task_file(tmp_path / "copy.yaml") == known
    assert (tmp_path / "copy.yaml").read_text(encoding="utf-8").startswith("# a remark\n# of two lines\nname: ")


def test_a_file_written_by_hand_is_a_task(tmp_path: Path) -> None:
    known = read_task_file(_file(tmp_path, _TASK))
    assert known.training.given() == {}
    assert known.task.intensity == Intensity("window", -100, 200) and known.task.roi_size == (96, 96, 64)
    assert known.task.label_names == ("liver", "tumour") and known.task.terms["liver"].colour == (1, 2, 3)
    assert known_task(str(tmp_path / "task.yaml")) == known.task


def test_names_that_yaml_would_take_for_something_else_are_kept(tmp_path: Path) -> None:
    labels = {"no": 1, "1": 2, "null": 3, "Größe: ä": 4, "1e3": 5, "- a": 6, "#b": 7}
    task = TaskConfig("on", labels, description="yes")
    assert read_task_file(_file(tmp_path, task_text(TaskFile(task)))).task == task


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("spacing: [1.5, 1.5, 2.0]", "spacing: [1.5, 0, 2]", "the field 'spacing'.*three positive lengths"),
        ("spacing: [1.5, 1.5, 2.0]", "spacing: 1.5", "the field 'spacing', 1.5, cannot be used"),
        ("spacing: [1.5, 1.5, 2.0]\n", "", "the field 'spacing' is missing"),
        ("name: liver_ct\n", "", "the field 'name' is missing"),
        ("orientation: RAS", "orientation: RAX", "the field 'orientation'"),
        ("roi_size: [96, 96, 64]", "roi_size: [96, 96]", "the field 'roi_size'"),
        ("mode: window", "mode: log", "the field 'intensity'.*'window' or 'zscore'"),
        ("low: -100.0", "low: 1e3", "the field 'intensity'"),
        ("low: -100.0", "lo: -100.0", "the field 'intensity'"),
        ("tumour: 3", "tumour: 1", "the field 'labels'.*distinct"),
        ("tumour: 3", "no: 3", "the field 'labels'.*non-empty names, got False"),
        ("tumour: 3", "liver: 3", "'liver' is there twice, again in line 3"),
        ("liver: {colour", "spleen: {colour", "the field 'terms'"),
        ("colour: [1, 2, 3]", "colour: [1, 2, 300]", "the field 'terms'.*from 0 to 255"),
        ("orientation: RAS", "orientaton: RAS", "the field 'orientaton' is none of a task's.*orientation, roi_size"),
        (
            "orientation: RAS",
            "orientation: RAS\ntraining: {preset: 3}",
            "the field 'training': preset: expected a word",
        ),
        ("orientation: RAS", "orientation: RAS\ntraining: {steps: a}", "the field 'training': expected some of preset"),
        ("orientation: RAS", "training: {empty_labels: maybe}", "expected one of skip, use, got 'maybe'"),
        ("{liver: 1, tumour: 3}", "{liver: &a 1, tumour: *a}", "references"),
        ("{liver: 1, tumour: 3}", "{liver: 1, tumour: 3", "cannot be read as a task file .YAML.*line"),
        ("{liver: 1, tumour: 3}", "!!python/object/apply:os.getcwd []", "cannot be read as a task file"),
    ],
)
def test_what_cannot_be_used_is_named_with_file_and_field(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in _TASK
    path = _file(tmp_path, _TASK.replace(old, new))
    with pytest.raises(TaskError, match=f"task.yaml.*{words}"):
        read_task_file(path)


def test_what_is_no_file_of_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"gone\.yaml cannot be read"):
        read_task_file(tmp_path / "gone.yaml")
    for content, words in (
        ("- a\n", "must hold the fields"),
        ("", "must hold the fields"),
        ("x" * 1_000_001, "no task"),
    ):
        with pytest.raises(TaskError, match=words):
            read_task_file(_file(tmp_path, content))
    (tmp_path / "task.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(TaskError, match="cannot be read as a task file"):
        read_task_file(tmp_path / "task.yaml")
