"""What is kept of a training that was stopped or interrupted, and whether it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.paths import ModelWorkspace
from rep3d.json_file import JsonFile, json_object
from rep3d.training.settings import OF_OLD
from rep3d.training.snapshots import can_go_on

__all__ = ["changes_since", "interrupted_run", "resumable_run", "run_file"]

# Of ``run.json``, and what each part is to people.
_PARTS = {
    "request": "the settings",
    "training": "the cases to train on",
    "validation": "the held-out cases",
    "hashes": "labels of its cases",
    "start": "the published version",
    "labels": "the label names or values",
}


def resumable_run(folder: Path) -> dict[str, Any] | None:
    """Return what is known about the run that was stopped or interrupted; None where there is nothing to resume.

    Args:
        folder: the model's folder ``run``.
    """
    known = run_file(folder).read()
    if not known or not ((folder / "trained.pt").exists() or can_go_on(folder / "state")):
        return None
    return known


def run_file(folder: Path) -> JsonFile[dict[str, Any]]:
    """Return what a training that has not ended trains on, and how; empty where there is none.

    Args:
        folder: the model's folder ``run``.
    """
    lost = "what the interrupted training was doing: it cannot be resumed, and the next one begins anew"
    # Beside the folder, which the next training empties.
    return JsonFile(folder / "run.json", _parsed, lost, dict, begins_anew=True, aside=folder.parent)


def _parsed(content: Any) -> dict[str, Any]:
    run = json_object(
        content, id=str, started=str, request=dict, training=list, validation=list, hashes=dict, labels=dict
    )
    settings = json_object(run["request"], settings=dict)["settings"]
    run["request"] = {**run["request"], "settings": {**OF_OLD, **settings}}
    return run


def interrupted_run(workspace: ModelWorkspace) -> dict[str, Any] | None:
    """As :func:`resumable_run`, of the run that is there, else of the one that was set aside."""
    return resumable_run(workspace.run) or resumable_run(workspace.run_set_aside)


def changes_since(known: Mapping[str, Any], plan: Mapping[str, Any]) -> str | None:
    """Return why an interrupted run cannot go on.

    Args:
        known: what it began with.
        plan: the same, or a part of it, as it would be now.

    Returns:
        What to tell, and to do; None where nothing has changed.
    """
    changed = [words for key, words in _PARTS.items() if key in plan and known.get(key) != plan[key]]
    if not changed:
        return None
    return (
        f"The interrupted training cannot go on, because what it began with has changed since: {', '.join(changed)}. "
        f"Start a new one (resume: false)."
    )
