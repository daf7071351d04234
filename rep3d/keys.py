"""Keys with which people and programs come into a server: whose each is, what it opens, and until when.

A key is shown once; ``STUDIES/rep3d/keys.json`` has only its salted hash. Its secret is 256 random bits that no person
chose: nobody can try them all, so one round of SHA-256 keeps it as well as a slow hash would, and nobody can keep the
server busy by sending wrong ones.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from rep3d.errors import Rep3DError
from rep3d.files import utc_now
from rep3d.json_file import JsonFile, json_object

__all__ = ["KEYS_FILE", "ROLES", "Key", "KeyBook"]

ROLES = ("annotator", "reviewer", "admin")
"""What a key may be for; each may do all that those before it may."""
KEYS_FILE = "keys.json"
_PREFIX = "rep3d"
_LONGEST_NAME = 100
_LONGEST_LIFE = 100 * 365  # days


@dataclass(frozen=True)
class Key:
    """One key, without its secret.

    Attributes:
        id: what it is called in lists; part of the key, and no secret.
        name: whose it is; labels that come with it have this author.
        role: one of :data:`ROLES`.
        salt: hashed before the secret; hexadecimal.
        hash: SHA-256 of salt and secret; hexadecimal.
        created: when it was made, UTC, ISO 8601.
        expires: from when on it opens nothing; None for never.
        revoked: when it was revoked; None if it was not.
    """

    id: str
    name: str
    role: str
    salt: str
    hash: str
    created: str
    expires: str | None = None
    revoked: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, got {self.role!r}")
        if self.expires is not None and datetime.fromisoformat(self.expires).tzinfo is None:
            raise ValueError(f"expires must name its time zone, got {self.expires!r}")

    @property
    def state(self) -> str:
        """``valid``, ``expired`` or ``revoked``."""
        if self.revoked is not None:
            return "revoked"
        if self.expires is not None and datetime.fromisoformat(self.expires) <= datetime.now(timezone.utc):
            return "expired"
        return "valid"

    @property
    def description(self) -> str:
        """Whose it is, what it opens and until when, in one line."""
        return f"{self.name}, {self.role}, expires {self.expires or 'never'}"

    def fits(self, secret: str) -> bool:
        """Return whether a secret is this key's, in a time that does not depend on it."""
        return hmac.compare_digest(self.hash, _hash(self.salt, secret))


class KeyBook:
    """The keys of a studies folder. What another process changes is seen with the next question.

    Args:
        folder: the server's own folder, ``STUDIES/rep3d``.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / KEYS_FILE
        self._file: JsonFile[dict[str, Key]] = JsonFile(self.path, _parse, "who may come in", dict, begins_anew=False)

    def all(self) -> list[Key]:
        """Return every key, also those that open nothing any more, in the order in which they were made.

        Raises:
            DamagedFileError: if the file is damaged; then nobody comes in.
        """
        return list(self._file.latest().values())

    def valid(self, id: str) -> Key | None:
        """Return the key of an id if it still opens something."""
        return next((key for key in self.all() if key.id == id and key.state == "valid"), None)

    def find(self, text: str) -> Key | None:
        """Return the valid key that was sent, if it is one."""
        prefix, _, rest = text.partition("_")
        id, _, secret = rest.partition("_")
        key = self.valid(id) if prefix == _PREFIX else None
        return key if key is not None and key.fits(secret) else None

    def make(self, role: str, name: str, days: float | None = None) -> tuple[Key, str]:
        """Make a key that is valid for so many days, or for ever.

        Returns:
            The key, and the text to send, which is kept nowhere.
        """
        if role not in ROLES:
            raise Rep3DError(f"role: choose one of {', '.join(ROLES)}, got {role!r}.")
        if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise Rep3DError(f"name: say whose key it is in at most {_LONGEST_NAME} characters, got {name[:200]!r}.")
        secret, salt = secrets.token_urlsafe(32), secrets.token_hex(16)
        key = Key(secrets.token_hex(4), name.strip(), role, salt, _hash(salt, secret), utc_now())
        if days is not None:
            key = replace(key, expires=_in_days(days))
        with self._file.locked():
            self._write([*self._file.read().values(), key])
        return key, f"{_PREFIX}_{key.id}_{secret}"

    def expire(self, id: str, days: float) -> Key:
        """Let a key open nothing any more from so many days on; 0 for now."""
        return self._change(id, expires=_in_days(days))

    def revoke(self, id: str) -> Key:
        """Let a key open nothing any more, for ever."""
        return self._change(id, revoked=utc_now())

    def _change(self, id: str, **values: str) -> Key:
        with self._file.locked():
            keys = self._file.read()
            if id not in keys:
                raise Rep3DError(f"There is no key {id!r}. The keys are: {', '.join(keys) or 'none'}.")
            keys[id] = replace(keys[id], **values)
            self._write(list(keys.values()))
        return keys[id]

    def _write(self, keys: list[Key]) -> None:
        self._file.write({"version": 1, "keys": [asdict(key) for key in keys]})


def _parse(content: Any) -> dict[str, Key]:
    return {entry["id"]: Key(**entry) for entry in json_object(content, keys=list)["keys"]}


def _hash(salt: str, secret: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + secret.encode("utf-8", "surrogateescape")).hexdigest()


def _in_days(days: float) -> str:
    if not 0 <= days <= _LONGEST_LIFE:
        raise Rep3DError(f"days: choose a number from 0 to {_LONGEST_LIFE}, got {days}.")
    return (datetime.now(timezone.utc) + timedelta(days=days)).isoformat(timespec="seconds")
