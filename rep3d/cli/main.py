"""The command line: ``rep3d demo``, ``tasks``, ``train``, ``segment``, ``evaluate``, ``explain``, ``export``,
``simulate``, ``versions``, ``keys``, ``audit``.

Heavy modules are imported inside the commands, so that ``rep3d --help`` is instant. Only this module prints and exits.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from rep3d import __version__
from rep3d.cli.audit import audit
from rep3d.cli.common import DECATHLON, Device, Engine, Folder, console, show_left_out, stop_on_terminate
from rep3d.cli.dicom_map import dicom_map
from rep3d.cli.evaluate import evaluate
from rep3d.cli.keys import keys
from rep3d.cli.simulate import simulate
from rep3d.cli.versions import versions
from rep3d.errors import Rep3DError, machine_error
from rep3d.nn.zoo import preset_words

# Idle OpenMP threads must sleep, not spin, where several processes share the cores. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
_DEMO_ROOM = 100_000_000  # bytes: images, predictions, models
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


@app.command(rich_help_panel=_TRY)
def demo(
    out: Folder = Path("demo_output"),
    data: Annotated[Path | None, typer.Option(help=f"{DECATHLON} If not given, images are generated.")] = None,
    submit: Annotated[
        int | None, typer.Option(help="Labels to submit in all.", show_default="8; 16 with --data")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Trainings, spread evenly over the submitted labels.")] = 4,
    held_out: Annotated[
        int | None,
        typer.Option(help="Cases to measure on, which the server never sees.", show_default="8; 20 with --data"),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Training steps in all.", show_default="400; 1200 with --data")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training in all.", show_default="6; 22 with --data")
    ] = None,
    strategy: Annotated[str, typer.Option(help="How the server chooses the next case.")] = "uncertainty",
    seed: Annotated[int, typer.Option(help="Seed of the generated images, the split and the training.")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server running at the end.")] = False,
    port: Annotated[int, typer.Option(help="Port of the server; 0 for a free one.")] = 0,
) -> None:
    """Play the whole loop with a real server, and measure it.

    An automatic clinician fetches cases, has them segmented, corrects and submits them, and lets the model train again.
    Each new model is measured on cases that the server never sees. Without options this takes 6 to 10 minutes on
    generated images.
    """
    from datetime import datetime

    from rep3d.data.cohort import decathlon_cohort, phantom_cohort
    from rep3d.demo.play import DemoPlan, Player
    from rep3d.demo.screen import Screen
    from rep3d.demo.server import ServerProcess
    from rep3d.files import copy_whole
    from rep3d.output import check_output_folder
    from rep3d.training.preparing import why_unusable

    stop_on_terminate()
    real = data is not None
    plan = DemoPlan(
        submit=submit if submit is not None else (16 if real else 8),
        rounds=rounds,
        iterations=iterations if iterations is not None else (1200 if real else 400),
        minutes=minutes if minutes is not None else (22.0 if real else 6.0),
        strategy=strategy,
        seed=seed,
    )
    measured = held_out if held_out is not None else (20 if real else 8)
    if measured < 1:
        raise typer.BadParameter(f"at least 1 is needed, got {measured}", param_hint="--held-out")
    report = check_output_folder(out, ("report.html",), (data,)) / "report.html"
    folder = check_output_folder(out / datetime.now().strftime("run_%Y-%m-%d_%H-%M-%S"), room=_DEMO_ROOM)
    pool = plan.submit + plan.submit // 2  # some choice for the strategy
    if data is not None:
        cohort = decathlon_cohort(data, pool, measured, seed, why_unusable)
    else:
        cohort = phantom_cohort(folder / "phantoms", pool, measured, seed)
    with Screen(console, cohort, plan) as screen:
        player = Player(cohort, plan, folder, screen)
        player.prepare()
        with ServerProcess(player.studies, folder / "server.log", port) as server:
            try:
                player.play(server)
            finally:
                if any(result.dice for result in player.rounds):
                    player.write_report(folder / "report.html")
                    copy_whole(folder / "report.html", report)
                    screen.finish(player.rounds, report)
            if serve:
                with suppress(KeyboardInterrupt):  # the way to end it, from the moment it is announced
                    screen.serving(server.url, player.studies)
                    server.wait_for_interrupt()


@app.command(rich_help_panel=_MODELS)
def train(
    data: Annotated[Path, typer.Option(help=DECATHLON)],
    output: Annotated[Path, typer.Option(help="Model file to write, such as model.pt.")],
    start: Annotated[Path | None, typer.Option(help="Model file to go on from.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(help="Model file of any task and the same preset, with whose encoder a new network begins."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help=f"Network: {', '.join(preset_words())}.", show_default="that of --start, else by the device"),
    ] = None,
    variant: Annotated[
        str, typer.Option(help="Spatial prior of a new Rep3D's kernels: learned, fixed or none.")
    ] = "learned",
    iterations: Annotated[int, typer.Option(help="Training steps at most.")] = 100_000,
    max_minutes: Annotated[
        float, typer.Option(help="Minutes for it all: the clock starts when the cases are prepared; saving is inside.")
    ] = 60.0,
    learning_rate: Annotated[float, typer.Option(help="Learning rate at the start.")] = 2e-3,
    cases: Annotated[int | None, typer.Option(help="Use only so many cases, the first by name.")] = None,
    validation: Annotated[
        int, typer.Option(help="Hold out so many cases; the weights that do best on them are kept.")
    ] = 0,
    patience: Annotated[int, typer.Option(help="Stop after so many validations without a gain; 0 for never.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder for this run alone. If the run is killed, the same command goes on from there."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of first weights, sampling and augmentation.")] = 0,
    sampling: Annotated[
        str,
        typer.Option(help="Patch centres: balanced over the labels, or as in the paper 1:1 on labels and background."),
    ] = "balanced",
    background_share: Annotated[
        float, typer.Option(help="Share of the patches that balanced sampling centres on background.")
    ] = 0.2,
    loss: Annotated[
        str,
        typer.Option(
            help="balanced: Dice of the labels in the patch, and cross-entropy in which rare labels weigh more; "
            "present: with equal weights; dice_ce: MONAI's, of all labels."
        ),
    ] = "balanced",
    stages: Annotated[
        str,
        typer.Option(
            help="auto: a second, fine stage where it may pay, kept if it does on the --validation cases; one: none."
        ),
    ] = "one",
    prepared: Annotated[
        Path | None,
        typer.Option(help="Folder for this alone: keeps the prepared cases, so that the next training begins at once."),
    ] = None,
    device: Device = None,
    gpus: Annotated[str | None, typer.Option(help="Train on several GPUs: all, or numbers such as 0,1.")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size in mm along R, A, S.", show_default="by images, structures, machine and minutes"),
    ] = None,
) -> None:
    """Train a model on a data set.

    To know how good it is, run `rep3d evaluate` on other cases.
    """
    from rep3d.checkpoint import load_checkpoint
    from rep3d.data.cases import LeftOut, listed, read_data_set
    from rep3d.demo.screen import train_progress
    from rep3d.inference.predictor import choose_device
    from rep3d.output import check_output, check_output_folder
    from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json
    from rep3d.training.distributed import parse_gpus
    from rep3d.training.minutes.speed import default_preset
    from rep3d.training.train import TrainSettings, task_for_cases
    from rep3d.training.train import train as run
    from rep3d.training.validation import choose_validation

    description = data / "dataset.json"
    check_output(output, (".pt",), (start, start_from, description), option="--output", make_folder=True)
    if resume is not None:
        check_output_folder(resume, option="--resume")
    if prepared is not None:
        check_output_folder(prepared, option="--prepared")
    labels, modality = labels_from_dataset_json(description), modality_from_dataset_json(description)
    there = read_data_set(data)
    found = list(there.cases[:cases])
    console.print(f"{escape(str(data))}: {there.found} cases found, {len(found)} to train with", soft_wrap=True)
    show_left_out(there.left_out)
    if not found:
        raise Rep3DError(f"--data: {data} has no case to train on. {listed(there.left_out)}")
    checkpoint = load_checkpoint(start) if start else None
    encoder = load_checkpoint(start_from) if start_from else None
    images = [case.image for case in found]
    task = checkpoint.task if checkpoint else task_for_cases(data.name, labels, images, modality, spacing=spacing)
    if spacing is not None:
        task = dataclasses.replace(task, spacing=spacing)
    settings = TrainSettings(
        iterations,
        max_minutes,
        learning_rate,
        seed=seed,
        preset=preset
        or (checkpoint.info.get("preset") if checkpoint else None)
        or default_preset(choose_device(device)),
        device=device,
        patience=patience,
        variant=variant,
        resolution="task" if spacing else "auto",
        gpus=parse_gpus(gpus) if gpus else None,
        sampling=sampling,
        background_share=background_share,
        loss=loss,
        stages=stages,
    )
    seen = checkpoint.info.get("trained_on", checkpoint.info.get("cases", [])) if checkpoint else []
    training, held_out = choose_validation(found, validation, seen) if validation else (found, [])
    with train_progress(console, max_minutes) as progress:
        trained = run(
            *(training, task, settings, output, checkpoint, progress),
            encoder=encoder,
            validation=held_out,
            state=resume,
            left_out=there.left_out,
            prepared=prepared,
        )
    info = trained.info
    show_left_out(LeftOut(**entry) for entry in info["left_out"][len(there.left_out) :])
    facts = (
        f"{trained.version}, {len(info['cases'])} cases, training loss {info['loss']:.3f}, ended by {info['stopped']}"
    )
    console.print(f"Wrote {escape(str(output))}: {facts}", soft_wrap=True)
    if info["resolution"] is not None:
        console.print(info["resolution"]["words"], soft_wrap=True)
    if info["shortfall"] is not None:
        console.print(escape(info["shortfall"]), soft_wrap=True)
    if info["resumed_from"] is not None:
        console.print(f"It went on from step {info['resumed_from']} of a run that had not ended.")
    if info["validation"] is not None:
        dice = ", ".join(f"{escape(name)} {value:.3f}" for name, value in info["validation"].items())
        count = len(info["validation_measured"])
        words = f"on {count} cases that it was not trained on; they chose the weights (step {info['kept_iteration']})"
        console.print(f"Validation Dice {words}: {dice or 'no label in these cases'}", soft_wrap=True)


@app.command(rich_help_panel=_MODELS)
def segment(
    checkpoint: Annotated[Path, typer.Argument(help="Model file.")],
    image: Annotated[Path, typer.Argument(help="NIfTI image, or a folder with one DICOM series.")],
    output: Annotated[Path, typer.Argument(help="Label map to write (.nii.gz or .nii), on the image's own grid.")],
    device: Device = None,
    engine: Engine = None,
) -> None:
    """Segment an image with a model."""
    from rep3d.output import check_output

    check_output(output, (".nii.gz", ".nii"), (checkpoint, image), option="OUTPUT")  # before PyTorch is loaded
    from rep3d.inference.predictor import Predictor

    result = Predictor.load(checkpoint, device, engine, single_image=True).segment(image, output)
    for name, volume in result.volumes_ml.items():
        console.print(f"{escape(name)}: {volume:.2f} ml")
    facts = f"{sum(result.seconds.values()):.1f} s with {result.engine}, uncertainty {result.uncertainty:.3f}"
    console.print(f"Wrote {escape(str(output))} ({facts})", soft_wrap=True)


app.command(rich_help_panel=_MODELS)(evaluate)


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
    name: Annotated[str | None, typer.Argument(help="Show only this one, with its label values and codes.")] = None,
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

    expected: tuple[type[Exception], ...] = (Rep3DError, *client_errors())
    try:
        app(prog_name="rep3d")
    except Exception as error:
        ours = machine_error(error) or error
        if not isinstance(ours, expected):
            raise
        Console(stderr=True).print(f"[bold red]rep3d:[/] {escape(str(ours))}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("[yellow]rep3d: stopped[/]")
        sys.exit(130)


if __name__ == "__main__":
    main()
