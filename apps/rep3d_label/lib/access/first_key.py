"""What the console says at the start: where the server listens, and the first key, which is shown nowhere else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from lib.access.guard import Door
from rep3d.audit import CHANGES, AuditLog
from rep3d.keys import KeyBook

__all__ = ["make_first_key", "say_where"]


def say_where(door: Door) -> None:
    """Print the addresses."""
    lines = [f"Rep3D Label listens on {', '.join(door.listening.urls())}."]
    if not door.locked:
        lines.append("Only this computer reaches it, so it asks for no key.")
    _print(lines)


def make_first_key(door: Door, studies: str) -> None:
    """Where only keys let people in and no administrator has one, make a key and print it.

    It is printed, not logged: the log is kept in a file that can be downloaded.
    """
    if not door.locked or door.callers.tokens or _has_administrator(door.callers.book):
        return
    key, text = door.callers.book.make("admin", "admin")
    event = {"what": "make key", "who": "server", "id": key.id, "says": key.description}
    AuditLog(door.callers.book.path.parent).write(CHANGES, event)
    lines = ["It asks for a key. This one, an administrator's, is shown this once:", "", f"    {text}", ""]
    _print([*lines, f"Make one for each person: rep3d keys make --studies {studies} --name NAME --role annotator"])


def _print(lines: Sequence[str]) -> None:
    with suppress(OSError):  # the console may be a file on a full disk
        print("\n".join(lines), file=sys.stderr, flush=True)


def _has_administrator(book: KeyBook) -> bool:
    return any(key.role == "admin" and key.state == "valid" for key in book.all())
