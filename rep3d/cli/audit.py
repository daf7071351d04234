"""``rep3d audit``: who did what on a server, straight from the studies folder."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from rep3d.audit import AuditLog, result_of
from rep3d.cli.common import console
from rep3d.errors import Rep3DError

__all__ = ["audit"]

_ABOUT = ("tag", "label", "model", "version", "entry", "strategy", "method", "id", "says", "reason")


def audit(
    studies: Annotated[Path, typer.Option(help="Studies folder of the server.")],
    who: Annotated[str | None, typer.Option(help="Only what this person did: a name, or the id of a key.")] = None,
    what: Annotated[str | None, typer.Option(help="Only actions with these words, such as label.")] = None,
    case: Annotated[str | None, typer.Option(help="Only what was done with this case.")] = None,
    address: Annotated[str | None, typer.Option(help="Only what came from this address.")] = None,
    result: Annotated[str | None, typer.Option(help="Only done, refused or failed, or a status such as 403.")] = None,
    since: Annotated[str | None, typer.Option(help="From when on: 2026-11-28, 2026-11-28T14:00, 90m, 12h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise.")] = None,
    last: Annotated[int, typer.Option(help="How many events to show, the newest; 0 for all.", min=0)] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one event a line.")] = False,
) -> None:
    """Show who did what on a server, oldest first.

    The log has who came in, who was refused, who read and who changed what. It works with or without a running server.
    """
    if not studies.is_dir():
        raise Rep3DError(f"--studies: {studies} is no folder.")
    begin, end = _time("--since", since), _time("--until", until)

    def wanted(event: Mapping[str, Any]) -> bool:
        time = str(event.get("time", ""))
        return (
            (begin is None or time >= begin)
            and (end is None or time <= end)
            and (who is None or who in (event.get("who"), event.get("key"), event.get("says")))
            and (what is None or what.lower() in str(event.get("what", "")).lower())
            and (case is None or case == event.get("case"))
            and (address is None or address == event.get("address"))
            and (result is None or result in (result_of(event), str(event.get("status"))))
        )

    found = deque(filter(wanted, AuditLog(studies / "rep3d").events()), maxlen=last or None)
    if as_json:
        for event in found:
            typer.echo(json.dumps(event))
        return
    table = Table("Time (UTC)", "Who", "What", "Case", "Result", "About")
    for event in found:
        table.add_row(*(escape(_printable(cell)) for cell in _row(event)))
    console.print(table)
    console.print(f"{len(found)} events.", highlight=False)


def _row(event: Mapping[str, Any]) -> tuple[str, ...]:
    who = str(event.get("who") or "nobody known")
    key = " ".join(str(event[name]) for name in ("key", "role") if event.get(name))
    place = [str(event["address"])] if event.get("address") else []
    count = f"\n{event['count']} more" if "count" in event else ""
    status = f" {event['status']}" if event.get("status", 200) != 200 else ""
    about = [f"{name} {event[name]}" for name in _ABOUT if event.get(name)]
    return (
        str(event.get("time", ""))[:19].replace("T", " "),
        "\n".join([who, *([key] if key else []), *place]),
        f"{event.get('what')}{count}",
        str(event.get("case", "")),
        f"{result_of(event)}{status}",
        "\n".join(about),
    )


def _printable(text: str) -> str:
    """Return a text in which nothing can move a terminal's cursor, or write backwards."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _time(option: str, text: str | None) -> str | None:
    """Return a time as the log writes it."""
    if text is None:
        return None
    ago = re.fullmatch(r"(\d{1,6})([mhd])", text)
    try:
        if ago:
            units = {"m": "minutes", "h": "hours", "d": "days"}
            time = datetime.now(timezone.utc) - timedelta(**{units[ago[2]]: int(ago[1])})
        else:
            time = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        raise Rep3DError(f"{option}: {text!r} is no time. Say 2026-11-28, 2026-11-28T14:00, 90m, 12h or 7d.") from error
    time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds")
