"""The command line: ``rep3d demo``, ``tasks``, ``train``, ``segment``, ``evaluate``, ``explain``, ``export``,
``simulate``, ``versions``.

Heavy modules are imported inside the commands, so that ``rep3d --help`` is instant. Only this module prints and exits.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from rep3d import __version__
from rep3d.cli.versions import versions
from rep3d.errors import Rep3DError

# Idle OpenMP threads must sleep, not spin, where several processes share the cores. Read when PyTorch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.split("\n")[0]
)
console = Console()
_Folder = Annotated[Path, typer.Option(help="Folder to write into.")]


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
    """Rep3D: 3D segmentation with large re-parameterised kernels, learning online from a clinician's corrections."""


@app.command()
def demo(
    out: _Folder = Path("demo_output"),
    data: Annotated[
        Path | None, typer.Option(help="Decathlon folder (imagesTr, labelsTr, dataset.json) instead of phantoms.")
    ] = None,
    submit: Annotated[int | None, typer.Option(help="Labels to submit in all. [default: 8; 16 with --data]")] = None,
    rounds: Annotated[int, typer.Option(help="Trainings to spread them over.")] = 4,
    held_out: Annotated[int | None, typer.Option(help="Cases to measure on. [default: 8; 20 with --data]")] = None,
    iterations: Annotated[int | None, typer.Option(help="Training steps in all.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Training time in all. [default: 6; 22 with --data]")] = None,
    strategy: Annotated[str, typer.Option(help="How the server picks the next case.")] = "uncertainty",
    seed: Annotated[int, typer.Option(help="Of phantoms, split and training.")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server running at the end.")] = False,
    port: Annotated[int, typer.Option(help="Port of the server; 0 for a free one.")] = 0,
) -> None:
    """Play the whole loop against a real server: segment, correct, submit, retrain, and measure on held-out cases."""
    from rep3d.data.cohort import decathlon_cohort, phantom_cohort
    from rep3d.demo.play import DemoPlan, Player
    from rep3d.demo.screen import Screen
    from rep3d.demo.server import ServerProcess

    _stop_on_terminate()
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
        raise typer.BadParameter(f"expected at least one held-out case, got {measured}", param_hint="--held-out")
    folder = _new_run_folder(out)
    pool = plan.submit + plan.submit // 2  # some choice for the strategy
    if data is not None:
        cohort = decathlon_cohort(data, pool, measured, seed)
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
                    report = out / "report.html"
                    player.write_report(folder / "report.html")
                    report.write_bytes((folder / "report.html").read_bytes())
                    screen.finish(player.rounds, report)
            if serve:
                with suppress(KeyboardInterrupt):  # the way to end it, from the moment it is announced
                    screen.serving(server.url, player.studies)
                    server.wait_for_interrupt()


def _new_run_folder(out: Path) -> Path:
    """A new folder for this run below ``out``; what is there stays."""
    from datetime import datetime

    folder = out / datetime.now().strftime("run_%Y-%m-%d_%H-%M-%S")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise Rep3DError(f"--out: expected a folder that can be written, got {out} ({error})") from error
    return folder


def _stop_on_terminate() -> None:
    """Makes a polite kill like Ctrl-C, so that the server is stopped with us."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="Show this one, with the codes of its labels.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """List the tasks known by name: labels, values, colours, terminology, spacing, intensity, patch."""
    from rep3d.cli.tables import show_task, show_tasks, tasks_as_json

    if as_json:
        console.print_json(data=tasks_as_json(name))
    elif name is not None:
        show_task(console, name)
    else:
        show_tasks(console)


@app.command()
def train(
    data: Annotated[Path, typer.Option(help="Decathlon folder: imagesTr, labelsTr, dataset.json.")],
    output: Annotated[Path, typer.Option(help="Checkpoint to write.")],
    start: Annotated[Path | None, typer.Option(help="Checkpoint to continue from.")] = None,
    preset: Annotated[str, typer.Option(help="Network: tiny or base.")] = "tiny",
    variant: Annotated[str, typer.Option(help="Prior of a first network's kernels: learned, fixed, none.")] = "learned",
    iterations: Annotated[int, typer.Option(help="Training steps.")] = 1000,
    max_minutes: Annotated[float, typer.Option(help="Time budget in minutes.")] = 60.0,
    learning_rate: Annotated[float, typer.Option(help="Of AdamW at the start.")] = 2e-3,
    cases: Annotated[int | None, typer.Option(help="Use only so many cases, the first by name.")] = None,
    validation: Annotated[int, typer.Option(help="Cases to leave out of training; they choose the weights.")] = 0,
    patience: Annotated[int, typer.Option(help="End after so many validations without a gain; 0: never.")] = 0,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of this run alone; run again with it, a killed training goes on.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of initialisation, sampling and augmentation.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the best at hand if not given.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Train on several GPUs: all, or numbers such as 0,1.")] = None,
) -> None:
    """Train on a labelled data set. To know how accurate the model is, run `rep3d evaluate` on other cases."""
    from rep3d.checkpoint import load_checkpoint
    from rep3d.data.cases import decathlon_cases
    from rep3d.demo.screen import train_progress
    from rep3d.tasks.config import labels_from_dataset_json, modality_from_dataset_json
    from rep3d.training.distributed import parse_gpus
    from rep3d.training.train import TrainSettings, task_for_cases
    from rep3d.training.train import train as run
    from rep3d.training.validation import choose_validation

    description = data / "dataset.json"
    labels, modality = labels_from_dataset_json(description), modality_from_dataset_json(description)
    found = decathlon_cases(data)[:cases]
    checkpoint = load_checkpoint(start) if start else None
    images = [case.image for case in found]
    task = checkpoint.task if checkpoint else task_for_cases(data.name, labels, images, modality)
    settings = TrainSettings(
        iterations,
        max_minutes,
        learning_rate,
        seed=seed,
        preset=preset,
        device=device,
        patience=patience,
        variant=variant,
        gpus=parse_gpus(gpus) if gpus else None,
    )
    seen = checkpoint.info.get("trained_on", checkpoint.info.get("cases", [])) if checkpoint else []
    training, left_out = choose_validation(found, validation, seen) if validation else (found, [])
    with train_progress(console) as progress:
        trained = run(training, task, settings, output, checkpoint, progress, validation=left_out, state=resume)
    info = trained.info
    facts = f"{trained.version}, {len(training)} cases, training loss {info['loss']:.3f}, ended by {info['stopped']}"
    console.print(f"Wrote {escape(str(output))}: {facts}", soft_wrap=True)
    if info["resumed_from"] is not None:
        console.print(f"It went on from step {info['resumed_from']} of a run that had not ended.")
    if info["validation"] is not None:
        dice = ", ".join(f"{escape(name)} {value:.3f}" for name, value in info["validation"].items())
        count = len(info["validation_measured"])
        words = f"on {count} cases that it was not trained on; they chose the weights (step {info['kept_iteration']})"
        console.print(f"Validation Dice {words}: {dice or 'no label in these cases'}", soft_wrap=True)


@app.command()
def segment(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    image: Annotated[Path, typer.Argument(help="NIfTI image, or a folder with one DICOM series.")],
    output: Annotated[Path, typer.Argument(help="Label map to write (.nii.gz), on the image's own grid.")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the best at hand if not given.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch or openvino; auto if not given.")] = None,
) -> None:
    """Segment an image file."""
    from rep3d.inference.predictor import Predictor

    result = Predictor.load(checkpoint, device, engine, single_image=True).segment(image, output)
    for name, volume in result.volumes_ml.items():
        console.print(f"{escape(name)}: {volume:.2f} ml")
    facts = f"{sum(result.seconds.values()):.1f} s with {result.engine}, uncertainty {result.uncertainty:.3f}"
    console.print(f"Wrote {escape(str(output))} ({facts})")


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Trained model.")],
    data: Annotated[Path, typer.Option(help="Decathlon folder: imagesTr, labelsTr.")],
    skip: Annotated[int, typer.Option(help="Leave out so many cases, the first by name.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the best at hand if not given.")] = None,
    engine: Annotated[str | None, typer.Option(help="auto, torch or openvino; auto if not given.")] = None,
) -> None:
    """Measure Dice on labelled cases; says so where cases were trained on."""
    import tempfile

    from rich.table import Table

    from rep3d.data.cases import decathlon_cases
    from rep3d.evaluation.metrics import dice_of_files, mean_dice
    from rep3d.inference.predictor import Predictor

    predictor = Predictor.load(checkpoint, device, engine)
    cases = decathlon_cases(data)[skip:]
    if not cases:
        raise Rep3DError(f"--data: expected labelled cases in {data}/imagesTr and labelsTr, found none to measure on")
    seen = set(predictor.info.get("trained_on", predictor.info.get("cases", [])))
    names = predictor.task.label_names
    table = Table("Case", *names, "Mean", title=f"Dice of {checkpoint.name} ({predictor.version})")
    scores = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            found = Path(folder) / "found.nii.gz"
            predictor.segment(case.image, found)
            scores[case.id] = dice_of_files(found, case.label, predictor.task.labels)
            row = [f"{scores[case.id][name]:.3f}" for name in names] + [f"{mean_dice({case.id: scores[case.id]}):.3f}"]
            table.add_row(f"{case.id} (trained on)" if case.id in seen else case.id, *row)
    console.print(table)
    fresh = {case: score for case, score in scores.items() if case not in seen}
    if fresh:
        console.print(f"Mean over {len(fresh)} cases not trained on: {mean_dice(fresh):.3f}")
    if len(fresh) < len(scores):
        console.print(f"{len(scores) - len(fresh)} cases were trained on: their Dice says nothing about new images.")


@app.command()
def explain(
    checkpoint: Annotated[Path, typer.Option(help="Trained model.")],
    out: _Folder = Path("explained"),
    compare: Annotated[
        str | None, typer.Option(help="Another checkpoint, or fresh weights: untrained, prior, plain.")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="NIfTI image to take inputs from; repeatable.")] = None,
    inputs: Annotated[int, typer.Option(help="Inputs to average over.")] = 8,
    logits: Annotated[bool, typer.Option("--logits", help="Measure the logits too (slow).")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the best at hand if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of patches, noise and fresh weights.")] = 0,
) -> None:
    """Show a model's masks, kernels and receptive fields on one page, alone or beside another one."""
    from rep3d.explain.explain import explain as run

    page = run(checkpoint, out, compare, image or (), inputs, device, seed, logits=logits)
    console.print(f"Wrote {escape(str(page))} and {page.with_suffix('.json').name}", soft_wrap=True)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="Trained model.")],
    output: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for a torch.export program.")],
) -> None:
    """Write the folded network for other programs, with plain convolutions, and check that it computes the same."""
    from rep3d.checkpoint import load_checkpoint
    from rep3d.inference.export import export_onnx, export_program

    exporters = {".onnx": export_onnx, ".pt2": export_program}
    if output.suffix not in exporters:
        raise Rep3DError(f"--output: expected a file name that ends in .onnx or .pt2, got {output.name!r}")
    written = exporters[output.suffix](load_checkpoint(checkpoint), output)
    error = "not compared" if written.max_error is None else f"probabilities within {written.max_error:.1e}"
    console.print(
        f"Wrote {escape(str(output))} ({written.size / 1e6:.1f} MB, checked with {written.checked_with}: {error})"
    )


