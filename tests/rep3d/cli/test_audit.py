"""The audit log's files: a line for each event, whoever writes, bounded, and no lie where something was lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rep3d.audit import CHANGES, READS, AuditLog
from rep3d.keys import KeyBook
from tests.rep3d.cli.command import Done


def _lines(folder: Path, kind: str = CHANGES) -> list[str]:
    return (folder / "audit" / f"{kind}.jsonl").read_text("ascii").splitlines()


def test_several_writers_lose_and_mix_nothing(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path, largest=20_000, kept=50) for _ in range(4)]  # as four processes have them
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: logs[n % 4].write(READS, {"what": "read", "case": f"case_{n}"}), range(800)))
    assert len(list((tmp_path / "audit").glob("reads-*.jsonl"))) >= 2
    assert sorted(event["case"] for event in logs[0].events()) == sorted(f"case_{n}" for n in range(800))


def test_what_is_kept_is_bounded_and_reading_pushes_no_change_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, largest=2000, kept=3)
    log.write(CHANGES, {"what": "submit label", "case": "first"})
    for number in range(500):
        log.write(READS, {"what": "read image", "case": f"case_{number}"})
    files = list((tmp_path / "audit").iterdir())
    assert sum(file.stat().st_size for file in files) < 5 * 2200
    events = list(log.events())
    assert [event["case"] for event in events][0] == "first" and events[-1]["case"] == "case_499"


def test_no_name_writes_lines_of_its_own(tmp_path: Path) -> None:
    name = 'a"}\n{"what": "forged"}\r\x1b[2J\u202e\u2028' + "x" * 1000
    AuditLog(tmp_path).write(CHANGES, {"what": "submit label", "case": name, "tag": None})
    (line,) = _lines(tmp_path)
    event = json.loads(line)
    assert event.keys() == {"time", "what", "case"} and event["case"] == name[:200]
    assert line.isprintable() and line.isascii()


def test_a_full_disk_stops_nobody_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = AuditLog(tmp_path), os.write
    log.write(CHANGES, {"what": "one"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, line: write(handle, line[:7]))  # as where a disk becomes full
        log.write(CHANGES, {"what": "two"})
        log.write(READS, {"what": "three"})
        assert log.trouble is not None and "missing" in log.trouble
    log.write(READS, {"what": "four"})
    assert log.trouble is None
    events = [(event["what"], event.get("count")) for event in log.events()]
    assert events == [("one", None), ("events missing", 2), ("four", None)]


def test_a_change_is_on_the_disk_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    AuditLog(tmp_path).write(READS, {"what": "read"})
    assert synced == []
    AuditLog(tmp_path).write(CHANGES, {"what": "change"})
    assert synced == [str(tmp_path / "audit" / "changes.jsonl"), str(tmp_path / "audit")]


def test_the_command_shows_and_filters(tmp_path: Path, rep3d: Callable[..., Done]) -> None:
    log = AuditLog(tmp_path / "rep3d")
    log.write(CHANGES, {"time": "2026-01-02T10:00:00.000+00:00", "what": "submit label", "who": "Anna", "case": "a"})
    log.write(CHANGES, {"what": "submit label", "who": "Ben", "key": "01ab", "case": "b", "status": 200})
    log.write(READS, {"what": "request", "who": "B\x1b]0;x\x07", "address": "10.0.0.1", "status": 403, "count": 7})
    assert rep3d("keys", "make", "--studies", tmp_path, "--name", "Carl").returncode == 0
    (key,) = KeyBook(tmp_path / "rep3d").all()

    def found(*options: str) -> list[str]:
        shown = rep3d("audit", "--studies", tmp_path, "--json", *options)
        assert shown.returncode == 0, shown.stderr
        return [json.loads(line)["what"] for line in shown.stdout.splitlines()]

    assert found() == ["submit label", "submit label", "request", "make key"]
    assert found("--who", "Ben") == found("--who", "01ab") == found("--case", "b") == ["submit label"]
    assert found("--what", "label", "--since", "1h") == ["submit label"]
    assert found("--until", "2026-02-01") == ["submit label"]
    assert found("--since", "2026-01-03", "--last", "1") == ["make key"]
    assert found("--result", "refused") == found("--result", "403") == found("--address", "10.0.0.1") == ["request"]
    table = rep3d("audit", "--studies", tmp_path).stdout
    assert "7 more" in table and key.id in table and "\x1b" not in table and "4 events." in table
    for wrong in (("--since", "yesterday"), ("--since", "2026-13-01")):
        refused = rep3d("audit", "--studies", tmp_path, *wrong)
        assert refused.returncode == 1 and "is no time" in refused.stderr
