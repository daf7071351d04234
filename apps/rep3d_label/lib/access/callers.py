"""Who calls: by a key, by a login made with one, or by a token of the hospital's own log-in server.

Wrong ones are counted by address, and after some of them that address waits; what came in from there before still does,
so that nobody locks out a colleague behind the same proxy.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache, TTLCache
from starlette.concurrency import run_in_threadpool

from lib.access import oauth
from lib.access.roles import Role
from lib.errors import UnknownKeyError, WaitError
from rep3d.errors import DamagedFileError
from rep3d.keys import Key, KeyBook

__all__ = ["FAILURES", "WAIT_SECONDS", "Caller", "Callers", "place_of"]

FAILURES = 10
"""Wrong keys from one address until it waits."""
WAIT_SECONDS = 60
"""How long it waits then."""
_SESSION_SECONDS = 12 * 3600
_SESSIONS = 1000  # at the same time; of more, those not used for longest end
_ADDRESSES = 10_000  # that are remembered


@dataclass(frozen=True)
class Caller:
    """One who was let in.

    Attributes:
        name: under which labels are kept.
        role: what it may do.
        key: id of its key; None with a token.
        expires: when the token ends, as seconds since 1970; a key's end is looked up.
    """

    name: str
    role: Role
    key: str | None = None
    expires: float | None = None


class Callers:
    """Knows who is who.

    Args:
        book: the keys.
        tokens: whether tokens of MONAI Label's OAuth mode are taken, too.
        clock: seconds that never go back.
    """

    def __init__(self, book: KeyBook, tokens: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self.book = book
        self.tokens = tokens
        self._sessions: TTLCache[str, Caller] = TTLCache(_SESSIONS, _SESSION_SECONDS, clock)
        self._failures: TTLCache[str, int] = TTLCache(_ADDRESSES, WAIT_SECONDS, clock)
        self._welcome: LRUCache[tuple[str, str], bool] = LRUCache(_ADDRESSES)

    async def by_header(self, header: str, address: str) -> Caller:
        """Return who sends an ``Authorization`` header: ``Bearer KEY``, or ``Basic`` with the key as the password.

        Raises:
            UnknownKeyError: if it lets nobody in.
            WaitError: if too many did not from this address.
        """
        scheme, _, text = header.strip().partition(" ")
        text = text.strip()
        if scheme.lower() == "basic":
            text = _password(text)
        elif scheme.lower() != "bearer":
            text = ""
        return await self.by_text(text, address)

    async def by_text(self, text: str, address: str) -> Caller:
        """Return whose key or token this is; raises as :meth:`by_header`."""
        caller = await self._caller(text)
        place = place_of(address)
        self._wait(place, caller)
        if caller is None:
            self._failures[place] = self._failures.get(place, 0) + 1
            raise UnknownKeyError(
                "This key opens nothing: it is wrong, has expired or was revoked. Ask an administrator for one."
            )
        self._welcome[place, caller.key or caller.name] = True
        return caller

    async def by_password(self, name: str, password: str, address: str) -> tuple[Caller, str]:
        """Return who logs in with a key as the password, or else as the hospital's log-in server knows them.

        Returns:
            Who it is, and the text to send with each request.
        """
        text = password.strip()
        if self.tokens and self._key(text) is None:
            self._wait(place_of(address), None)  # before a password of a person's is tried
            token = await run_in_threadpool(oauth.token_for, name, password)
            text = token or ""
        return await self.by_text(text, address), text

    def begin_session(self, caller: Caller) -> str:
        """Return the secret of a new login of a browser."""
        secret = secrets.token_urlsafe(32)
        self._sessions[_name_of(secret)] = caller
        return secret

    def by_session(self, secret: str) -> Caller | None:
        """Return whose login this is, while it and the key that it was made with are valid."""
        caller = self._sessions.get(_name_of(secret))
        if caller is None or (caller.expires is not None and caller.expires <= time.time()):
            return None
        with _damage_in_words():
            return caller if caller.key is None or self.book.valid(caller.key) else None

    def end_session(self, secret: str) -> None:
        """Forget a login."""
        self._sessions.pop(_name_of(secret), None)

    async def _caller(self, text: str) -> Caller | None:
        key = self._key(text)
        if key is not None:
            return Caller(key.name, Role[key.role], key.id)
        if self.tokens and text.count(".") == 2:
            found = await run_in_threadpool(oauth.read_token, text)  # it may have to ask for the realm's key
            return Caller(found.name, found.role, expires=found.expires) if found else None
        return None

    def _key(self, text: str) -> Key | None:
        with _damage_in_words():
            return self.book.find(text)

    def _wait(self, place: str, caller: Caller | None) -> None:
        if self._failures.get(place, 0) < FAILURES:
            return
        if caller is None or (place, caller.key or caller.name) not in self._welcome:
            raise WaitError(f"Too many wrong keys came from this address. Try again in {WAIT_SECONDS} s.")


@contextmanager
def _damage_in_words() -> Iterator[None]:
    """Say to whoever asks no more than that nobody can come in; the log has the file's name."""
    try:
        yield
    except DamagedFileError as error:
        words = "The server's file of keys is damaged, so that nobody can come in; its log says more."
        raise DamagedFileError(words, error.reason) from error


def _password(text: str) -> str:
    try:
        name, _, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        return ""
    return password or name  # some clients have room for one of them only


def _name_of(secret: str) -> str:
    """Return what a login is kept under, so that reading the memory gives nobody a cookie."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def place_of(address: str) -> str:
    """Return what is counted as one address: of IPv6 the network of 64 bits that one customer has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        mapped = found.ipv4_mapped  # how a socket for both kinds names the other one
        return str(mapped or ipaddress.ip_network((found, 64), strict=False))
    return address
