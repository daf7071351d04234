"""What becomes a line of the audit log, and what is only counted."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from lib.access.actions import CHANGING, READING, action_of, stated_change
from lib.access.audit import SUM_SECONDS, Auditor
from lib.access.roles import ROUTES

from rep3d.audit import CHANGES, READS, AuditLog

ROWS = [row for rows in ROUTES.values() for row in rows]


def _asked(path: str) -> str:
    return re.sub(r"\{\w+:path\}", "a/b", re.sub(r"\{\w+\}", "x", path))


def test_every_address_that_changes_something_has_a_name_in_the_log() -> None:
    changing = [row.split(" ") for row in ROWS if not row.startswith("GET")]
    read = {row for rows in READING.values() for row in rows}
    unnamed = [" ".join(row) for row in changing if stated_change(row[0], _asked(row[1])) is None]
    assert [row for row in unnamed if row not in read] == []
    assert action_of("PATCH", "/new") == ("other change", True) and action_of("GET", "/info/") == (None, False)
    assert action_of("HEAD", "/datastore/image/") == ("read image", False)


def test_every_row_is_an_address() -> None:
    named = [row for table in (CHANGING, READING) for rows in table.values() for row in rows]
    assert [row for row in named if row not in ROWS] == []
    assert len(set(named)) == len(named)


class _Bench:
    """An auditor with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.log = AuditLog(folder)
        self.auditor = Auditor(self.log, lambda case, tag: f"{case} {tag}", lambda: self.now)

    def tell(self, kind: str, what: str, status: int = 200, address: str = "10.0.0.1", **facts: Any) -> None:
        event = {"what": what, "who": None, "key": None, "address": address, "status": status, **facts}

        async def tell() -> None:
            await self.auditor.write(kind, event)

        asyncio.run(tell())

    def said(self) -> list[tuple[str, int | None]]:
        return [(event["what"], event.get("count")) for event in self.log.events()]


@pytest.fixture
def bench(tmp_path: Path) -> _Bench:
    return _Bench(tmp_path)


def test_refusals_of_one_address_are_summed_up(bench: _Bench) -> None:
    for number in range(50):
        bench.tell(READS, "request", 401, f"2001:db8::{number:x}")  # one network of 64 bits
    bench.tell(READS, "request", 401, "10.0.0.2")
    assert bench.said() == [("request", None)] * 2
    bench.now = SUM_SECONDS + 1
    bench.tell(READS, "read image", case="a")
    assert bench.said() == [("request", None), ("request", None), ("request", 49), ("read image", None)]


def test_many_addresses_cannot_fill_the_log_either(bench: _Bench) -> None:
    for number in range(500):
        bench.tell(READS, "request", 401, f"10.1.{number // 250}.{number % 250}")
    bench.auditor.close()
    refusals = [count or 1 for what, count in bench.said() if what == "request"]
    assert len(refusals) < 310 and sum(refusals) == 500


def test_one_persons_reading_is_a_line_for_each_image(bench: _Bench) -> None:
    for _ in range(10):
        for case in "ab":
            bench.tell(READS, "read label", case=case)
    bench.auditor.close()
    assert bench.said().count(("read label", None)) == bench.said().count(("read label", 9)) == 2
    assert ("stop server", None) in bench.said()
    assert [event.get("label") for event in bench.log.events() if event["what"] == "read label"][:2] == [
        "a final",
        "b final",
    ]


def test_each_change_has_its_line_until_one_caller_makes_too_many(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.access.audit._CHANGES", 20)
    for _ in range(30):
        bench.tell(CHANGES, "change facts", who="Anna")
    bench.tell(CHANGES, "submit label", who="Ben")
    bench.now = 2 * SUM_SECONDS
    bench.tell(CHANGES, "change facts", who="Anna")
    bench.auditor.close()
    said = bench.said()
    assert said.count(("change facts", None)) == 21 and ("change facts", 10) in said and ("submit label", None) in said
