"""``rep3d evaluate``: how well a model's label maps, or given ones, agree with true ones."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import Device, Engine, console, show_left_out, stop_on_terminate
from rep3d.errors import OutputError, Rep3DError, TaskError
from rep3d.evaluation import TOLERANCE_MM

if TYPE_CHECKING:
    from rep3d.data.cases import Case, LeftOut
    from rep3d.evaluation.evaluation import Evaluation
    from rep3d.evaluation.records import Record
    from rep3d.inference.predictor import Predictor

__all__ = ["evaluate", "same_values"]

_PAGE = "evaluation.html"
_SHOWN = ("dice", "hd95", "nsd", "volume-percent")  # of what is measured, what fits a terminal


def evaluate(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Data set to measure on: imagesTr and labelsTr, or images and labels.")],
    checkpoint: Annotated[Path | None, typer.Argument(help="Model file; or give --predictions.")] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps to measure instead of a model's, each named like its case."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write into; if not given, one in evaluation/, named after data and model. The same "
            "command goes on where it was stopped."
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Distance in mm up to which surfaces count as agreeing.", min=0.0)
    ] = TOLERANCE_MM,
    pictures: Annotated[int, typer.Option(help="Show so many of the worst cases on the page.", min=0)] = 4,
    skip: Annotated[int, typer.Option(help="Leave out so many cases, the first by name.", min=0)] = 0,
    device: Device = None,
    engine: Engine = None,
) -> None:
    """Measure label maps on annotated cases.

    For each case and label: Dice, surface Dice, distance of the surfaces and volume; their means with intervals; a page
    with the worst cases. Cases that the model was trained on are marked and left out of the means. A case that cannot
    be measured is named, and the others are measured all the same; the command then ends with status 1.
    """
    if (checkpoint is None) == (predictions is None):
        raise Rep3DError("Give either a model file or --predictions with a folder of label maps.")
    if math.isinf(tolerance):
        raise Rep3DError("--tolerance: expected a distance in mm.")
    from rep3d.checkpoint import read_checkpoint_task
    from rep3d.data.cases import check_apart, listed, read_data_set
    from rep3d.evaluation.evaluation import EVALUATION, CaseScores, Evaluation
    from rep3d.evaluation.measuring import (
        RECORDS,
        GivenPredictions,
        MadePredictions,
        Measuring,
        Predictions,
        as_computed,
        model_identity,
        require_one_model,
    )
    from rep3d.evaluation.records import Records
    from rep3d.evaluation.seen import Seen
    from rep3d.files import utc_now
    from rep3d.predicting.manifest import models_of
    from rep3d.starter.facts import starter_words
    from rep3d.tasks.dataset_json import (
        channels_from_dataset_json,
        ignore_from_dataset_json,
        labels_from_dataset_json,
    )
    from rep3d.training.start import check_channels

    found = read_data_set(data)
    description = data / "dataset.json"
    ignore = ignore_from_dataset_json(description) if description.is_file() else None
    declared = labels_from_dataset_json(description).values() if description.is_file() else ()
    cases = found.cases[skip:]
    console.print(f"{escape(str(data))}: {found.found} cases found, {len(cases)} to measure", soft_wrap=True)
    show_left_out(found.left_out)
    if found.cases and not cases:
        raise Rep3DError(f"--skip: {data} has {len(found.cases)} cases, and {skip} are to be left out. Skip fewer.")
    if not cases:
        raise Rep3DError(
            f"--data: {data} has no case to measure on. Needed are images with label maps of the same name."
        )
    predictor = _predictor(checkpoint, device, engine)
    digest = model_identity(checkpoint, predictions)
    identity = as_computed(digest, predictor.tuned if predictor else None)
    given = Path(checkpoint or predictions or "")
    folder = out or Path("evaluation") / data.resolve().name / f"{given.resolve().stem}-{identity[:8]}"
    check_apart(folder, data)
    _check_folder(folder, (given, description))
    _hold(folder, context)
    records = Records(folder / RECORDS)
    require_one_model(records, identity, "--out")
    source: Predictions
    facts = {"Predictions": str(given)}
    models: set[Path] | None
    if predictor is None:
        labels = labels_from_dataset_json(description)
        source = GivenPredictions(given, {case.id for case in found.cases})
        show_left_out(source.left_out)
        models = models_of(source.files)
    else:
        labels = same_values(dict(predictor.task.labels), data)
        if description.is_file():
            check_channels(predictor.task, channels_from_dataset_json(description))
        source = MadePredictions(_made(folder / "predictions"), predictor.segment, predictor.task.in_channels)
        models = {given}
        facts = {"Model file": str(given), "Version": predictor.version, "SHA-256": digest}
        facts |= {"Speed": predictor.tuned} if predictor.tuned else {}
    seen = Seen(read_checkpoint_task(model)[1] for model in models or ())
    failed: list[LeftOut] = []
    measuring = Measuring(records, source, identity, labels, tolerance, ignore, declared)
    measured = _each(cases, lambda case: (*measuring(case), seen(case)), failed, folder / RECORDS)
    evaluation = Evaluation(
        name=given.name if predictor is None else f"{given.name} ({predictor.version})",
        source=facts,
        data=str(data),
        labels=labels,
        tolerance_mm=tolerance,
        cases=tuple(CaseScores(case.id, kept.label, known, kept.scores) for case, (kept, _, known) in measured),
        failed=tuple(failed),
        created=utc_now(),
        trained_on_known=models is not None and seen.known,
        notes=seen.notes,
    )
    if measured:
        _show(evaluation)
        if words := starter_words(predictor.info) if predictor else None:
            console.print(escape(words), soft_wrap=True, highlight=False)
    if measured or (folder / EVALUATION).exists():  # what is there would say what is no longer so
        _write(evaluation, folder, {case.id: (case, file) for case, (_, file, _) in measured}, pictures)
    if failed:
        which = f"{len(failed)} of {len(cases)} cases" if measured else f"None of the {len(cases)} cases"
        told = "could not be measured" if measured else "could be measured"
        raise Rep3DError(f"{which} {told}: {listed(failed)}")


def _predictor(checkpoint: Path | None, device: str | None, engine: str | None) -> Predictor | None:
    if checkpoint is None:
        return None
    from rep3d.inference.predictor import Predictor

    return Predictor.load(checkpoint, device, engine)


def _check_folder(folder: Path, inputs: Sequence[Path]) -> None:
    from rep3d.evaluation.evaluation import EVALUATION, TABLE
    from rep3d.evaluation.measuring import RECORDS
    from rep3d.output import check_output_folder

    written = (EVALUATION, TABLE, _PAGE)
    if not (folder / RECORDS).exists():
        for name in written:
            if (folder / name).exists():
                raise OutputError(
                    f"--out: {folder / name} is there already, and {folder} holds no evaluation that could go on. It "
                    f"stays: give another folder."
                )
    check_output_folder(folder, (*written, RECORDS), inputs)


def _hold(folder: Path, context: typer.Context) -> None:
    """Keep other evaluations out of a folder until this command ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"--out: another rep3d evaluate is writing into {folder}. Wait until it is done, or give another folder."
        ) from None
    except (OSError, NotImplementedError):  # a drive that knows no locks
        return
    context.call_on_close(lock.release)


