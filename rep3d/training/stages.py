"""A coarse and a fine stage trained in one request within one budget.

The coarse stage comes first, with its share of the minutes, as a training of its own. The fine one works at the task's
own voxel size and learns from patches around what the coarse one finds, or the labels hold, with the coarse
probabilities as further channels. It is kept only if both stages together have a better mean Dice than the coarse one
alone, on the cases that neither was trained on, on the images' own grids, by `LEAST_GAIN`; else the version is the
coarse one, and its record says why.

Where a fine stage cannot pay, the whole budget is the coarse one's: no case to tell by, voxels that are about the
task's own already, or too few minutes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.data.cases import Case
from rep3d.errors import CheckpointError, ResumeError
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.inference.predictor import Predictor
from rep3d.inference.sliding import fit_window
from rep3d.nn.zoo import preset_stride
from rep3d.tasks.config import TaskConfig
from rep3d.training.distributed import training_devices
from rep3d.training.minutes.budget import Tail, in_minutes
from rep3d.training.one import at_its_resolution, train_one
from rep3d.training.plan import TrainPlan
from rep3d.training.preparing import left_out_for
from rep3d.training.settings import AUTO, TrainProgress, TrainSettings
from rep3d.training.snapshots import COARSE_CHECKPOINT, COARSE_STATE, FINE_STATE, RunState, has_snapshot
from rep3d.training.validation import measured_cases, shuffled

__all__ = ["COARSE_SHARE", "LEAST_GAIN", "refuse_other_stages", "train_stages"]

COARSE_SHARE = 0.5
"""Of the minutes, for the coarse stage."""
LEAST_GAIN = 0.01
"""Mean Dice by which both stages must be better than the coarse one alone."""

_MEASURING = 0.15  # of the minutes, kept for comparing the stages
_FINER = 1.3  # times, along an axis: less is no other view of the image
_FEWEST_STEPS = 100  # of the fine stage
_PATCH = 64  # voxels of a fine patch's side at most on a CPU: it need not hold more than what was found and its rim
_FINE = "fine.pt"

logger = logging.getLogger(__name__)


def train_stages(plan: TrainPlan, report: Callable[[TrainProgress], None]) -> Checkpoint:
    """Train two stages, where a second one may pay, and write what is to be kept as one checkpoint.

    The checkpoint's ``info`` is that of the coarse stage's training, see :func:`~rep3d.training.train.train`, with
    ``stages``: ``kept`` (1 or 2), ``reason`` in words, and where they were compared ``coarse`` and ``both``, the mean
    Dice on the images' own grids, and ``scores``, case id to label name to Dice of what is kept (of labels that are
    in the case or drawn). ``minutes`` is that of all.

    Args:
        plan: what to train; the iterations are for each stage, and the fine one is trained on one device.
        report: called after each step of either stage; may raise to stop.

    Returns:
        The trained version, as written.
    """
    with _folder_of(plan) as folder:
        coarse, began = _kept(folder / COARSE_CHECKPOINT, plan.run_mark), plan.began
        if coarse is None:
            first = _first(plan, folder) if plan.validation else None
            reason = _reason_against(first) if first else "there is no case to tell by whether it pays"
            if first is None or reason is not None:
                one = train_one(plan, report)
                said = {"reason": f"No fine stage was trained: {reason}."}
                return _written(plan, one, None, said, one.info["minutes"])
            coarse = _coarse(first, plan.settings.max_minutes, report)
            began = None  # the minutes before now are in the coarse stage's facts
        second = train_one(
            _second(plan, coarse, folder, began), lambda progress: report(_of_stage(progress, "fine", 0.0))
        )
        return _better(plan, coarse, second)


def refuse_other_stages(plan: TrainPlan) -> None:
    """Refuse to go on from the snapshots of another run, before anything is prepared or measured.

    Raises:
        ResumeError: saying what differs, in the minutes of the whole.
    """
    assert plan.state is not None, "the caller looked"
    file, unknown = plan.state / COARSE_CHECKPOINT, ("task",) if plan.settings.resolution == AUTO else ()
    if file.exists():
        if _kept(file, plan.run_mark) is not None:
            return
        try:
            fine = _second(plan, load_checkpoint(file), plan.state, None)
        except CheckpointError as error:
            raise ResumeError(f"The interrupted training cannot go on: {error}") from error
        state = RunState(plan.state / FINE_STATE, fine.identity())
        if state.read() is not None or not state.changed:  # the fine stage does not see all that the coarse one did
            state.problem = "its first stage is of a training with other cases, options or release"
        raise _in_all_minutes(state, 1.0 - _MEASURING).refused()
    place, share = (COARSE_STATE, COARSE_SHARE) if has_snapshot(plan.state / COARSE_STATE) else (".", 1.0)
    settings = dataclasses.replace(plan.settings, max_minutes=share * plan.settings.max_minutes)
    state = RunState(plan.state / place, dataclasses.replace(plan, settings=settings).identity())
    if state.read(but=unknown) is None:
        raise _in_all_minutes(state, share).refused()


def _in_all_minutes(state: RunState, share: float) -> RunState:
    """Let a stage's snapshot tell the minutes of both."""
    for key in state.changed.keys() & {"settings.max_minutes"}:
        then, now = state.changed[key]
        state.changed[key] = (then / share, now / share)
    return state


