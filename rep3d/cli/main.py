"""The command line: ``rep3d demo``, ``tasks``, ``plan``, ``convert``, ``train``, ``segment``, ``predict``,
``evaluate``, ``compare``, ``tune``, ``explain``, ``export``, ``simulate``, ``versions``, ``keys``, ``audit``.

Heavy modules are imported inside the commands, so that ``rep3d --help`` is instant. Only this module prints and exits.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rep3d import __version__
from rep3d.cli.audit import audit
from rep3d.cli.common import Device, Engine, Folder, console
from rep3d.cli.compare import compare
from rep3d.cli.convert import convert
from rep3d.cli.demo import demo
from rep3d.cli.dicom_map import dicom_map
from rep3d.cli.evaluate import evaluate
from rep3d.cli.keys import keys
from rep3d.cli.plan import plan
from rep3d.cli.predict import PredictCommand, predict
from rep3d.cli.simulate import simulate
from rep3d.cli.train import train
from rep3d.cli.tune import tune
from rep3d.cli.versions import versions
from rep3d.errors import Rep3DError, machine_error

# Idle OpenMP threads must sleep, not spin, where several processes share the cores. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
_TRY, _MODELS, _SERVER = "Try it out", "Train and use a model", "Look after a server"


def _version(show: bool) -> None:
    if show:
        console.print(f"rep3d {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Segment 3D medical images, and learn from each correction.

    See the whole loop at work with `rep3d demo`; `rep3d COMMAND --help` says what a command takes.
    """


app.command(rich_help_panel=_TRY)(demo)
app.command(rich_help_panel=_MODELS)(plan)
app.command(rich_help_panel=_MODELS)(convert)
app.command(rich_help_panel=_MODELS)(train)


@app.command(rich_help_panel=_MODELS)
def segment(
    checkpoint: Annotated[Path, typer.Argument(help="Model file.")],
    image: Annotated[Path, typer.Argument(help="NIfTI image, or a folder with one DICOM series.")],
    output: Annotated[Path, typer.Argument(help="Label map to write (.nii.gz or .nii), on the image's own grid.")],
    channel: Annotated[
        list[Path] | None,
        typer.Option(help="Further channel of the image, in the model's order; may be repeated. Not for a 4D file."),
    ] = None,
    device: Device = None,
    engine: Engine = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a label map that is there.")] = False,
) -> None:
    """Segment an image with a model."""
    from rep3d.output import check_output, refuse_replacing

    files = (image, *(channel or ()))
    check_output(output, (".nii.gz", ".nii"), (checkpoint, *files), option="OUTPUT")  # before PyTorch is loaded
    if not replace:
        refuse_replacing((output,), ", perhaps a person's work")
    from rep3d.inference.predictor import Predictor
    from rep3d.starter.facts import starter_words

    predictor = Predictor.load(checkpoint, device, engine, single_image=True)
    result = predictor.segment(files, output)
    for name, volume in result.volumes_ml.items():
        console.print(f"{escape(name)}: {volume:.2f} ml")
    facts = f"{sum(result.seconds.values()):.1f} s with {result.engine}, uncertainty {result.uncertainty:.3f}"
    console.print(f"Wrote {escape(str(output))} ({facts})", soft_wrap=True)
    for words in (result.tuned, starter_words(predictor.info)):
        if words:
            console.print(escape(words), soft_wrap=True, highlight=False)


app.command(cls=PredictCommand, rich_help_panel=_MODELS)(predict)
app.command(rich_help_panel=_MODELS)(evaluate)
app.command(rich_help_panel=_MODELS)(compare)
app.command(rich_help_panel=_MODELS)(tune)


@app.command(rich_help_panel=_MODELS)
def explain(
    checkpoint: Annotated[Path, typer.Option(help="Model file.")],
    out: Folder = Path("explained"),
    compare: Annotated[
        str | None,
        typer.Option(help="Model to show beside it: a file, or untrained, prior or plain for a new network."),
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="NIfTI image to take inputs from; may be repeated.")] = None,
    inputs: Annotated[int, typer.Option(help="Inputs to average over.")] = 8,
    logits: Annotated[bool, typer.Option("--logits", help="Measure the network's outputs too (slow).")] = False,
    device: Device = None,
    seed: Annotated[int, typer.Option(help="Seed of patches, noise and new weights.")] = 0,
) -> None:
    """Show what a model looks at, on one page.

    The page has the masks, kernels and receptive fields of the network, alone or beside those of another one.
    """
    from rep3d.explain.explain import explain as run

    page = run(checkpoint, out, compare, image or (), inputs, device, seed, logits=logits)
    console.print(f"Wrote {escape(str(page))} and {page.with_suffix('.json').name}", soft_wrap=True)


@app.command(rich_help_panel=_MODELS)
def export(
    checkpoint: Annotated[Path, typer.Option(help="Model file.")],
    output: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for torch.export.")],
) -> None:
    """Write a model for other programs (ONNX, torch.export).

    The network is written with plain convolutions, and checked to compute the same.
    """
    from rep3d.checkpoint import load_checkpoint
    from rep3d.inference.export import export_onnx, export_program
    from rep3d.output import check_output

    exporters = {".onnx": export_onnx, ".pt2": export_program}
    check_output(output, tuple(exporters), (checkpoint,), option="--output", make_folder=True)
    written = exporters[output.suffix.lower()](load_checkpoint(checkpoint), output)
    error = "not compared" if written.max_error is None else f"probabilities within {written.max_error:.1e}"
    facts = f"{written.size / 1e6:.1f} MB, checked with {written.checked_with}: {error}"
    console.print(f"Wrote {escape(str(output))} ({facts})", soft_wrap=True)


app.command(rich_help_panel=_TRY)(simulate)


@app.command(rich_help_panel=_SERVER)
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Show only this one, with its label values and codes; a name or a task file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the tasks known by name, with their labels.

    A task is what a model is for: which labels, on which kind of image, at which voxel size.
    """
    from rep3d.cli.tables import show_task, show_tasks, tasks_as_json

    if as_json:
        console.print_json(data=tasks_as_json(name))
    elif name is not None:
        show_task(console, name)
    else:
        show_tasks(console)


app.command(rich_help_panel=_SERVER)(versions)
app.add_typer(keys, rich_help_panel=_SERVER)
app.command(rich_help_panel=_SERVER)(audit)
app.command(name="dicom-map", rich_help_panel=_SERVER)(dicom_map)


def main() -> None:
    """Entry point: our own errors are shown as one clear message, not as a traceback."""
    from rep3d.demo.checkout import client_errors
    from rep3d.output import remove_unused_folders

    expected: tuple[type[Exception], ...] = (Rep3DError, *client_errors())
    try:
        app(prog_name="rep3d")
    except Exception as error:
        remove_unused_folders()
        ours = machine_error(error) or error
        if not isinstance(ours, expected):
            raise
        Console(stderr=True).print(f"[bold red]rep3d:[/] {escape(str(ours))}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        remove_unused_folders()
        Console(stderr=True).print("[yellow]rep3d: stopped[/]")
        sys.exit(130)


if __name__ == "__main__":
    main()
