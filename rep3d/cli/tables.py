"""What ``rep3d tasks`` and ``rep3d simulate`` print: tables for people, and JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rep3d.tasks.config import Code, TaskConfig
from rep3d.tasks.registry import TASKS, registered_task

__all__ = ["show_strategies", "show_summary", "show_task", "show_tasks", "tasks_as_json"]


def tasks_as_json(name: str | None = None) -> dict[str, Any]:
    """The tasks as plain JSON types, name to definition; only one where a name is given.

    Raises:
        TaskError: if there is no task of that name.
    """
    found = TASKS.values() if name is None else (registered_task(name),)
    return {task.name: task.to_dict() for task in found}


def show_tasks(console: Console) -> None:
    """Prints all tasks, one row each."""
    table = Table("Task", "Modality", "Labels", "Spacing (mm)", "Intensity", "Patch", title="Registered tasks")
    for task in TASKS.values():
        labels = Text(", ").join(_label(task, name) for name in task.label_names)
        table.add_row(task.name, task.modality, labels, *_settings(task))
        table.add_section()
    console.print(table)


def show_task(console: Console, name: str) -> None:
    """Prints one task: each label with its voxel value, colour and codes.

    Raises:
        TaskError: if there is no task of that name.
    """
    task = registered_task(name)
    table = Table("Value", "Label", "Colour", "Category", "Type", "Modifier", "Region")
    for label in task.label_names:
        term = task.terms.get(label)
        colour = "#{:02x}{:02x}{:02x}".format(*term.colour) if term else ""
        codes = [_code(getattr(term, part, None)) for part in ("category", "type", "modifier", "region")]
        table.add_row(str(task.labels[label]), _label(task, label, value=False), colour, *codes)
    spacing, intensity, patch = _settings(task)
    console.print(f"{task.name}: {task.description}", highlight=False)
    console.print(
        f"{task.modality}, {task.orientation}, spacing {spacing} mm, {intensity}, patch {patch}", highlight=False
    )
    console.print(table)


def _label(task: TaskConfig, name: str, value: bool = True) -> Text:
    term = task.terms.get(name)
    shown = Text("■ ", style="rgb({},{},{})".format(*term.colour)) if term else Text()
    return shown.append(f"{name}={task.labels[name]}" if value else name, style="default")


def _settings(task: TaskConfig) -> tuple[str, str, str]:
    scale = task.intensity
    units = " to 0..1" if scale.mode == "window" else " percentiles, z-score"
    return (
        " x ".join(f"{side:g}" for side in task.spacing),
        f"{scale.low:g} .. {scale.high:g}{units}",
        " x ".join(str(side) for side in task.roi_size),
    )


def _code(code: Code | None) -> str:
    return f"{code.meaning} ({code.scheme} {code.value})" if code else ""


def show_strategies(console: Console, strategies: Mapping[str, str]) -> None:
    """Lists the strategies."""
    table = Table("Strategy", "What it chooses")
    for name, description in strategies.items():
        table.add_row(name, description)
    console.print(table)


def show_summary(console: Console, results: Mapping[str, Any]) -> None:
    """Dice of each strategy at each number of labels, and the labels it takes to 95 % of full-data Dice."""
    summary, settings = results["summary"], results["settings"]
    heads = [f"{count} labels" for count in settings["labels"]]
    table = Table("Strategy", *heads, "Mean of curve", "Labels to 95 %", title=f"Dice on {settings['held_out']} cases")
    for name, entry in summary["strategies"].items():
        table.add_row(name, *map(_with_interval, entry["dice"]), _with_interval(entry["area"]), _labels_needed(entry))
    console.print(table)
    console.print(
        f"Mean over {len(settings['seeds'])} seeds, with the {summary['interval']}. "
        f"All {settings['pool']} labels of the pool: {_with_interval(summary['full'])}."
    )


def _with_interval(value: Mapping[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ±{value['high'] - value['mean']:.3f}"


def _labels_needed(entry: Mapping[str, Any]) -> str:
    reached = entry["labels_to_95"]
    if reached["reached"] < reached["of"]:
        return f"reached with {reached['reached']} of {reached['of']} seeds"
    return ", ".join(f"{value:.1f}" for value in reached["seeds"].values()) + f"; mean {reached['mean']:.1f}"