def _coarse(first: TrainPlan, minutes: float, report: Callable[[TrainProgress], None]) -> Checkpoint:
    """Train the coarse stage; its file is there for the case that the fine one is interrupted."""
    rest = 60.0 * (minutes - first.settings.max_minutes)
    return train_one(first, lambda progress: report(_of_stage(progress, "coarse", rest)))


def _better(plan: TrainPlan, coarse: Checkpoint, second: Checkpoint) -> Checkpoint:
    """Measure the coarse stage alone and both in what is left of the minutes, and write what is better."""
    ended, tail = time.monotonic(), _tail_after(plan)
    left = 60.0 * (plan.settings.max_minutes - second.info["minutes"])
    left -= tail.other_seconds + tail.cases * (tail.case_seconds or 0.0)
    found = _compared(dataclasses.replace(coarse, fine=second), plan.validation, plan.settings.device, ended + left)
    total = second.info["minutes"] + (time.monotonic() - ended) / 60.0
    if found is None:
        said = {"reason": "No fine stage is kept: there was no time, or no case, to measure it on."}
        return _written(plan, coarse, None, said, total)
    scores, means = found
    gain = means["both"] - means["coarse"]
    keeps = gain >= LEAST_GAIN
    words = f"With a fine stage the mean Dice changes by {gain:+.3f}; {LEAST_GAIN:+} is needed to keep it."
    of_kept = scores["both" if keeps else "coarse"]
    there = {id_: {name: v for name, v in dice.items() if not math.isnan(v)} for id_, dice in of_kept.items()}
    return _written(plan, coarse, second if keeps else None, {"reason": words, **means, "scores": there}, total)


@contextmanager
def _folder_of(plan: TrainPlan) -> Iterator[Path]:
    """Where the stages are kept while they are trained; after a stop what can be resumed stays."""
    if plan.state is None:
        with tempfile.TemporaryDirectory(dir=plan.output.parent, prefix=".stages-") as folder:
            yield Path(folder)
        return
    plan.state.mkdir(parents=True, exist_ok=True)
    yield plan.state
    for file in (COARSE_CHECKPOINT, _FINE):
        (plan.state / file).unlink(missing_ok=True)
    for folder_ in (COARSE_STATE, FINE_STATE):
        shutil.rmtree(plan.state / folder_, ignore_errors=True)
    with suppress(OSError):  # what is not ours stays, and the folder with it
        plan.state.rmdir()


def _kept(file: Path, mark: str | None) -> Checkpoint | None:
    """Return the coarse stage that an interrupted training of the same kind had trained already."""
    try:
        coarse = load_checkpoint(file) if file.exists() else None
    except CheckpointError as error:
        logger.warning("training: the coarse stage is trained again: %s", error)
        return None
    return coarse if coarse is not None and coarse.info.get("run_mark") == mark else None


def _first(plan: TrainPlan, folder: Path) -> TrainPlan:
    """Return the coarse stage's training, at its voxel size."""
    share = dataclasses.replace(plan.settings, max_minutes=COARSE_SHARE * plan.settings.max_minutes)
    state = folder / COARSE_STATE if plan.state else None
    return at_its_resolution(
        dataclasses.replace(plan, settings=share, output=folder / COARSE_CHECKPOINT, state=state, tail=Tail())
    )


def _fine_task(coarse: TaskConfig, resolution: Mapping[str, Any] | None, settings: TrainSettings) -> TaskConfig:
    """Return the task of the fine stage: at the voxel size that the task had before one was chosen."""
    task, own = coarse, (resolution or {}).get("own")
    if own:
        task = dataclasses.replace(task, spacing=tuple(own["spacing"]), roi_size=tuple(own["roi_size"]))
    if training_devices(settings)[0].startswith("cuda"):
        return task
    x, y, z = fit_window(task.roi_size, (_PATCH,) * 3, preset_stride(settings.preset))
    return dataclasses.replace(task, roi_size=(x, y, z))


