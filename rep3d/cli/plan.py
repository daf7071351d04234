"""``rep3d plan``: what a data set is like, what is wrong with it, and a task file to train with."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from rep3d.cli.common import DECATHLON, Device, console
from rep3d.nn.zoo import preset_words

if TYPE_CHECKING:
    from rep3d.planning.plan import Plan

__all__ = ["plan"]


def plan(
    data: Annotated[Path, typer.Argument(help=DECATHLON)],
    out: Annotated[Path, typer.Option(help="Folder to write task.yaml, plan.html and fingerprint.json into.")] = Path(
        "plan"
    ),
    name: Annotated[str | None, typer.Option(help="Name of the task.", show_default="the folder's")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Network to plan for: {', '.join(preset_words())}.", show_default="by the device"),
    ] = None,
    device: Device = None,
    memory: Annotated[
        float | None,
        typer.Option(help="GB that a training may take, to plan for another machine.", show_default="the device's"),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write a task file anew that is there.")] = False,
) -> None:
    """Look at a data set, and write a task file for it.

    Each file is read once. What is wrong with a case is named with its file, and with what `rep3d train` does about it.
    The page shows what was measured, and a few slices; the task file proposes spacing, intensity, patch and network.
    """
    if memory is not None and not 0.1 <= memory <= 10_000:
        raise typer.BadParameter(f"expected 0.1 to 10000 GB, got {memory:g}", param_hint="--memory")
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from rep3d.planning.plan import plan as run
    from rep3d.planning.writing import check_plan_folder, write_plan

    check_plan_folder(out, data, replace=replace)
    columns = TextColumn("Reading cases"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)
        made = run(
            data,
            name=name,
            preset=preset,
            device=device,
            memory_gb=memory,
            report=lambda done, of: progress.update(bar, completed=done, total=of),
        )
    _show(made)
    files = write_plan(made, out)
    console.print(f"Wrote {', '.join(escape(str(file)) for file in files)}", soft_wrap=True)
    words = ("rep3d", "train", "--data", str(data), "--task", str(files[0]), "--output", "model.pt")
    command = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    console.print(f"Look at the page, change the task file if need be, then: {escape(command)}", soft_wrap=True)


def _show(made: Plan) -> None:
    from rep3d.planning.words import LABEL_HEAD, counted, image_rows, label_rows, proposal_rows

    console.print(f"{escape(made.name)}: {counted(made)}", soft_wrap=True)
    for defect in made.seen.defects:
        console.print(f"  {defect.rule}: {escape(str(defect.entry))}", soft_wrap=True, highlight=False)
    for title, head, rows in (
        ("Images", ("What", "Median (lowest to highest)"), image_rows(made)),
        ("Labels", LABEL_HEAD, label_rows(made)),
        ("Proposed", ("Setting", "Value", "Why"), proposal_rows(made)),
    ):
        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
