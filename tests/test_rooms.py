"""A stranger finds his room by the folder listing: no folder of code with too many files, no file too long to read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path for top in ("rep3d", "apps", "slicer_extension", "benchmarks") for path in (ROOT / top).rglob("*.py")
)
WIRING = ROOT / "slicer_extension" / "Rep3DLabel" / "Rep3DLabel.py"


def test_there_is_code_to_look_at() -> None:
    assert len(CODE) > 200 and WIRING in CODE


def test_no_folder_has_more_than_twenty_files() -> None:
    every = [*CODE, *(ROOT / "tests").rglob("*.py")]
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in every if path.name != "__init__.py")
    assert {folder: count for folder, count in folders.items() if count > 20} == {}


def test_files_are_small() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in CODE}
    assert lines[WIRING] <= 150
    assert {path.relative_to(ROOT).as_posix(): count for path, count in lines.items() if count > 400} == {}


def test_the_files_that_workers_begin_with_are_there() -> None:
    assert [file for file in LONGEST_FIRST if not (ROOT / file).is_file()] == []
