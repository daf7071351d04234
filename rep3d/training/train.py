"""Training, from scratch or on from a published model, on a handful of cases or many.

The recipe is the paper's (AdamW, weight decay 0.08, Dice and cross-entropy) with a higher, annealed learning rate: a
clinician waits for minutes, not for 60,000 iterations. Where patches are cut, and which labels' Dice counts, is
balanced unless the paper's way is asked for (:mod:`rep3d.training.sampling`, :mod:`rep3d.training.loss`). The learning
rate falls to zero over the iterations or over the time budget, whichever ends first, so that a run cut by its budget
still ends annealed.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from rep3d.checkpoint import Checkpoint, load_checkpoint, read_checkpoint_task
from rep3d.data.cases import Case, LeftOut
from rep3d.errors import CheckpointError, ConfigError, NoCasesError, ResumeError, TaskError, machine_error
from rep3d.imaging.channels import Files
from rep3d.inference.predictor import fit_window
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.nn.zoo import preset_stride
from rep3d.output import check_output, check_output_folder, refuse_replacing
from rep3d.tasks.config import Channel, Intensity, TaskConfig
from rep3d.training.distributed import training_devices
from rep3d.training.minutes.budget import Tail
from rep3d.training.minutes.resolution import lengths_along
from rep3d.training.one import give_back_memory, train_one
from rep3d.training.plan import TrainPlan, first_config
from rep3d.training.preparing import warn_of_outliers
from rep3d.training.sampling import case_weights
from rep3d.training.settings import AUTO, TrainProgress, TrainSettings
from rep3d.training.snapshots import RunState
from rep3d.training.stages import refuse_other_stages, train_stages
from rep3d.training.start import check_encoder, check_start
from rep3d.training.steps.records import check_csv, check_tensorboard
from rep3d.training.validation import refuse_overlap

__all__ = ["TrainProgress", "TrainSettings", "task_for_cases", "train"]

# The abdominal CT window of the paper (HU), used for CT tasks without a definition of their own.
_CT_WINDOW = Intensity("window", -125.0, 275.0)


def task_for_cases(
    name: str,
    labels: dict[str, int],
    images: Sequence[Files],
    modality: str | None = None,
    max_side: int = 96,
    spacing: tuple[float, float, float] | None = None,
    roi_size: tuple[int, int, int] | None = None,
    channels: Sequence[str] = (),
    ignore: int | None = None,
) -> TaskConfig:
    """Return a task definition for data that come without one.

    Unless given, spacing is the median over the images along R, A and S, and the patch holds the median image where
    ``max_side`` allows; intensity is the paper's CT window for CT and z-scores for all else.

    Args:
        name: name of the task.
        labels: label name to voxel value.
        images: image files; only their headers matter here, and one that cannot be read does not count.
        modality: ``"CT"``, ``"MRI"``, ..., if known.
        channels: names of the images' channels, such as ``"CT"`` or ``"T1"``; of a single one it is the modality.
        ignore: voxel value in label maps of which nothing is known.
        max_side: largest side of the patch in voxels.
        spacing: voxel size in mm to work at.
        roi_size: patch (D, H, W) in voxels.

    Raises:
        TaskError: if none of the images can be read.
    """
    problems: list[str] = []
    names = list(channels) or [modality or ""]
    modality = modality or (names[0] if len(names) == 1 else None)
    spacings, sizes = lengths_along(images, "RAS", problems, len(names))
    if not len(sizes):
        words = f" None of {len(problems)} can be read: {'; '.join(problems[:5])}" if problems else ""
        raise TaskError(f"There is no image to read the voxel size from. Add an image first.{words}")
    if spacing is None:
        median = np.median(spacings, axis=0).round(3)
        spacing = (float(median[0]), float(median[1]), float(median[2]))
    voxels = np.median(sizes, axis=0) / spacing
    roi = roi_size or fit_window((max_side,) * 3, tuple(max(1, round(n)) for n in voxels), UnetrSegmenter.stride)
    scales = [_CT_WINDOW if each.upper().startswith("CT") else Intensity("zscore", 0.5, 99.5) for each in names]
    return TaskConfig(
        name=name,
        labels=labels,
        spacing=spacing,
        intensity=scales[0],
        roi_size=(roi[0], roi[1], roi[2]),
        description=f"{', '.join(labels)} ({modality or ', '.join(channels) or 'unknown modality'})",
        modality=modality or "",
        channels=tuple(map(Channel, names, scales)) if len(names) > 1 else (),
        ignore=ignore,
    )


def train(
    cases: Sequence[Case],
    task: TaskConfig,
    settings: TrainSettings,
    output: Path | str,
    start: Checkpoint | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
    *,
    encoder: Checkpoint | None = None,
    validation: Sequence[Case] = (),
    weights: Mapping[str, float] | None = None,
    state: Path | str | None = None,
    must_resume: bool = False,
    replace: bool | None = None,
    other_values: Collection[int] = (),
    left_out: Sequence[LeftOut] = (),
    prepared: Path | str | None = None,
    prepared_most: int | None = None,
    held_most: int = 0,
    best: Path | str | None = None,
    table: Path | str | None = None,
    tensorboard: Path | str | None = None,
    began: float | None = None,
    tail: Tail | None = None,
) -> Checkpoint:
    """Trains on labelled cases and writes a checkpoint.

    With validation cases, the weights that are written are those with the best mean Dice on up to 8 of them (always
    the same ones); the last weights are among those compared, unless the time is too short to measure them. As they
    chose the weights, their Dice is a little kind to the model. Without validation cases, or time for them, the last
    weights are written, and no accuracy is claimed.

    A case that cannot be used, for whatever reason, is left out, named, and costs no other one.

    The checkpoint's ``info`` gains ``cases`` and ``validation_cases`` (ids), ``left_out`` (see
    :class:`~rep3d.data.cases.LeftOut`), ``trained_on`` (ids of the cases of all runs that led to this model),
    ``validation_measured`` (ids of those that were measured during the run), ``validation`` (label name to Dice of the
    written weights, None without validation), ``validation_history``, ``iterations``, ``kept_iteration`` (of the
    written weights), ``stopped`` (``"iterations"``, ``"max_minutes"`` or ``"early stopping"``), ``minutes``,
    ``step_seconds`` (validations included), ``shortfall`` (what the minutes were too short for, in words, or None),
    ``memory`` (what did not fit into memory, in words, or None), ``loss``, ``settings`` (all of them), ``sampling``,
    ``background_share`` and ``loss_function`` (of the settings), ``resolution`` (what the voxel size rests on, where it
    was chosen), ``resumed_from`` (a step, or None) and ``trained_in`` (``"float32"`` or ``"bfloat16"``).

    Args:
        cases: labelled cases, of which one can be used; labels are checked against their images first.
        task: the task; with ``start``, its labels must be the same. Where its patch is no multiple of a new network's
            stride, the next larger one that is takes its place, in the task of the trained model too.
        settings: how to train; with ``start``, its preset must be the same.
        output: checkpoint to write, atomically, after the run ended with a finite loss.
        start: continue from this model instead of from random weights.
        encoder: begin a new network with this one's encoder, see :mod:`rep3d.training.start`.
        on_progress: called after each step, from this thread; may raise to stop the run.
        validation: labelled cases that are not trained on.
        weights: case id to how often the case is drawn, relative to others; 1 where nothing is said.
        state: folder, of this run alone, for what is needed to resume it. If it holds an interrupted run with the same
            cases, settings and start, that one is continued and its time counts; else the run starts anew. It is
            removed when the run ended well or its loss was not finite; it stays after a stop.
        must_resume: refuse to start anew where the interrupted run in ``state`` cannot be continued.
        replace: what is done where ``output`` is there. None: it is replaced. Else the model of this very run, of one
            with ``state``, is returned as it is, since the run is finished; another model is replaced if True, and
            refused if False, as is another run's ``best`` and, without ``state``, a ``table``.
        other_values: voxel values that label files may have beside the task's (labels of another model, or retired
            ones); they count as background.
        left_out: what was left out before, to be recorded with those left out here.
        prepared: folder, for this alone, where the cases are kept as they are prepared, for later trainings; see
            :mod:`rep3d.training.volumes.store`. None for a hidden one beside ``output`` that is removed at the end.
        prepared_most: bytes of them that stay there between trainings, what was used longest ago goes first and is
            prepared again when it is needed; None for 20 GB, or a tenth of the free disk where that is less.
        held_most: bytes of them that each process of the training holds in memory, see
            :mod:`rep3d.training.volumes.held`; fewer where memory is short, which is logged.
        best: checkpoint of the weights that validated best so far, written at each gain while the run goes on; None for
            none.
        table: CSV file for step, minutes, loss, learning rate and Dice (:mod:`rep3d.training.steps.records`); None for
            none. A run that goes on continues it, another one replaces it. Of two stages, it is the coarse one's.
        tensorboard: folder for the same in TensorBoard's form; None for none.
        began: when ``max_minutes`` began to count, in ``time.monotonic()``'s seconds; None for now. Preparing,
            validating and saving are inside.
        tail: what the caller does afterwards within the same minutes.

    Returns:
        The trained model, as written.

    Raises:
        NoCasesError: if no case can be used, with the reasons.
        OutputError: if ``output`` or ``table`` cannot be written, is a file of a case, is there and must not be
            replaced, or ``table`` is another file.
        MissingComponentError: if ``tensorboard`` is given and not installed.
        OutOfMemoryError: if a step on a single patch does not fit into memory.
        DiskFullError: if the disk has no room for it, found out as early as it can be.
        ConfigError: if a case is in ``validation`` too, a weight is impossible, a device is not there, or both
            ``start`` and ``encoder`` are given.
        CheckpointError: if ``start`` belongs to another task, or it or ``encoder`` is another network.
        ResumeError: if there is nothing to resume though it must be; what the interrupted run kept stays.
        TrainingError: if the loss stops being finite, a process on one of several GPUs dies, or the time is used up
            before the first step; ``output`` is not touched.
    """
    began = time.monotonic() if began is None else began
    if not cases:
        raise NoCasesError("There is nothing to train on: no case has a label. Submit a label first.")
    refuse_overlap(cases, validation)
    case_weights(cases, weights)
    read = [file for case in (*cases, *validation) for file in case.files]
    check_output(output, (".pt",), read, make_folder=True)
    if best is not None:
        check_output(best, (".pt",), [*read, output], make_folder=True)
    if table is not None:
        check_csv(check_output(table, (".csv",), read))
    if tensorboard is not None:
        check_tensorboard()
        check_output_folder(tensorboard, option="--tensorboard")
    check_start(task, start, settings.preset)
    if start is not None and encoder is not None:
        raise ConfigError("A training goes on from a whole model or begins with an encoder. Give one of the two.")
    if start is None:
        stride = preset_stride(settings.preset)
        roi = fit_window(task.roi_size, task.roi_size, stride)
        task = dataclasses.replace(task, roi_size=(roi[0], roi[1], roi[2]))
    if encoder is not None:
        check_encoder(first_config(settings, task.out_channels, task.roi_size), encoder)
    training_devices(settings)  # before anything is read
    warn_of_outliers([*cases, *validation])
    beside = Path(output).with_name(f".{Path(output).name}.prepared")
    report = on_progress or (lambda progress: None)
    plan = TrainPlan(
        cases=tuple(cases),
        task=task,
        settings=settings,
        output=Path(output),
        start=start,
        encoder=encoder,
        validation=tuple(validation),
        weights=weights,
        state=Path(state) if state else None,
        other_values=tuple(other_values),
        must_resume=must_resume,
        left_out=tuple(left_out),
        prepared=Path(prepared) if prepared else beside,
        prepared_most=prepared_most,
        held_most=held_most,
        began=began,
        tail=tail or Tail(),
        best=Path(best) if best else None,
        table=Path(table) if table else None,
        tensorboard=Path(tensorboard) if tensorboard else None,
    )
    if plan.state is not None:
        plan = dataclasses.replace(plan, run_mark=plan.mark())
    if replace is not None and plan.run_mark and _mark_of(plan.output) == plan.run_mark:
        return load_checkpoint(plan.output)
    if must_resume:  # first: of an interrupted run it says what differs
        _refuse_other(plan)
    if replace is False:
        _refuse_replacing(plan)
    refused = False
    try:
        if settings.stages == AUTO:
            return train_stages(plan, report)
        return train_one(plan, report)
    except BaseException as error:
        lacking, refused = machine_error(error), isinstance(error, ResumeError)
        # The frames of an error that the caller keeps would keep the network, too.
        traceback.clear_frames(error.__traceback__)
        if lacking not in (None, error) and isinstance(error, Exception):
            raise lacking from error
        raise
    finally:
        give_back_memory()
        if not prepared and not refused:  # what an interrupted run prepared is still its own
            shutil.rmtree(beside, ignore_errors=True)


def _mark_of(model: Path) -> str | None:
    """Return of which run a model says that it is; None where it says nothing, is no model, or is not there."""
    try:
        return read_checkpoint_task(model)[1].get("run_mark") if model.exists() else None
    except CheckpointError:
        return None


def _refuse_replacing(plan: TrainPlan) -> None:
    """Refuse to write over what another training wrote; what this run left when it was killed is its own."""
    if plan.run_mark is None:
        refuse_replacing((plan.output, plan.table, plan.best))
        return
    best = plan.best if plan.best is not None and _mark_of(plan.best) != plan.run_mark else None
    refuse_replacing((plan.output, best), ", and is not of this very run: its cases, options or release are others")


def _refuse_other(plan: TrainPlan) -> None:
    """Refuse to go on from the snapshot of another run, before anything is prepared or measured."""
    if plan.state is None:
        raise ResumeError("The interrupted training cannot go on: no folder of its state was given.")
    if plan.settings.stages == AUTO:
        refuse_other_stages(plan)
        return
    state = RunState(plan.state, plan.identity())
    if state.read(but=("task",) if plan.settings.resolution == AUTO else ()) is None:
        raise state.refused()