def _made(folder: Path) -> Path:
    from rep3d.output import check_output_folder

    return check_output_folder(folder)


def same_values(labels: dict[str, int], data: Path) -> dict[str, int]:
    """Return a model's labels; refuse a data set that has other values for them, which would be measured as absent."""
    from rep3d.tasks.dataset_json import labels_from_dataset_json, plain_name
    from rep3d.tasks.registry import spelled_rightly

    def spoken(name: str) -> str:
        return plain_name(re.sub(r"[\W_]+", " ", name))

    try:
        known = labels_from_dataset_json(data / "dataset.json")
    except TaskError:  # without one that can be read, the model's values are taken to be those of the data set
        return labels
    known = known if set(labels) <= set(known) else spelled_rightly(known)
    for name, value in labels.items():
        if known.get(name, value) != value:
            raise TaskError(
                f"The model has the value {value} for {name!r}, and {data / 'dataset.json'} says {known[name]}. "
                f"Measure on label maps with the model's values."
            )
        others = [other for other, its in known.items() if its == value and spoken(other) != spoken(name)]
        if others:
            raise TaskError(
                f"The model calls the value {value} {name!r}, and {data / 'dataset.json'} says {others[0]!r}. If both "
                f"are the same structure, give it the model's name there; else measure another model."
            )
    return labels


