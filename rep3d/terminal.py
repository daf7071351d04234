"""Tables that fit a terminal: those with a column for each label are parted where they would be too wide.

A column that is narrower than its numbers shows half of them, which is worse than a second table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

__all__ = ["print_scores"]

_NUMBER = 5  # characters of a Dice
_BORDER = 3  # characters around a cell

Cells = TypeVar("Cells", bound=tuple[str, ...])


def print_scores(
    console: Console, title: str, names: Sequence[str], heads: Sequence[str], rows: Mapping[Cells, Mapping[str, float]]
) -> None:
    """Print a row of Dice per case or round, with a column for each label; in several tables where one is too wide.

    Args:
        console: Where to print.
        title: Of the table.
        names: The labels, in order.
        heads: Heads of the columns on the left.
        rows: What stands on the left, to Dice by label; "-" is shown for a label that is missing or NaN.
    """
    left = sum(max(map(len, column)) + _BORDER for column in zip(heads, *rows, strict=True)) + 1
    groups = _groups(names, max(console.width - left, console.width // 2))  # long names on the left are folded
    for group in groups:
        more = f", labels {names.index(group[0]) + 1} to {names.index(group[-1]) + 1}" if len(groups) > 1 else ""
        columns = [Column(escape(head), overflow="fold") for head in heads]
        table = Table(*columns, title=escape(title + more), title_justify="left")
        for name in group:
            table.add_column(escape(name), justify="right", width=_width(name))
        for cells, dice in rows.items():
            numbers = ["-" if math.isnan(value := dice.get(name, math.nan)) else f"{value:.3f}" for name in group]
            table.add_row(*map(escape, cells), *numbers)
        console.print(table)


def _groups(names: Sequence[str], room: int) -> list[list[str]]:
    """Return labels whose columns fit beside each other into so many characters; at least one in each group."""
    groups: list[list[str]] = [[]]
    used = 0
    for name in names:
        needed = _width(name) + _BORDER
        if groups[-1] and used + needed > room:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += needed
    return groups


def _width(name: str) -> int:
    """Return characters that a label's column needs: for a number, and for the longest word of its name."""
    return max(_NUMBER, *(len(word) for word in name.split()))
