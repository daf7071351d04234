"""What the console says at the start: where the server listens, and the first key, which is shown nowhere else."""

from __future__ import annotations

import sys

from lib.access.guard import Door
from rep3d.audit import CHANGES, AuditLog
from rep3d.keys import KeyBook

__all__ = ["say_who_may_come_in"]


def say_who_may_come_in(door: Door, studies: str) -> None:
    """Print the addresses and, where only keys let people in and no administrator has one, a new key.

    It is printed, not logged: the log is kept in a file that can be downloaded.
    """
    lines = [f"Rep3D Label listens on {', '.join(door.listening.urls())}."]
    if not door.locked:
        lines.append("Only this computer reaches it, so it asks for no key.")
    elif not door.callers.tokens and not _has_administrator(door.callers.book):
        key, text = door.callers.book.make("admin", "admin")
        event = {"what": "make key", "who": "server", "id": key.id, "says": f"{key.name}, {key.role}, expires never"}
        AuditLog(door.callers.book.path.parent).write(CHANGES, event)
        lines += ["It asks for a key. This one, an administrator's, is shown this once:", "", f"    {text}", ""]
        lines.append(f"Make one for each person: rep3d keys make --studies {studies} --name NAME --role annotator")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _has_administrator(book: KeyBook) -> bool:
    return any(key.role == "admin" and key.state == "valid" for key in book.all())
