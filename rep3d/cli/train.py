"""``rep3d train``: a model from annotated cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import DECATHLON, Device, console, show_left_out
from rep3d.errors import Rep3DError
from rep3d.nn.zoo import preset_words

__all__ = ["train"]


def train(
    data: Annotated[Path, typer.Option(help=DECATHLON)],
    output: Annotated[Path, typer.Option(help="Model file to write, such as model.pt.")],
    task: Annotated[
        str | None, typer.Option("--task", help="Task file (.yaml), as rep3d plan writes it, or a registered task.")
    ] = None,
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
    from rep3d.data.copies import without_copies
    from rep3d.demo.screen import train_progress
    from rep3d.inference.predictor import choose_device
    from rep3d.output import check_output, check_output_folder
    from rep3d.tasks.dataset_json import (
        channels_from_dataset_json,
        ignore_from_dataset_json,
        labels_from_dataset_json,
    )
    from rep3d.tasks.file import TrainingHints
    from rep3d.training.distributed import parse_gpus
    from rep3d.training.minutes.speed import default_preset
    from rep3d.training.start import check_channels
    from rep3d.training.task_file import task_to_go_on_with, task_to_train
    from rep3d.training.train import TrainSettings, task_for_cases
    from rep3d.training.train import train as run
    from rep3d.training.validation import choose_validation

    description = data / "dataset.json"
    check_output(output, (".pt",), (start, start_from, description, task), option="--output", make_folder=True)
    if resume is not None:
        check_output_folder(resume, option="--resume")
    if prepared is not None:
        check_output_folder(prepared, option="--prepared")
    labels, ignore = labels_from_dataset_json(description), ignore_from_dataset_json(description)
    channels = channels_from_dataset_json(description)
    known = task_to_train(task, labels, channels, ignore, description) if task else None
    hints = known.training if known else TrainingHints()
    there = without_copies(read_data_set(data))
    found = list(there.cases[:cases])
    console.print(f"{escape(str(data))}: {there.found} cases found, {len(found)} to train with", soft_wrap=True)
    show_left_out(there.left_out)
    if not found:
        raise Rep3DError(f"--data: {data} has no case to train on. {listed(there.left_out)}")
    checkpoint = load_checkpoint(start) if start else None
    encoder = load_checkpoint(start_from) if start_from else None
    if checkpoint:
        check_channels(checkpoint.task, channels)
        config = task_to_go_on_with(str(task), known.task, checkpoint.task) if known else checkpoint.task
        config = dataclasses.replace(config, ignore=ignore)
    elif known:
        config = known.task
    else:
        images = [case.channels for case in found]
        config = task_for_cases(data.name, labels, images, spacing=spacing, channels=channels, ignore=ignore)
    if spacing is not None:
        config = dataclasses.replace(config, spacing=spacing)
    settings = TrainSettings(
        iterations,
        max_minutes,
        learning_rate,
        seed=seed,
        preset=preset
        or (checkpoint.info.get("preset") if checkpoint else None)
        or hints.preset
        or default_preset(choose_device(device)),
        device=device,
        patience=patience,
        variant=variant,
        resolution="task" if spacing else hints.resolution or "auto",
        empty_labels=hints.empty_labels or "skip",
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
            *(training, config, settings, output, checkpoint, progress),
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
