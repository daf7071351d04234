"""Who is who: logins that end, wrong keys that are counted, and nobody locked out by others."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from lib.access.callers import FAILURES, WAIT_SECONDS, Caller, Callers, place_of
from lib.access.listening import Listening
from lib.access.roles import Role
from lib.errors import UnknownKeyError, WaitError

from rep3d.keys import KeyBook


class Clock:
    """A clock that stands still until it is told the time."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def callers(tmp_path: Path, clock: Clock) -> Callers:
    return Callers(KeyBook(tmp_path), False, clock)


def _by(callers: Callers, text: str, address: str = "192.0.2.1") -> Caller:
    return asyncio.run(callers.by_header(text, address))


def _basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_headers(callers: Callers) -> None:
    key, text = callers.book.make("reviewer", "Rosa")
    expected = Caller("Rosa", Role.reviewer, key.id)
    for header in (f"Bearer {text}", f"bearer   {text} ", _basic(f"anybody:{text}"), _basic(text), _basic(f"{text}:")):
        assert _by(callers, header) == expected
    for header in ("", text, f"Digest {text}", "Bearer", "Basic !", "Basic /w==", f"Basic {text}", f"Bearer x{text}"):
        with pytest.raises(UnknownKeyError):
            _by(callers, header, header)


def test_wrong_keys_make_an_address_wait_but_not_who_came_in_from_there(callers: Callers, clock: Clock) -> None:
    _, anna = callers.book.make("annotator", "Anna")
    _, ben = callers.book.make("annotator", "Ben")
    _by(callers, f"Bearer {anna}")
    for _ in range(FAILURES):
        with pytest.raises(UnknownKeyError):
            _by(callers, "Bearer wrong")
    for text in ("wrong", ben):
        with pytest.raises(WaitError):
            _by(callers, f"Bearer {text}")
    assert _by(callers, f"Bearer {anna}").name == "Anna"
    assert _by(callers, f"Bearer {ben}", "192.0.2.2").name == "Ben"
    clock.now = WAIT_SECONDS + 1.0
    assert _by(callers, f"Bearer {ben}").name == "Ben"


def test_ipv6_counts_by_network(callers: Callers) -> None:
    for number in range(FAILURES):
        with pytest.raises(UnknownKeyError):
            _by(callers, "Bearer wrong", f"2001:db8::{number}")
    with pytest.raises(WaitError):
        _by(callers, "Bearer wrong", "2001:db8::ffff")
    with pytest.raises(UnknownKeyError):
        _by(callers, "Bearer wrong", "2001:db8:0:1::1")
    # Not those of the other kind, as a socket for both names them.
    assert place_of("::ffff:192.0.2.1") == place_of("192.0.2.1") != place_of("::ffff:192.0.2.2")


def test_what_is_remembered_is_bounded(callers: Callers) -> None:
    for number in range(10_100):
        with pytest.raises(UnknownKeyError):
            callers.by_text("wrong", f"place {number}").send(None)  # without the cost of an event loop
    assert len(callers._failures) <= 10_000
    caller = Caller("Anna", Role.annotator)
    first = callers.begin_session(caller)
    for _ in range(1000):
        callers.begin_session(caller)
    assert callers.by_session(first) is None and len(callers._sessions) <= 1000


def test_a_login_ends_with_its_time_its_key_and_when_it_is_told_to(callers: Callers, clock: Clock) -> None:
    key, text = callers.book.make("admin", "Ada")
    caller = _by(callers, f"Bearer {text}")
    one, two, three = (callers.begin_session(caller) for _ in range(3))
    assert len({one, two, three}) == 3 and callers.by_session(one) == caller
    callers.end_session(one)
    assert callers.by_session(one) is None and callers.by_session(two) == caller
    assert callers.by_session("") is None and callers.by_session("x") is None
    assert not any(secret in callers._sessions for secret in (one, two, three)), "memory holds no cookie"
    callers.book.revoke(key.id)
    assert callers.by_session(two) is None
    past = callers.begin_session(Caller("Tom", Role.user, expires=1.0))
    assert callers.by_session(past) is None
    endless = callers.begin_session(Caller("Tom", Role.user, expires=4e9))
    assert callers.by_session(endless) is not None
    clock.now = 13 * 3600.0
    assert callers.by_session(endless) is None


@pytest.mark.parametrize(
    ("host", "hosts", "beyond"),
    [
        ("127.0.0.1", (), False),
        ("localhost", (), False),
        ("::1", (), False),
        ("127.0.0.1", ("localhost",), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("192.0.2.7", (), True),
        ("label.hospital.org", (), True),
        ("127.0.0.1", ("label.hospital.org",), True),
    ],
)
def test_who_reaches_it(host: str, hosts: tuple[str, ...], beyond: bool) -> None:
    assert Listening(host, 8000, hosts).beyond_loopback is beyond


def test_names_of_the_server() -> None:
    listening = Listening("0.0.0.0", 8000, ("label.hospital.org",))
    good = ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]:8000", "192.0.2.7:8000", "label.hospital.org."]
    assert [host for host in good if not listening.is_known(host, "192.0.2.7")] == []
    bad = [
        "",
        "evil.example",
        "localhost.evil.example",
        "192.0.2.8",
        "[::2]",
        "label.hospital.org@evil.example",
        "a, localhost",
    ]
    assert [host for host in bad if listening.is_known(host, "192.0.2.7")] == []
    assert not listening.is_known("192.0.2.7", None)
