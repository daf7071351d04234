"""The page does what the table of docs/workflow.md says: its rules, in the browser that people use, row by row."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.app.browser import watched
from tests.app.server import AppServer
from tests.rules_table import Row, rows

ROWS = rows("page")
# What each situation means for what the page shows; those of the case in hand begin with "case".
FACTS: dict[str, dict[str, Any]] = {
    "not connected": {"connection": "lost"},
    "nothing in hand": {},
    "untouched case": {"case": {}},
    "edits": {"case": {"edited": True}},
    "edits that cannot be kept": {"case": {"edited": True, "keepable": False}},
    "unsent work": {"drafts": [{"key": "a"}, {"key": "b", "elsewhere": True}]},
    "unsent work of another tab": {"drafts": [{"key": "b", "elsewhere": True}]},
    "submitted before": {"case": {"label": True}},
    "voxels that no label stands for": {"case": {"strangers": True}},
    "nothing is segmented": {"case": {"empty": True}},
    "reserved for another": {"case": {"lent": True}},
    "another label meanwhile": {"case": {"meanwhile": True}},
    "open in another tab": {"elsewhere": True},
    "something runs": {"activity": {"name": "open_case", "text": "Opening case_2", "cancellable": True}},
    "no trained model": {"model": {"version": ""}},
    "no label submitted": {"completed": 0},
    "labels submitted": {"completed": 3},
    "training runs": {"training": {"active": True, "resumable": False}},
    "training can be resumed": {"training": {"active": False, "resumable": True}},
    "no version": {"versions": 0},
    "one version": {"versions": 1},
    "two versions": {"versions": 2},
    "an annotator's key": {"role": "annotator"},
    "a reviewer's key": {"role": "reviewer"},
}
CASE = {"edited": False, "keepable": True, "label": False, "channels": ["T1", "T2"]}
READY = {
    "connection": "ready",
    "role": "admin",
    "model": {"version": "v1", "error": ""},
    "completed": 1,
    "training": {"active": False, "resumable": False},
    "versions": 1,
    "drafts": [],
}


def _view(row: Row) -> dict[str, Any]:
    view: dict[str, Any] = {**READY, "case": None, "activity": None, "elsewhere": False}
    for fact in row.situation:
        for key, value in FACTS[fact].items():
            view[key] = {**(view[key] or CASE), **value} if key == "case" else value
    return view


@pytest.fixture(scope="module")
def answers(server: AppServer, browser: Browser) -> list[dict[str, Any]]:
    """Return what the page's rules say to each row, asked in one go."""
    script = """async (cases) => {
        const { enabled, fate } = await import("./rules.js");
        return cases.map(([command, view]) => ({ reason: enabled(view)[command], ...fate(command, view) }));
    }"""
    with watched(browser) as found:
        found.page.goto(f"{server.url}/rep3d/annotate/flow/rules.js")
        return list(found.page.evaluate(script, [[row.command, _view(row)] for row in ROWS]))


@pytest.mark.parametrize("place", range(len(ROWS)), ids=[str(row) for row in ROWS])
def test_the_table_holds(answers: list[dict[str, Any]], place: int) -> None:
    row, answer = ROWS[place], answers[place]
    assert isinstance(answer["reason"], str), "the page has no such command"
    assert (answer["reason"] == "") is row.possible, answer["reason"]
    if row.possible:
        assert (answer["edits"], tuple(answer["asked"])) == (row.edits, row.asked)
