"""The table of docs/workflow.md: what may be done when, and what becomes of the edits. Both clients are held to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Row", "rows"]

_FILE = Path(__file__).resolve().parents[1] / "docs" / "workflow.md"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        situation: what is so, as words.
        command: what somebody wants to do.
        possible: whether it may be used.
        edits: what becomes of them.
        asked: keys of the questions.
    """

    situation: tuple[str, ...]
    command: str
    possible: bool
    edits: str
    asked: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.situation)}: {self.command}"


def rows(client: str) -> list[Row]:
    """Return the rows of a client, "Slicer" or "page"."""
    found = []
    head = "| situation | command | may be used | edits become | asked | where |"
    for line in _FILE.read_text(encoding="utf-8").split(head)[1].splitlines()[2:]:
        if not line.startswith("|"):
            break
        situation, command, possible, edits, asked, where = (cell.strip() for cell in line.strip("|").split("|"))
        assert possible in ("yes", "no") and where in ("both", "Slicer", "page"), line
        if where in ("both", client):
            questions = () if asked == "-" else tuple(asked.split(", "))
            found.append(Row(tuple(situation.split(", ")), command, possible == "yes", edits, questions))
    return found