def _each(
    cases: Sequence[Case],
    measure: Callable[[Case], tuple[Record, Path, bool]],
    failed: list[LeftOut],
    kept: Path,
) -> list[tuple[Case, tuple[Record, Path, bool]]]:
    """Measure all cases that can be, and tell how it goes."""
    from rich.progress import Progress

    from rep3d.evaluation.metrics import mean_dice
    from rep3d.training.preparing import each_case

    ended: list[float] = []  # the first case has libraries to load, which the others have not
    stop_on_terminate()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        shown = bar.add_task("", total=len(cases))

        def one(case: Case) -> tuple[Record, Path, bool]:
            bar.update(shown, description=escape(case.id))
            try:
                record, file, seen = measure(case)
            finally:
                bar.advance(shown)
            dice = mean_dice({case.id: {name: score.dice for name, score in record.scores.items()}})
            ended.append(time.monotonic())
            done = cases.index(case) + 1
            each = (ended[-1] - ended[0]) / max(1, len(ended) - 1)
            left = each * (len(cases) - done)
            facts = f"{done} of {len(cases)}" + (f", about {_duration(left)} left" if left >= 1 else "")
            words = "no label in either map" if math.isnan(dice) else f"{dice:.3f}"
            console.print(f"{escape(case.id)}: {words} ({facts})", soft_wrap=True, highlight=False)
            return record, file, seen

        try:
            return each_case(cases, one, failed)
        except KeyboardInterrupt:
            console.print(f"What was measured is in {escape(str(kept))}; the same command goes on.", soft_wrap=True)
            raise


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _show(evaluation: Evaluation) -> None:
    """Print Dice of each case and label, and the means of all that is measured."""
    from rich.table import Table

    from rep3d.evaluation.evaluation import METRICS, Mean, Metric, case_values
    from rep3d.terminal import print_scores

    dice = METRICS["dice"]
    rows = {
        (f"{case.id} (trained on)" if case.trained_on else case.id, dice.shown(case_values(case.scores, dice))):
        case.dice()
        for case in evaluation.cases
    }  # fmt: skip
    print_scores(console, f"Dice of {evaluation.name}", list(evaluation.labels), ("Case", "Mean"), rows)

    def cell(metric: Metric, mean: Mean) -> str:
        interval = "" if mean.low is None else f"\n{metric.shown(mean.low)} to {metric.shown(mean.high)}"
        return f"{metric.shown(mean.mean)}{interval}" + (f"\n{mean.undefined} without" if mean.undefined else "")

    title = f"Means over cases, 95 % intervals; surface Dice at {evaluation.tolerance_mm:g} mm"
    table = Table("Label", "Cases", title=title, title_justify="left")
    metrics = [METRICS[key] for key in _SHOWN]
    for metric in metrics:
        table.add_column(metric.title, justify="right")
    for name in evaluation.labels:
        means = [evaluation.mean(metric, name) for metric in metrics]
        cells = [cell(metric, mean) for metric, mean in zip(metrics, means, strict=True)]
        table.add_row(escape(name), str(means[0].count), *cells)
    console.print(table)
    mean = evaluation.mean(dice)
    interval = "" if mean.low is None else f" (95 % interval {mean.low:.3f} to {mean.high:.3f})"
    trained = len(evaluation.cases) - len(evaluation.fresh)
    if evaluation.fresh:
        which = f"{mean.count} cases" + (" not trained on" if evaluation.trained_on_known else "")
        more = f"; {mean.undefined} more have no label in either map" if mean.undefined else ""
        console.print(f"Mean over {which}: {mean.mean:.3f}{interval}{more}", soft_wrap=True)
    if trained:
        console.print(f"{trained} cases were trained on: their Dice says nothing about new images.")
    for remark in evaluation.remarks:
        console.print(escape(remark), soft_wrap=True, highlight=False)


def _write(evaluation: Evaluation, folder: Path, files: Mapping[str, tuple[Case, Path]], pictures: int) -> None:
    from rep3d.evaluation.evaluation import EVALUATION, TABLE
    from rep3d.evaluation.page import evaluation_page
    from rep3d.files import write_text

    evaluation.write(folder)
    write_text(folder / _PAGE, evaluation_page(evaluation, files, pictures))
    console.print(f"Wrote {escape(str(folder / _PAGE))}, {EVALUATION} and {TABLE}", soft_wrap=True)
