"""``rep3d versions``: the versions of a served model, straight from the studies folder.

It works with or without a running server, which notices what was published; both use the same locks.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rep3d.audit import CHANGES, AuditLog
from rep3d.cli.common import user_name
from rep3d.errors import Rep3DError
from rep3d.starter.facts import inherited, starter_words
from rep3d.terminal import print_scores
from rep3d.versions.record import VersionRecord

if TYPE_CHECKING:  # it brings PyTorch, for which `rep3d --help` does not wait
    from rep3d.versions.store import VersionStore

__all__ = ["Action", "versions"]


class Action(str, Enum):
    """What to do with the versions."""

    list = "list"
    show = "show"
    publish = "publish"
    rollback = "rollback"
    delete = "delete"
    export = "export"


_WITHOUT_VERSION = (Action.list, Action.rollback)
_FEW_LABELS = 4  # whose Dice are listed beside each other; `show` has those of more
_ORIGINS = {
    "adopted": "adopted from a checkpoint that was put there",
    "starter": "the model that comes with Rep3D, as none was trained yet",
}
_HELD_OUT = "held-out cases; slightly optimistic, since the best weights were chosen on them too"


def versions(
    studies: Annotated[Path, typer.Argument(help="Studies folder of the server.")],
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    version: Annotated[
        str | None, typer.Argument(help="Version to show, publish, delete or export, such as v3.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, where a server has several.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to export to: .pt, or .onnx for other programs.")] = None,
    by: Annotated[str | None, typer.Option(help="Who does this; if not given, your user name.")] = None,
    reason: Annotated[str, typer.Option(help="Why it is published.")] = "",
) -> None:
    """List, publish, roll back or export a model's versions.

    Each training on a server makes a version of its model. This works beside a running server, which takes up what is
    published at once.
    """
    from rep3d.versions.store import VersionStore

    console = Console()
    root = _model_folder(studies, model)
    store = VersionStore(root)
    who = by or user_name()
    if (version is None) != (action in _WITHOUT_VERSION):
        wanted = "no version" if action in _WITHOUT_VERSION else "a version such as v3"
        raise Rep3DError(f"rep3d versions {action.value} needs {wanted}, got {version or 'none'}.")
    if action is Action.list or version is None:
        if action is Action.rollback:
            record = store.rollback(who, reason)
            _note(root, "roll back", who, record.version, reason)
            console.print(f"Published {record.version} again.")
        else:
            _show_all(console, store, root.name)
    elif action is Action.show:
        _show_one(console, store, store.get(version))
    elif action is Action.publish:
        store.publish(version, who, reason or "published by hand")
        _note(root, "publish", who, version, reason)
        console.print(f"Published {version}.")
    elif action is Action.delete:
        freed = store.size(version)
        store.delete(version, who)
        _note(root, "delete version", who, version)
        console.print(f"Deleted the weights of {version} ({freed / 1e6:.1f} MB); its record stays.")
    else:
        _export(console, (studies / "rep3d").resolve(), store.checkpoint(version), version, output)


def _note(root: Path, what: str, who: str, version: str, reason: str = "") -> None:
    event = {"what": what, "who": who, "role": "command line", "model": root.name, "version": version}
    AuditLog(root.parents[1]).write(CHANGES, {**event, "reason": reason or None})


def _model_folder(studies: Path, model: str | None) -> Path:
    """Return where a model's data are.

    Raises:
        Rep3DError: if there is none of that name, or none, or several and no name.
    """
    models = studies / "rep3d" / "models"
    found = sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
    if not found:
        raise Rep3DError(f"No server has been started on {studies}: it has no folder {models.relative_to(studies)}.")
    if model is None and len(found) == 1:
        return models / found[0]
    if model not in found:
        raise Rep3DError(f"--model: name one of {', '.join(found)}; got {model or 'none'}.")
    return models / model


def _export(console: Console, servers: Path, checkpoint: Path, version: str, output: Path | None) -> None:
    from rep3d.checkpoint import load_checkpoint
    from rep3d.files import copy_whole
    from rep3d.inference.export import export_onnx
    from rep3d.output import check_output

    if output is None:
        raise Rep3DError("--output: the file name must end in .pt or .onnx, got none.")
    if output.resolve().is_relative_to(servers):
        raise Rep3DError(f"--output: {output} lies in the server's own folder {servers}. Choose another folder.")
    room = checkpoint.stat().st_size
    check_output(output, (".pt", ".onnx"), (checkpoint,), option="--output", room=room, make_folder=True)
    if output.suffix.lower() == ".onnx":
        export_onnx(load_checkpoint(checkpoint), output)
    else:
        copy_whole(checkpoint, output)
    console.print(f"Wrote {escape(str(output))}: {version}, {output.stat().st_size / 1e6:.1f} MB.", soft_wrap=True)


def _show_all(console: Console, store: VersionStore, model: str) -> None:
    """Print all versions, oldest first, with what was decided about them."""
    published, records = store.published(), store.list()
    if not records:
        console.print(f"{escape(model)} has no versions yet: each training that ends well makes one.")
        return
    table = Table("Version", "Made", "Cases", "Dice", "MB", "Decision", title=f"Versions of {escape(model)}")
    for record in records:
        name = f"[bold green]{record.version} (published)[/]" if record.version == published else record.version
        name += "\nfrom the starter model" if inherited(record.to_dict()) and record.origin != "starter" else ""
        few = len(record.scores) <= _FEW_LABELS
        labels = [f"{escape(label)} {dice:.3f}" for label, dice in record.scores.items()] if few else []
        table.add_row(
            name,
            (record.created or "")[:16].replace("T", "\n"),
            str(len(record.cases)),
            "\n".join([_dice(record), *labels]),
            f"{store.size(record.version) / 1e6:.1f}",
            escape(_decision(record)),
        )
        table.add_section()
    console.print(table)
    total = sum(store.size(record.version) for record in records)
    console.print(f"{len(records)} versions, {total / 1e6:.1f} MB. Dice: on {_HELD_OUT}.", highlight=False)


def _show_one(console: Console, store: VersionStore, record: VersionRecord) -> None:
    """Print one version in full."""
    published = " (published)" if record.version == store.published() else ""
    table = Table(title=f"{record.version}{published}", show_header=False)
    steps = f"{record.iterations} steps" if record.iterations is not None else "unknown"
    minutes = f" in {record.minutes:.1f} minutes" if record.minutes is not None else ""
    facts = {
        "Made": record.created,
        "Origin": _ORIGINS.get(record.origin, "trained here"),
        "Starter model": starter_words(record.to_dict()),
        "Began from": record.parent or "nothing",
        "Training": f"{steps}{minutes}, ended by {record.stopped or 'unknown'}, loss {record.loss}",
        "Network": record.preset,
        "Labels": ", ".join(f"{name}={value}" for name, value in record.labels.items()),
        "Head": record.head and ", ".join(f"{key}: {', '.join(names) or 'none'}" for key, names in record.head.items()),
        "Trained on": ", ".join(record.cases) or "unknown",
        "Measured on": ", ".join(record.validation_cases) or f"nothing ({record.validation_kind or 'never measured'})",
        "Mean Dice": f"{_dice(record)} (on {_HELD_OUT})" if record.scores else _dice(record),
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
        rows = {(case,): dice for case, dice in record.case_scores.items()}
        print_scores(console, "Dice", names, ("Held-out case",), rows)
    for entry in store.publications():
        if entry["version"] == record.version:
            how = "rolled back to" if entry["rollback"] else "published"
            console.print(f"{entry['time']}: {how} by {escape(entry['by'])}: {escape(entry['reason'])}")


def _dice(record: VersionRecord) -> str:
    mean = record.mean_score
    return "not measured" if mean is None else f"{mean:.3f}"


def _decision(record: VersionRecord) -> str:
    if record.decision:
        return str(record.decision["reason"])
    return "none recorded" if record.origin == "trained" else record.origin
