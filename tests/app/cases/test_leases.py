"""Leases without a server: one image for one annotator, until it is given back or the time is over."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from lib.cases.leases import Lease, LeaseBook
from lib.errors import ReservedError


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2024, 5, 1, 8, 0, tzinfo=timezone.utc)

    def __call__(self) -> datetime:
        return self.now

    def pass_minutes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rep3d" / "leases.json"


@pytest.fixture
def book(path: Path, clock: Clock) -> LeaseBook:
    return LeaseBook(path, minutes=60, clock=clock)


def test_an_image_is_lent_to_one(book: LeaseBook) -> None:
    lease = book.take("case", "anna")
    assert (lease.user, lease.until) == ("anna", "2024-05-01T09:00:00.000+00:00")
    assert book.holder("case") == lease
    assert book.holder("other") is None
    with pytest.raises(ReservedError, match=f"case is reserved for anna until {lease.ends}"):
        book.take("case", "ben")
    assert book.holder("case") == lease


def test_the_end_is_told_as_people_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    try:
        today = datetime.now().astimezone().replace(hour=14, minute=35)
        assert Lease("case", "anna", "", today.astimezone(timezone.utc).isoformat()).ends == "14:35 CET"
        assert Lease("case", "anna", "", "2024-05-01T09:00:00.000+00:00").ends == "01 May 2024, 10:00 CET"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_it_ends_by_itself(book: LeaseBook, clock: Clock) -> None:
    book.take("case", "anna")
    clock.pass_minutes(59.9)
    assert book.holder("case")
    clock.pass_minutes(0.1)
    assert book.holder("case") is None
    assert book.take("case", "ben").user == "ben"


def test_its_holder_can_prolong_it(book: LeaseBook, clock: Clock) -> None:
    first = book.take("case", "anna")
    clock.pass_minutes(30)
    second = book.take("case", "anna")
    assert second.since == first.since
    assert second.until == "2024-05-01T09:30:00.000+00:00"


def test_it_survives_a_restart(book: LeaseBook, path: Path, clock: Clock) -> None:
    book.take("a", "anna")
    book.take("b", "ben")
    assert LeaseBook(path, clock=clock).all() == book.all()
    clock.pass_minutes(61)
    assert LeaseBook(path, clock=clock).all() == []


@pytest.mark.parametrize(
    "content", ["", "{broken", "[]", '{"a": 3}', '{"a": {"user": "x", "since": "", "until": "soon"}}']
)
def test_a_damaged_file_lends_nothing(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    book = LeaseBook(path)
    assert book.all() == []
    book.take("a", "anna")
    assert list(json.loads(path.read_text())) == ["a"]


def test_release(book: LeaseBook, path: Path, clock: Clock) -> None:
    book.take("case", "anna")
    assert book.release("case", {"ben", "carl"}) is None
    assert book.release("case", {"anna", "10.0.0.7"}) is not None
    assert book.release("case") is None
    assert book.all() == LeaseBook(path, clock=clock).all() == []


def test_check_takes_any_of_the_names(book: LeaseBook) -> None:
    book.check("case", {"ben"})  # it is free
    book.take("case", "10.0.0.7")
    book.check("case", {"ben", "10.0.0.7"})
    with pytest.raises(ReservedError, match=r"reserved for 10\.0\.0\.7"):
        book.check("case", {"ben", "10.0.0.8"})


def test_one_annotator_holds_a_few_only(book: LeaseBook, clock: Clock) -> None:
    for image in ("a", "b", "c", "d"):
        book.take(image, "anna")
        clock.pass_minutes(1)
    assert [lease.image for lease in book.all()] == ["b", "c", "d"]  # the oldest was given back
    book.take("b", "anna")
    assert [lease.image for lease in book.all()] == ["b", "c", "d"]


def test_many_at_once_never_share_an_image(path: Path) -> None:
    book = LeaseBook(path, per_user=10)
    won: list[str] = []

    def grab(user: str) -> None:
        for number in range(10):
            try:
                book.take(f"case {number}", user)
                won.append(f"case {number}")
            except ReservedError:
                continue

    threads = [threading.Thread(target=grab, args=(f"user {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [f"case {n}" for n in range(10)]
    assert len(book.all()) == 10
