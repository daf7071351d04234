"""The versions of a model as tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore

__all__ = ["show_version", "show_versions"]


def show_versions(console: Console, store: VersionStore, model: str) -> None:
    """Prints all versions, oldest first, with what was decided about them."""
    published, records = store.published(), store.list()
    if not records:
        console.print(f"{escape(model)} has no versions yet: each training that ends well makes one.")
        return
    table = Table(
        "Version", "Made", "Cases", "Dice", "Per label", "MB", "Decision", title=f"Versions of {escape(model)}"
    )
    for record in records:
        name = f"[bold green]{record.version} (published)[/]" if record.version == published else record.version
        labels = ", ".join(f"{label} {dice:.3f}" for label, dice in record.scores.items())
        table.add_row(
            name,
            (record.created or "")[:16].replace("T", " "),
            str(len(record.cases)),
            _dice(record),
            escape(labels),
            f"{store.size(record.version) / 1e6:.1f}",
            escape(_decision(record)),
        )
    console.print(table)
    total = sum(store.size(record.version) for record in records)
    console.print(f"{len(records)} versions, {total / 1e6:.1f} MB. Dice is measured on {_HELD_OUT}.")


def show_version(console: Console, store: VersionStore, record: VersionRecord) -> None:
    """Prints one version in full."""
    published = " (published)" if record.version == store.published() else ""
    table = Table(title=f"{record.version}{published}", show_header=False)
    steps = f"{record.iterations} steps" if record.iterations is not None else "unknown"
    minutes = f" in {record.minutes:.1f} minutes" if record.minutes is not None else ""
    facts = {
        "Made": record.created,
        "Origin": "adopted from a checkpoint that was put there" if record.origin == "adopted" else "trained here",
        "Began from": record.parent or "nothing",
        "Training": f"{steps}{minutes}, ended by {record.stopped or 'unknown'}, loss {record.loss}",
        "Network": record.preset,
        "Labels": ", ".join(f"{name}={value}" for name, value in record.labels.items()),
        "Head": record.head and ", ".join(f"{key}: {', '.join(names) or 'none'}" for key, names in record.head.items()),
        "Trained on": ", ".join(record.cases) or "unknown",
        "Measured on": ", ".join(record.validation_cases) or f"nothing ({record.validation_kind or 'never measured'})",
        "Mean Dice": _dice(record),
        "Decision": _decision(record),
        "Settings": ", ".join(f"{key}={value}" for key, value in record.settings.items()),
        "Deleted": record.deleted and f"{record.deleted['time']} by {record.deleted['by']}",
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, escape(str(value)))
    console.print(table)
    if record.case_scores:
        names = sorted({name for case in record.case_scores.values() for name in case})
        scores = Table("Case", *map(escape, names), title=f"Dice on {_HELD_OUT}")
        for case, dice in record.case_scores.items():
            scores.add_row(escape(case), *[f"{dice[name]:.3f}" if name in dice else "-" for name in names])
        console.print(scores)
    for entry in store.publications():
        if entry["version"] == record.version:
            how = "rolled back to" if entry["rollback"] else "published"
            console.print(f"{entry['time']}: {how} by {escape(entry['by'])}: {escape(entry['reason'])}")


_HELD_OUT = "held-out cases (on which its best weights were chosen, too: a little kind)"


def _dice(record: VersionRecord) -> str:
    mean = record.mean_score
    return "not measured" if mean is None else f"{mean:.3f}"


def _decision(record: VersionRecord) -> str:
    if record.decision:
        return str(record.decision["reason"])
    return "adopted" if record.origin == "adopted" else "none recorded"
