"""The table that ``rep3d simulate`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["show_strategies", "show_summary"]


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
        table.add_row(name, *map(_with_interval, entry["dice"]), _with_interval(entry["area"]), _labels(entry))
    console.print(table)
    console.print(
        f"Mean over {len(settings['seeds'])} seeds, with the {summary['interval']}. "
        f"All {settings['pool']} labels of the pool: {_with_interval(summary['full'])}."
    )


def _with_interval(value: Mapping[str, Any]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.3f}"
    return f"{value['mean']:.3f} ±{value['high'] - value['mean']:.3f}"


def _labels(entry: Mapping[str, Any]) -> str:
    reached = entry["labels_to_95"]
    if reached["reached"] < reached["of"]:
        return f"reached with {reached['reached']} of {reached['of']} seeds"
    return ", ".join(f"{value:.1f}" for value in reached["seeds"].values()) + f"; mean {reached['mean']:.1f}"