@app.command()
def simulate(
    data: Annotated[
        Path | None, typer.Argument(help="Decathlon folder (imagesTr, labelsTr, dataset.json); phantoms if not given.")
    ] = None,
    out: _Folder = Path("simulation"),
    strategies: Annotated[str, typer.Option(help="Names with commas; `--strategies help` lists them.")] = (
        "random,entropy,hybrid"
    ),
    seeds: Annotated[str, typer.Option(help="Whole numbers with commas: splits, first batches, trainings.")] = "0,1,2",
    labels: Annotated[str, typer.Option(help="How many labels there are after each round.")] = "2,4,8,12,20",
    pool: Annotated[int, typer.Option(help="Cases that may be annotated.")] = 60,
    held_out: Annotated[int, typer.Option(help="Other cases, to measure on.")] = 20,
    iterations: Annotated[int, typer.Option(help="Training steps per round.")] = 100,
    new_weight: Annotated[float, typer.Option(help="How often a new case is drawn for each time of an old one.")] = 3.0,
    preset: Annotated[str, typer.Option(help="Network: tiny or base.")] = "tiny",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the best at hand if not given.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time, each with its share of the cores.")] = 1,
) -> None:
    """Replay annotation with several strategies: Dice against labels, and how many labels give 95 % of full data.

    Given again, the command goes on where it was.
    """
    from rep3d.active.simulate.schedule import SimulationPlan
    from rep3d.active.simulate.schedule import simulate as run
    from rep3d.active.strategies import STRATEGIES
    from rep3d.cli.tables import show_strategies, show_summary

    if strategies == "help":
        show_strategies(console, STRATEGIES)
        return
    _stop_on_terminate()
    plan = SimulationPlan(
        labels=_whole_numbers(labels, "--labels"),
        pool=pool,
        held_out=held_out,
        iterations=iterations,
        preset=preset,
        new_weight=new_weight,
        device=device,
    )
    names = [name.strip() for name in strategies.split(",")]
    results = run(
        data, out, names, _whole_numbers(seeds, "--seeds"), plan, jobs, lambda line: console.print(escape(line))
    )
    show_summary(console, results)
    console.print(f"Wrote {escape(str(out / 'results.json'))} and curves.png", soft_wrap=True)


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise Rep3DError(f"{option}: expected whole numbers with commas between them, got {text!r}") from error


app.command()(versions)


def main() -> None:
    """Entry point: our own errors are shown as one clear message, not as a traceback."""
    from rep3d.demo.checkout import client_errors

    expected: tuple[type[Exception], ...] = (Rep3DError, *client_errors())
    try:
        app()
    except expected as error:
        Console(stderr=True).print(f"[bold red]rep3d:[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("[yellow]rep3d: stopped[/]")
        sys.exit(130)


if __name__ == "__main__":
    main()
