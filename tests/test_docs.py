"""What the documents point to is there: links, pictures, and files named by their path."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "apps/rep3d_label/README.md", "slicer_extension/README.md"]
PAGES += [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))]
LARGEST = 300_000  # bytes; a page with its pictures must open at once


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith(("http:", "https:"))]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = set(
        re.findall(
            r"(?<![\w./-])((?:rep3d|lib|tests|docs|benchmarks|slicer_extension|apps)/[\w./-]+\.(?:py|sh|md))\b", text
        )
    )
    places = (ROOT, ROOT / "apps" / "rep3d_label")  # `lib/` is the app's
    assert [name for name in sorted(named) if not any((place / name).is_file() for place in places)] == []


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "docs").rglob("*.png"))
    assert pictures and [picture.name for picture in pictures if picture.stat().st_size > LARGEST] == []


def _promises() -> list[str]:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("| promise | held by |\n|---|---|\n")[2].split("\n\n")[0]
    return table.splitlines()


@pytest.mark.parametrize("row", _promises())
def test_every_promise_has_a_test(row: str) -> None:
    _check_held_by(row)


def _rows_of_odd_files() -> list[str]:
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [row for row in rows if not row.startswith(("|---", "| odd |"))]


@pytest.mark.parametrize("row", _rows_of_odd_files())
def test_every_odd_file_has_a_test(row: str) -> None:
    _check_held_by(row)


def _check_held_by(row: str) -> None:
    held_by = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rsplit("|", 2)[1])
    assert held_by
    assert [name for file, name in held_by if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")] == []
