"""``rep3d versions``: the versions of a served model, straight from the studies folder.

It works with or without a running server, which notices what was published; both use the same locks.
"""

from __future__ import annotations

import getpass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rep3d.errors import Rep3DError

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


def versions(
    studies: Annotated[Path, typer.Argument(help="Studies folder of the server.")],
    action: Annotated[Action, typer.Argument(help="What to do.")] = Action.list,
    version: Annotated[str | None, typer.Argument(help="Of this version, such as v3.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, where several are served.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to export to: .pt, or .onnx for other programs.")] = None,
    by: Annotated[
        str | None, typer.Option(help="Who publishes, rolls back or deletes; your user name if not given.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is published.")] = "",
) -> None:
    """List the versions of a served model, show one, publish, roll back, delete or export one."""
    from rep3d.cli.version_table import show_version, show_versions
    from rep3d.versions.store import VersionStore

    console = Console()
    root = _model_folder(studies, model)
    store = VersionStore(root)
    who = by or _user_name()
    if (version is None) != (action in _WITHOUT_VERSION):
        wanted = "no version" if action in _WITHOUT_VERSION else "a version such as v3"
        raise Rep3DError(f"rep3d versions {action.value}: expected {wanted}, got {version or 'none'}")
    if action is Action.list or version is None:
        if action is Action.rollback:
            record = store.rollback(who, reason)
            console.print(f"Published {record.version} again.")
        else:
            show_versions(console, store, root.name)
    elif action is Action.show:
        show_version(console, store, store.get(version))
    elif action is Action.publish:
        store.publish(version, who, reason or "published by hand")
        console.print(f"Published {version}.")
    elif action is Action.delete:
        freed = store.size(version)
        store.delete(version, who)
        console.print(f"Deleted the weights of {version} ({freed / 1e6:.1f} MB); its record stays.")
    else:
        _export(console, store.checkpoint(version), version, output)


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run as a user without a name
        return "unknown"


def _model_folder(studies: Path, model: str | None) -> Path:
    """Where a model's data are.

    Raises:
        Rep3DError: if there is none of that name, or none, or several and no name.
    """
    models = studies / "rep3d" / "models"
    found = sorted(path.name for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
    if not found:
        raise Rep3DError(f"expected a studies folder that a server has been started on, got {studies} without {models}")
    if model is None and len(found) == 1:
        return models / found[0]
    if model not in found:
        raise Rep3DError(f"--model: expected one of {', '.join(found)}, got {model or 'none'}")
    return models / model


def _export(console: Console, checkpoint: Path, version: str, output: Path | None) -> None:
    from rep3d.checkpoint import load_checkpoint
    from rep3d.files import copy_whole
    from rep3d.inference.export import export_onnx

    if output is None or output.suffix not in (".pt", ".onnx"):
        raise Rep3DError(f"--output: expected a file name that ends in .pt or .onnx, got {output or 'none'}")
    if output.suffix == ".onnx":
        export_onnx(load_checkpoint(checkpoint), output)
    else:
        try:
            copy_whole(checkpoint, output)
        except OSError as error:
            raise Rep3DError(f"--output: expected a file that can be written, got {output} ({error})") from error
    console.print(f"Wrote {escape(str(output))}: {version}, {output.stat().st_size / 1e6:.1f} MB.", soft_wrap=True)
