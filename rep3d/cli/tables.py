"""What ``rep3d tasks`` and ``rep3d simulate`` print: tables for people, and JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from rep3d.tasks.config import TaskConfig
from rep3d.tasks.registry import TASKS, known_task

__all__ = ["show_strategies", "show_summary", "show_task", "show_tasks", "tasks_as_json"]


def tasks_as_json(name: str | None = None) -> dict[str, Any]:
    """Return the tasks as plain JSON types, name to definition; only one where a name is given.

    Raises:
        TaskError: if there is no task of that name.
    """
    found = TASKS.values() if name is None else (known_task(name),)
    return {task.name: task.to_dict() for task in found}


def show_tasks(console: Console) -> None:
    """Print all tasks: what each is for, and its labels with their values."""
    for task in TASKS.values():
        console.print(Text(task.name, style="bold"))
        console.print(Padding(Text(task.description), (0, 0, 0, 2)))
        console.print(Padding(Text(_settings(task)), (0, 0, 0, 2)))
        labels = [_label(console, task, name).append(f"={task.labels[name]}") for name in task.label_names]
        console.print(Padding(Columns(labels, padding=(0, 3)), (0, 0, 1, 2)))
    console.print("rep3d tasks NAME shows one with the codes of its labels.", highlight=False)


def show_task(console: Console, name: str) -> None:
    """Print one task: each label with its voxel value, colour and codes.

    Raises:
        TaskError: if there is no task of that name.
    """
    task = known_task(name)
    console.print(Text(task.name, style="bold"))
    console.print(Text(task.description))
    console.print(Text(_settings(task)))
    for label in task.label_names:
        term = task.terms.get(label)
        line = Text(f"\n{task.labels[label]:>3}  ").append_text(_label(console, task, label))
        console.print(line.append("  #{:02x}{:02x}{:02x}".format(*term.colour) if term else "", style="dim"))
        for part in ("category", "type", "modifier", "region"):
            if code := getattr(term, part, None):
                console.print(Text(f"     {part:<10}{code.meaning} ({code.scheme} {code.value})"))


def _label(console: Console, task: TaskConfig, name: str) -> Text:
    """Return a label's name, after a square of its colour where the terminal shows colours."""
    term = task.terms.get(name)
    if term is None or console.no_color or not console.color_system:
        return Text(name)
    return Text("■ ", style="rgb({},{},{})".format(*term.colour)).append(name, style="default")


def _settings(task: TaskConfig) -> str:
    scale = task.intensity
    units = " to 0..1" if scale.mode == "window" else " percentiles, z-score"
    spacing = " x ".join(f"{side:g}" for side in task.spacing)
    patch = " x ".join(str(side) for side in task.roi_size)
    return f"{task.modality}, {spacing} mm, intensity {scale.low:g} .. {scale.high:g}{units}, patch {patch}"


def show_strategies(console: Console, strategies: Mapping[str, str]) -> None:
    """List the strategies."""
    table = Table("Strategy", "What it chooses")
    for name, description in strategies.items():
        table.add_row(name, description)
    console.print(table)


def show_summary(console: Console, results: Mapping[str, Any]) -> None:
    """Print Dice of each strategy at each number of labels, and the labels it takes to 95 % of full-data Dice."""
    summary, settings = results["summary"], results["settings"]
    strategies = summary["strategies"]
    columns = [Column(name, min_width=len(name)) for name in strategies]
    table = Table("Labels", *columns, title=f"Dice on {settings['held_out']} held-out cases", title_justify="left")
    for index, count in enumerate(settings["labels"]):
        table.add_row(str(count), *[_with_interval(entry["dice"][index]) for entry in strategies.values()])
    table.add_section()
    table.add_row("mean of curve", *[_with_interval(entry["area"]) for entry in strategies.values()])
    table.add_row("labels to 95 %", *map(_labels_needed, strategies.values()))
    console.print(table)
    console.print(
        f"Mean over {len(settings['seeds'])} seeds, with the {summary['interval']}. "
        f"Trained on all {settings['pool']} labels: {_with_interval(summary['full'])}."
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
