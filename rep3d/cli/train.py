"""``rep3d train``: a model from annotated cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import DECATHLON, Device, console, show_left_out
from rep3d.cli.folds import check_folds, split
from rep3d.cli.resuming import resume_refused
from rep3d.errors import ConfigError, Rep3DError, ResumeError
from rep3d.nn.zoo import preset_words

__all__ = ["train"]

_BY_RECIPE = "by --recipe"


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
    recipe: Annotated[
        str,
        typer.Option(
            help="ours: as much as can be learned within an hour; paper: 60,000 steps of 2 crops, with the paper's "
            "sampling, augmentation, loss and learning rate, and no limit of time. Each other option overrides it."
        ),
    ] = "ours",
    iterations: Annotated[
        int | None, typer.Option(help="Training steps at most.", show_default="100000; paper: 60000")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Time for it all, such as 90m, 12h or 2d (a number alone: minutes), or none: the clock starts when "
            "the cases are prepared; saving is inside.",
            show_default="60m; paper: none",
        ),
    ] = None,
    max_minutes: Annotated[
        str | None, typer.Option(hidden=True, help="The same, as releases before called it.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Learning rate at the start.", show_default="0.002; paper: 0.0001")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay of AdamW.", show_default="0.08")] = None,
    crops: Annotated[
        int | None, typer.Option(help="Patches that are drawn together.", show_default="1; paper: 2")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="So many draws of --crops patches make a step.", show_default="1")
    ] = None,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            help="Patches at a time, whose gradients are added up; halved where memory does not suffice.",
            show_default="all of a step",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Average the weights: what stays at each step, such as 0.999; 0 for not.", show_default="0"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (bfloat16 where the device is fast at it), float32 or bfloat16.", show_default="auto"),
    ] = None,
    deep_supervision: Annotated[
        bool, typer.Option("--deep-supervision", help="Train coarser levels of the decoder on the labels, too.")
    ] = False,
    cases: Annotated[int | None, typer.Option(help="Use only so many cases, the first by name.", min=1)] = None,
    validation: Annotated[
        int, typer.Option(help="Hold out so many cases; the weights that do best on them are kept.")
    ] = 0,
    folds: Annotated[int | None, typer.Option(help="Folds to make, where there is no file --splits yet.")] = None,
    fold: Annotated[int | None, typer.Option(help="Train this fold, from 0, and hold its cases out.")] = None,
    splits: Annotated[
        Path | None, typer.Option(help="File of the folds, as nnU-Net's splits_final.json; made where it is missing.")
    ] = None,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="Which case is of which patient, whose cases stay in one fold: JSON {case: patient}, or CSV with the "
            "columns case and patient."
        ),
    ] = None,
    val_interval: Annotated[
        int | None,
        typer.Option(
            help="Steps from one validation to the next; 0 for as often as costs a tenth of the time.",
            show_default="0; paper: 500",
        ),
    ] = None,
    val_cases: Annotated[
        int | None,
        typer.Option(
            help="Measure so many of the held-out cases, always the same; 0 for all.", show_default="8; paper: 0"
        ),
    ] = None,
    patience: Annotated[int, typer.Option(help="Stop after so many validations without a gain; 0 for never.")] = 0,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder for this run alone. If the run is killed, the same command goes on from there."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Write over a model, its table and a --best that are there.")
    ] = False,
    best: Annotated[
        Path | None,
        typer.Option(help="Model file of the weights that validated best so far, to look at while the run goes on."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard's events, where tensorboard is installed.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of first weights, sampling and augmentation.")] = 0,
    sampling: Annotated[
        str | None,
        typer.Option(
            help="Patch centres: balanced over the labels, or as in the paper 1:1 on labels and background.",
            show_default=_BY_RECIPE,
        ),
    ] = None,
    background_share: Annotated[
        float | None,
        typer.Option(help="Share of the patches that balanced sampling centres on background.", show_default="0.2"),
    ] = None,
    augmentation: Annotated[
        str | None,
        typer.Option(help="How patches are varied: wide, or as in the paper.", show_default=_BY_RECIPE),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(help="Learning rate: annealed to zero, or constant.", show_default=_BY_RECIPE),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="balanced: Dice of the labels in the patch, and cross-entropy in which rare labels weigh more; "
            "present: with equal weights; dice_ce: MONAI's, of all labels.",
            show_default=_BY_RECIPE,
        ),
    ] = None,
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
    prepared_gb: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="GB of --prepared that stay for the next training; what does not fit is prepared again then.",
            show_default="20, or a tenth of the free disk",
        ),
    ] = None,
    cache_gb: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="GB of memory in which MONAI's CacheDataset holds prepared cases, in each process; patches of the "
            "others are cut from their files. It pays where these are on a slow or a network drive.",
        ),
    ] = 0.0,
    device: Device = None,
    gpus: Annotated[str | None, typer.Option(help="Train on several GPUs: all, or numbers such as 0,1.")] = None,
    spacing: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Voxel size in mm along R, A, S.", show_default="by images, structures, machine and minutes"),
    ] = None,
) -> None:
    """Train a model on a data set.

    A table of its steps is written beside it (model.csv).

    To know how good it is, run `rep3d evaluate` on other cases.
    """
    from rep3d.checkpoint import load_checkpoint
    from rep3d.data.cases import LeftOut, check_apart, listed, read_data_set
    from rep3d.data.copies import without_copies
    from rep3d.demo.screen import train_progress
    from rep3d.evaluation.seen import Seen
    from rep3d.files import file_state
    from rep3d.inference.predictor import choose_device
    from rep3d.output import check_output, check_output_folder, refuse_replacing, remove_unused_folders
    from rep3d.tasks.config import check_spacing
    from rep3d.tasks.dataset_json import (
        channels_from_dataset_json,
        ignore_from_dataset_json,
        labels_from_dataset_json,
    )
    from rep3d.tasks.file import TrainingHints
    from rep3d.training.distributed import launched, parse_gpus
    from rep3d.training.minutes.budget import parse_minutes
    from rep3d.training.minutes.speed import default_preset
    from rep3d.training.preparing import can_be_used
    from rep3d.training.recipes import recipe_settings
    from rep3d.training.snapshots import can_go_on
    from rep3d.training.start import check_channels
    from rep3d.training.task_file import task_to_go_on_with, task_to_train
    from rep3d.training.train import task_for_cases
    from rep3d.training.train import train as run
    from rep3d.training.validation import measured_cases, require_one_to_measure
    from rep3d.training.volumes.store import check_store_folder
    from rep3d.training.worker import leave_group

    if spacing is not None:
        check_spacing(spacing)
    launch = launched()
    console.quiet = launch is not None and launch.rank > 0  # one of several processes speaks for all
    description = data / "dataset.json"
    check_output(output, (".pt",), (start, start_from, description, task), option="--output", make_folder=True)
    table = check_output(output.with_suffix(".csv"), (".csv",), (splits, patients), option="--output")
    if best is not None:
        check_output(best, (".pt",), (start, start_from, output), option="--best", make_folder=True)
    check_apart(output.parent, data, option="--output")
    if resume is None and not replace:
        refuse_replacing((output, table, best))
    if resume is not None:
        check_output_folder(resume, option="--resume")
        check_apart(resume, data, option="--resume")
    if prepared is not None:
        check_output_folder(prepared, option="--prepared")
        check_apart(prepared, data, option="--prepared")
        check_store_folder(prepared)
    elif prepared_gb is not None:
        raise ConfigError("--prepared-gb bounds what is kept in a folder. Give it with --prepared.")
    labels, ignore = labels_from_dataset_json(description), ignore_from_dataset_json(description)
    channels = channels_from_dataset_json(description)
    known = task_to_train(task, labels, channels, ignore, description) if task else None
    hints = known.training if known else TrainingHints()
    check_folds(validation, fold, folds, splits, patients)
    checkpoint = load_checkpoint(start) if start else None
    encoder = load_checkpoint(start_from) if start_from else None
    if checkpoint:
        check_channels(checkpoint.task, channels)
    settings = recipe_settings(
        recipe,
        {
            "iterations": iterations,
            "max_minutes": parse_minutes(given) if (given := max_time or max_minutes) else None,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "crops": crops,
            "batch": batch,
            "micro_batch": micro_batch,
            "ema": ema,
            "precision": precision,
            "deep_supervision": deep_supervision,
            "seed": seed,
            "preset": preset
            or (checkpoint.info.get("preset") if checkpoint else None)
            or hints.preset
            or default_preset(choose_device(device)),
            "device": device,
            "val_interval": val_interval,
            "val_cases": val_cases,
            "patience": patience,
            "variant": variant,
            "resolution": "task" if spacing else hints.resolution if recipe == "ours" else None,
            "empty_labels": hints.empty_labels or "skip",
            "gpus": parse_gpus(gpus) if gpus else None,
            "sampling": sampling,
            "background_share": background_share,
            "augmentation": augmentation,
            "schedule": schedule,
            "loss": loss,
            "stages": stages,
        },
    )
    there = without_copies(read_data_set(data), lambda case: can_be_used(case, labels, max(1, len(channels)), ignore))
    found = list(there.cases[:cases])
    seen = Seen(model.info for model in (checkpoint, encoder) if model)
    if not found:
        show_left_out(there.left_out)
        raise Rep3DError(f"--data: {data} has no case to train on. {listed(there.left_out)}")
    training, held_out, left_out = split(found, validation, fold, folds, splits, patients, seen)
    held = f", {len(held_out)} held out to validate" if held_out else ""
    counts = f"{there.found} cases found, {len(training)} to train with{held}"
    console.print(f"{escape(str(data))}: {counts}", soft_wrap=True)
    left_out = [*there.left_out, *left_out]
    show_left_out(left_out)
    for words in seen.notes if held_out else ():
        console.print(escape(words), soft_wrap=True, highlight=False)
    require_one_to_measure(measured_cases(held_out, settings.val_cases), labels, max(1, len(channels)), ignore)
    if checkpoint:
        config = task_to_go_on_with(str(task), known.task, checkpoint.task) if known else checkpoint.task
        config = dataclasses.replace(config, ignore=ignore)
    elif known:
        config = known.task
    else:
        images = [case.channels for case in found]
        config = task_for_cases(data.name, labels, images, spacing=spacing, channels=channels, ignore=ignore)
    if spacing is not None:
        config = dataclasses.replace(config, spacing=spacing)
    if checkpoint is not None:  # the values in the files mean what the data set says
        config = config.with_labels(labels)
    there_before = file_state(output)
    with train_progress(console, settings.max_minutes) as progress:
        try:
            trained = run(
                *(training, config, settings, output, checkpoint, progress),
                encoder=encoder,
                validation=held_out,
                state=resume,
                must_resume=resume is not None and can_go_on(resume),  # days of work are not begun anew unsaid
                replace=replace,
                left_out=left_out,
                prepared=prepared,
                prepared_most=None if prepared_gb is None else _bytes(prepared_gb),
                held_most=_bytes(cache_gb),
                best=best,
                table=table,
                tensorboard=tensorboard,
            )
        except ResumeError as error:
            assert resume is not None
            raise resume_refused(resume, error) from None
    info = trained.info
    if there_before is not None and file_state(output) == there_before:
        words = f"{info['iterations']} steps, ended by {info['stopped']}. Nothing was done; --resume needs no more"
        console.print(f"{escape(str(output))} is finished: {trained.version}, {words}.", soft_wrap=True)
        leave_group()
        remove_unused_folders()
        return
    show_left_out(LeftOut(**entry) for entry in info["left_out"][len(left_out) :])
    facts = (
        f"{trained.version}, {len(info['cases'])} cases, training loss {info['loss']:.3f}, ended by {info['stopped']}"
    )
    console.print(f"Wrote {escape(str(output))}: {facts}", soft_wrap=True)
    if info["resolution"] is not None:
        console.print(info["resolution"]["words"], soft_wrap=True)
    for words in (info["memory"], info["shortfall"]):
        if words is not None:
            console.print(escape(words), soft_wrap=True)
    if info["resumed_from"] is not None:
        console.print(f"It went on from step {info['resumed_from']} of a run that had not ended.")
    if info["validation"] is not None:
        dice = ", ".join(f"{escape(name)} {value:.3f}" for name, value in info["validation"].items())
        count = len(info["validation_measured"])
        words = f"on {count} cases that it was not trained on; they chose the weights (step {info['kept_iteration']})"
        console.print(f"Validation Dice {words}: {dice or 'no label in these cases'}", soft_wrap=True)
    leave_group()


def _bytes(gigabytes: float) -> int:
    """Return so many GB in bytes; infinity is more than any machine has."""
    return round(1e9 * min(gigabytes, 1e9))