def _reason_against(first: TrainPlan) -> str | None:
    """Return why a fine stage cannot pay; None where it may."""
    fine, resolution = _fine_task(first.task, first.resolution, first.settings), first.resolution or {}
    if all(side <= _FINER * own for side, own in zip(first.task.spacing, fine.spacing, strict=True)):
        return "the voxels are about as fine as the task's own already"
    minutes = (1.0 - COARSE_SHARE - _MEASURING) / COARSE_SHARE * first.settings.max_minutes
    patches = first.settings.batch * first.settings.crops
    step = (resolution.get("seconds_per_voxel") or 0.0) * patches * math.prod(fine.roi_size)
    if step * _FEWEST_STEPS > 60.0 * minutes:
        return f"{in_minutes(minutes)} do not suffice for {_FEWEST_STEPS} steps of one"
    return None


def _second(plan: TrainPlan, coarse: Checkpoint, folder: Path, began: float | None) -> TrainPlan:
    """Return the fine stage's training, which goes on from the fine stage of the model that all began with."""
    settings = plan.settings
    task = _fine_task(coarse.task, coarse.info["resolution"], settings)
    start = plan.start.fine if plan.start else None
    return dataclasses.replace(
        plan,
        task=task,
        settings=dataclasses.replace(
            settings,
            max_minutes=(1.0 - _MEASURING) * settings.max_minutes,
            resolution="task",
            gpus=None,
            device=training_devices(settings)[0],
        ),
        output=folder / _FINE,
        start=start if start is not None and start.task.spacing == task.spacing else None,
        encoder=None,
        coarse=coarse,
        validation=(),
        state=folder / FINE_STATE if plan.state else None,
        must_resume=False,
        resolution=None,
        began=began,
        table=None,
        tensorboard=None,
        spent=60.0 * coarse.info["minutes"],
        tail=_tail_after(plan),
    )


def _tail_after(plan: TrainPlan) -> Tail:
    """Return what the caller does after both stages were measured on the held-out cases."""
    return dataclasses.replace(plan.tail, cases=max(0, plan.tail.cases - len(plan.validation)))


def _of_stage(progress: TrainProgress, stage: str, more_seconds: float) -> TrainProgress:
    left = None if progress.eta_seconds is None else progress.eta_seconds + more_seconds
    number, of = ("First", "whole images") if stage == "coarse" else ("Second", "what the first one finds")
    words = f"{number} of two stages, for {of}."
    return dataclasses.replace(
        progress, stage=stage, eta_seconds=left, note=f"{words} {progress.note}" if progress.note else words
    )


def _compared(
    both: Checkpoint, validation: Sequence[Case], device: str | None, ends: float
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, float]] | None:
    """Measure the coarse stage alone and both, on the images' own grids, on as many cases as there is time for.

    Args:
        both: the two stages.
        validation: cases that neither was trained on.
        device: where to compute.
        ends: when it must be over, in ``time.monotonic()``'s seconds.

    Returns:
        Under ``"coarse"`` and ``"both"``: case id to label name to Dice, and the mean Dice; None where no case could be
        measured.
    """
    predictor = Predictor(both, device)
    scores: dict[str, dict[str, dict[str, float]]] = {"coarse": {}, "both": {}}
    longest = 0.0
    with tempfile.TemporaryDirectory(prefix="rep3d-stages-") as folder:
        file = Path(folder) / "found.nii.gz"
        for case in shuffled(measured_cases(validation)):
            begun = time.monotonic()
            if begun + longest > ends:
                logger.info("training: no time to compare the stages on %s", case.id)
                continue
            try:
                for name in scores:
                    predictor.segment(case.channels, file, coarse=name == "coarse")
                    scores[name][case.id] = dice_of_files(
                        *(file, case.label, case.known(both.task.labels), both.task.ignore)
                    )
            except Exception as error:  # whatever it is, it costs this case only
                logger.warning("training: %s", left_out_for(case, error))
                scores["coarse"].pop(case.id, None)
            longest = max(longest, time.monotonic() - begun)
    means = {name: mean_dice(of_cases) for name, of_cases in scores.items()}
    return None if any(math.isnan(mean) for mean in means.values()) else (scores, means)


def _written(
    plan: TrainPlan, coarse: Checkpoint, second: Checkpoint | None, said: Mapping[str, Any], minutes: float
) -> Checkpoint:
    stages = {"kept": 1 if second is None else 2, **said}
    info = {**coarse.info, "stages": stages, "minutes": minutes}
    if info["resolution"] is not None:
        info["resolution"] = {**info["resolution"], "words": f"{info['resolution']['words']} {stages['reason']}"}
    save_checkpoint(plan.output, coarse.model, coarse.task, info, second)
    logger.info("training: %s", stages["reason"])
    return Checkpoint(coarse.model, coarse.task, info, second)
