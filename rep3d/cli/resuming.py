"""Why ``rep3d train --resume`` cannot go on, in the words of the command line: which options are others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rep3d.errors import ResumeError, TrainingError

__all__ = ["in_options", "resume_refused"]

_OPTIONS = {
    "settings.max_minutes": "--max-time",
    "settings.resolution": "--spacing or --recipe (resolution)",
    "settings.empty_labels": "--task (empty_labels)",
    "start": "--start",
    "encoder": "--start-from",
    "program": "the release of rep3d",
}
_CASES = {"cases": "the cases to train on", "validation cases": "the cases held out"}
_FEW = 5  # cases that are named


def resume_refused(folder: Path, error: ResumeError) -> TrainingError:
    """Return what to tell, and to do, where the run of a folder cannot go on.

    Args:
        folder: what ``--resume`` names.
        error: why it cannot.
    """
    if not error.changed:
        return TrainingError(f"--resume: {folder}: {error} On the command line: with another folder for --resume.")
    return TrainingError(
        f"--resume: {folder} keeps an interrupted training that differs from this one: {in_options(error.changed)}. "
        f"Give the command with which it began, or begin a new training with another folder for --resume. "
        f"Nothing was changed."
    )


def in_options(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return what has changed, each with its value then and now.

    Args:
        changed: see :class:`~rep3d.errors.ResumeError`.
    """
    told = []
    for name, (then, now) in changed.items():
        if name in _CASES:
            told.append(f"{_CASES[name]} ({_cases(then or [], now or [])})")
        elif name == "task":
            fields = sorted(key for key in {*(then or {}), *now} if (then or {}).get(key) != now.get(key))
            pairs = (f"{key} {(then or {}).get(key)}, now {now.get(key)}" for key in fields)
            told.append(f"the task ({'; '.join(pairs)})")
        elif name in _OPTIONS or name.startswith("settings."):
            option = _OPTIONS.get(name) or "--" + name.removeprefix("settings.").replace("_", "-")
            told.append(f"{option} {_value(name, then)}, now {_value(name, now)}")
    return "; ".join(told) or ", ".join(changed)


def _value(name: str, value: Any) -> str:
    from rep3d.training.settings import NO_LIMIT

    if value in (None, "None"):
        return "not given"
    if name == "settings.max_minutes":
        return "none" if value >= NO_LIMIT else f"{value:g}m"
    if name in ("start", "encoder"):
        return f"a model {value[0]} (checksum {value[1]:08x})"
    if isinstance(value, bool):
        return "given" if value else "not given"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cases(then: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]]) -> str:
    """Return which cases came, went, or have other files."""
    before, after = ({mark[0]: list(mark[1:]) for mark in marks} for marks in (then, now))
    ids = sorted(id_ for id_ in {*before, *after} if before.get(id_) != after.get(id_))
    told = [f"{id_} {'new' if id_ not in before else 'gone' if id_ not in after else 'changed'}" for id_ in ids]
    more = [f"{len(told) - _FEW} more"] if len(told) > _FEW else []
    return ", ".join(told[:_FEW] + more) or "their order"
