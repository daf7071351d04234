"""``rep3d keys``: who may come into a server, straight from the studies folder; a running server sees each change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rep3d.audit import CHANGES, AuditLog
from rep3d.cli.common import console, user_name
from rep3d.errors import Rep3DError
from rep3d.keys import ROLES, Key, KeyBook

__all__ = ["keys"]

keys = typer.Typer(
    name="keys",
    help="Say who may come into a server.\n\nA server that others reach asks each request for a key. A change here is "
    "seen at once by the server that runs.",
    no_args_is_help=True,
)

_Studies = Annotated[Path, typer.Option(help="Studies folder of the server.")]
_Id = Annotated[str, typer.Argument(help="Id of the key, as `rep3d keys list` shows it.")]


def _book(studies: Path) -> KeyBook:
    if not studies.is_dir():
        raise Rep3DError(f"--studies: {studies} is no folder.")
    if not (studies / "rep3d").is_dir():
        console.print(f"No server has run on {escape(str(studies))} yet. Is it the right folder?", soft_wrap=True)
    return KeyBook(studies / "rep3d")


def _note(studies: Path, what: str, key: Key) -> None:
    """Write into the audit log what was done to a key; whose it is, and never more of it than its id."""
    event = {"what": what, "who": user_name(), "role": "command line", "id": key.id, "says": key.description}
    AuditLog(studies / "rep3d").write(CHANGES, event)


@keys.command()
def make(
    studies: _Studies,
    name: Annotated[str, typer.Option(help="Whose key it is; labels sent with it have this author.")],
    role: Annotated[str, typer.Option(help=f"What it opens: {', '.join(ROLES)}.")] = ROLES[0],
    days: Annotated[float | None, typer.Option(help="Days that it is valid; if not given, for ever.")] = None,
) -> None:
    """Make a key, and show it once."""
    key, text = _book(studies).make(role, name, days)
    _note(studies, "make key", key)
    until = f" until {key.expires}" if key.expires else ""
    console.print(f"Key {key.id} for {escape(key.name)}, {key.role}{until}. It is shown this once:", soft_wrap=True)
    typer.echo(text)


@keys.command(name="list")
def show(studies: _Studies) -> None:
    """List all keys; no list shows a key itself."""
    table = Table("Id", "Name", "Role", "Made", "Expires", "State")
    for key in _book(studies).all():
        table.add_row(key.id, escape(key.name), key.role, key.created, key.expires or "never", key.state)
    console.print(table)


@keys.command()
def expire(
    id: _Id,
    studies: _Studies,
    days: Annotated[float, typer.Option(help="Days from now; 0 for now.")] = 0.0,
) -> None:
    """Set when a key ends."""
    key = _book(studies).expire(id, days)
    _note(studies, "expire key", key)
    console.print(f"Key {key.id} for {escape(key.name)} ends {key.expires}.", soft_wrap=True)


@keys.command()
def revoke(id: _Id, studies: _Studies) -> None:
    """End a key for ever, with every login that was made with it."""
    key = _book(studies).revoke(id)
    _note(studies, "revoke key", key)
    console.print(f"Key {key.id} for {escape(key.name)} is revoked.", soft_wrap=True)
