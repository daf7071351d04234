"""``rep3d compare``: whether models differ on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from rep3d.cli.common import console
from rep3d.errors import Rep3DError

if TYPE_CHECKING:
    from rep3d.evaluation.comparison import Comparison

__all__ = ["compare"]

_FILES = ("comparison.json", "comparison.html")


def compare(
    evaluations: Annotated[
        list[Path], typer.Argument(help="Folders that rep3d evaluate wrote into, two or more.", show_default=False)
    ],
    metric: Annotated[str, typer.Option(help="What to print: dice, nsd, hd95 or volume-off.")] = "dice",
    out: Annotated[Path | None, typer.Option(help="Folder to write into: all metrics as JSON, and a page.")] = None,
) -> None:
    """Tell whether models differ, from evaluations on the same cases.

    For each label: mean difference with interval, Wilcoxon's signed-rank test corrected for the number of labels,
    effect size, and a verdict in words, which says where there are too few cases to tell.
    """
    from rep3d.evaluation.comparison import COMPARED
    from rep3d.evaluation.comparison import compare as run
    from rep3d.evaluation.evaluation import EVALUATION, METRICS, read_evaluation
    from rep3d.output import check_output_folder

    if metric not in COMPARED:
        raise Rep3DError(f"--metric: expected {', '.join(COMPARED)}, got {metric!r}")
    if out is not None:
        inputs = [place / EVALUATION if place.is_dir() else place for place in evaluations]
        check_output_folder(out, _FILES, inputs)
    found = {name: read_evaluation(place) for name, place in _names(evaluations).items()}
    comparison = run(found)
    if metric not in [one.key for one in comparison.metrics]:
        raise Rep3DError(f"--metric: {metric} cannot be compared. {' '.join(comparison.notes)}")
    for name, one in found.items():
        console.print(f"{escape(name)}: {escape(one.name)} on {len(one.cases)} cases", soft_wrap=True, highlight=False)
    for note in comparison.notes:
        console.print(escape(note), soft_wrap=True, highlight=False)
    _show(comparison, METRICS[metric].key)
    if out is not None:
        _write(comparison, out)


def _names(places: list[Path]) -> dict[str, Path]:
    """Return the evaluations by name: the last part of their paths, or all of it where two would share a name."""
    folders = [(place if place.is_dir() else place.parent).resolve() for place in places]  # or evaluation.json in one
    if len(set(folders)) < len(places):
        raise Rep3DError("One evaluation is given twice. Give two or more different ones.")
    short = [folder.name for folder in folders]
    return dict(zip(short if len(set(short)) == len(short) else map(str, places), places, strict=True))


def _show(comparison: Comparison, key: str) -> None:
    """Print a table for each pair of models, and what it says."""
    from rich.table import Table

    metric = next(metric for metric in comparison.metrics if metric.key == key)
    for first, second in comparison.pairs:
        rows = comparison.of(metric, (first, second))
        title = f"{metric.title}: {second} against {first}, {len(comparison.cases)} cases"
        table = Table("Label", "Cases", title=escape(title), title_justify="left")
        for head in (first, second):
            table.add_column(escape(head), justify="right", overflow="fold")
        for head in ("Difference", "Effect", "p, corrected"):
            table.add_column(head, justify="right")
        for row in rows:
            mean = row.mean
            interval = (
                "" if mean.low is None or mean.high is None else f"\n{row.shown(mean.low)} to {row.shown(mean.high)}"
            )
            table.add_row(
                escape(row.title),
                str(len(row.differences)),
                metric.shown(row.first_mean),
                metric.shown(row.second_mean),
                f"{row.shown(mean.mean)}{interval}",
                "-" if row.effect is None else f"{row.effect:+.2f}",
                "-" if row.corrected is None else f"{row.corrected:.2g}",
            )
        console.print(table)
        for row in rows:
            console.print(f"{escape(row.title)}: {escape(row.verdict)}.", soft_wrap=True, highlight=False)


def _write(comparison: Comparison, out: Path) -> None:
    from rep3d.evaluation.page import comparison_page
    from rep3d.files import write_text
    from rep3d.json_file import JsonFile, json_object

    data, page = (out / name for name in _FILES)
    file: JsonFile[Any] = JsonFile(data, json_object, "a comparison", dict, begins_anew=False)
    file.write(comparison.to_dict(), allow_nan=False)
    write_text(page, comparison_page(comparison))
    console.print(f"Wrote {escape(str(page))} and {data.name}", soft_wrap=True)
