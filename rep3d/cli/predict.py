"""``rep3d predict``: all images of a folder, by one model or several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperCommand

from rep3d.cli.common import Device, Engine, console
from rep3d.errors import ConfigError, Rep3DError

if TYPE_CHECKING:
    from rep3d.tasks.config import Term

__all__ = ["PredictCommand", "predict"]

_MOST_LISTED, _MOST_NAMED = 20, 5


class PredictCommand(TyperCommand):
    """Says that OUTPUT is missing: of two arguments the parser takes the last ones as given, and misses the model."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments.

        Raises:
            ConfigError: if there are some, and too few.
        """
        given = list(args)  # the parser empties it
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if given and getattr(getattr(error, "param", None), "name", "") == "checkpoints":
                raise ConfigError(
                    "OUTPUT is missing. Give one model file or more, then INPUT (what to segment), then OUTPUT (a "
                    "folder to write into): rep3d predict model.pt images predictions."
                ) from error
            raise


def predict(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL", help="Model file; of several, such as folds, the probabilities are averaged."),
    ],
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="NIfTI image, a folder of them, or a folder with DICOM series."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Folder to write into. What it has of the same input is kept.")
    ],
    formats: Annotated[
        str, typer.Option("--format", help="nifti, and of DICOM series dicom-seg and rtstruct; with commas between.")
    ] = "nifti",
    views: Annotated[int, typer.Option(help="Test-time views to average: 1 (none) to 8.")] = 1,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Write how unsure the model is, too.")] = False,
    previews: Annotated[bool, typer.Option("--previews", help="Draw three planes of each image.")] = False,
    task: Annotated[
        str | None,
        typer.Option(
            help="Task file (.yaml) or registered task that the models must be of; DICOM results and colours then say "
            "of each label what it does, not what the model does."
        ),
    ] = None,
    device: Device = None,
    engine: Engine = None,
) -> None:
    """Segment all images of a folder with a model.

    Beside the label maps there will be statistics.csv (volumes, intensities) and manifest.json. A case that cannot be
    segmented is named there, the others are segmented all the same, and the command ends with status 1. The same
    command goes on where it was stopped; under torchrun the cases are shared among the processes.
    """
    from rep3d.predicting.run import Wanted
    from rep3d.predicting.run import predict as run

    wanted = Wanted(tuple(name.strip() for name in formats.split(",")), views, uncertainty, previews)
    worked: list[float] = []

    def tell(case: str, number: int, of: int, took: float | str) -> None:
        worked.extend([took] if isinstance(took, float) else [])
        left = sum(worked) / max(len(worked), 1) * (of - number)
        words = f"{took:.1f} s" if isinstance(took, float) else took
        more = f", about {_duration(left)} left" if worked and number < of else ""
        console.print(f"[{number} of {of}] {case}: {words}{more}", markup=False, soft_wrap=True, highlight=False)

    terms = _terms(task, checkpoints) if task else None
    result = run(checkpoints, source, output, wanted, device, engine, tell, terms)
    for words in result.left_out:
        console.print(f"  left out: {escape(words)}", soft_wrap=True, highlight=False)
    kept = f", {len(result.kept)} were there already" if result.kept else ""
    console.print(f"Wrote {len(result.done)} cases into {escape(str(output))}{kept}", soft_wrap=True)
    if earlier := [name for names in result.earlier.values() for name in names]:
        left = f"{_named(earlier)}. They were left; remove them if need be."
        words = f"Of an earlier run, and not of these label maps: {left}"
        console.print(escape(words), soft_wrap=True, highlight=False)
    for told in (result.tuned, result.attribution):
        if result.done and told:
            console.print(escape(told), soft_wrap=True, highlight=False)
    if result.failed:
        listed = _reasons(result.failed)
        more = f"; and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        of = len(result.failed) + len(result.done) + len(result.kept)
        raise Rep3DError(
            f"{len(result.failed)} of {of} cases could not be predicted: {'; '.join(listed[:_MOST_LISTED])}{more}."
        )


def _terms(task: str, checkpoints: Sequence[Path]) -> Mapping[str, Term]:
    """Return what a task says of its labels, after making sure that the models are of it."""
    from rep3d.checkpoint import read_checkpoint_task
    from rep3d.training.task_file import check_model_of_task, checked_task_file

    known = checked_task_file(task).task
    for path in checkpoints:
        check_model_of_task(task, known, read_checkpoint_task(path)[0], f"Give the task of {path}, or leave it out.")
    return known.terms


def _reasons(failed: Mapping[str, str]) -> list[str]:
    """Return what went wrong with which cases; what is the same for several, but for file names, is said once."""
    alike: dict[str, list[str]] = {}
    for case, reason in failed.items():
        file = rf"{re.escape(case)}(_\d{{4}})?\.nii(\.gz)?"
        alike.setdefault(re.sub(rf"^{file}(, {file})*: ", "", reason, flags=re.IGNORECASE), []).append(case)
    found = []
    for words, cases in alike.items():
        several = f"{len(cases)} cases ({_named(cases)}): {words}"
        found.append((several if len(cases) > 1 else f"{cases[0]}: {failed[cases[0]]}").removesuffix("."))
    return found


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
