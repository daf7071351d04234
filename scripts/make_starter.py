"""Make a starter model: train on a data set, measure on the cases that are held out for ever, write model and card.

    python scripts/make_starter.py --data ../shared/data/hippocampus --state ../starter_run

It writes into `rep3d/starter`: `NAME_split.json` (which cases train and which measure), `NAME.pt` (half precision, at
most 20 MB), `NAME.json` (all that was measured, with command and machine) and `NAME.md`, the card, whose figures are
those of the JSON file. Killed at any time, the same command goes on from the folder `--state`; a finished training in
it is not repeated. The data set's `dataset.json` must state `reference` and `licence`.

The defaults are chosen for the hippocampus: crops of about 35 x 50 x 36 voxels of 1 mm. Patches of 32 x 48 x 32 hold a
whole hippocampus (the largest is 27 x 44 x 35) and cost `tiny` 0.35 s of one core each, two at a time; those of
48 x 64 x 48, which hold a whole crop and more of nothing than of it, cost 1.1 s. The held-out cases choose nothing: the
weights are those at the end, where the learning rate has fallen to zero.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "benchmarks"))

from measuring import command, machine  # noqa: E402

from rep3d import __version__  # noqa: E402
from rep3d.checkpoint import HALF_PRECISION, Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from rep3d.data.cases import Case, LeftOut, listed, read_data_set  # noqa: E402
from rep3d.demo.screen import train_progress  # noqa: E402
from rep3d.errors import Rep3DError, TaskError  # noqa: E402
from rep3d.evaluation.evaluation import mean_with_interval  # noqa: E402
from rep3d.evaluation.gate import label_means  # noqa: E402
from rep3d.evaluation.metrics import dice_of_files, mean_dice  # noqa: E402
from rep3d.files import copy_whole, file_hash, write_text  # noqa: E402
from rep3d.inference.predictor import Predictor, choose_device  # noqa: E402
from rep3d.json_file import JsonFile, json_object  # noqa: E402
from rep3d.output import check_output, check_output_folder  # noqa: E402
from rep3d.starter.models import FOLDER  # noqa: E402
from rep3d.starter.split import RULE, is_held_out  # noqa: E402
from rep3d.tasks.config import TaskConfig  # noqa: E402
from rep3d.tasks.dataset_json import (  # noqa: E402
    labels_from_dataset_json,
    modality_from_dataset_json,
    read_dataset_json,
)
from rep3d.tasks.registry import matching_task  # noqa: E402
from rep3d.training.minutes.resolution import lengths_along  # noqa: E402
from rep3d.training.preparing import each_case  # noqa: E402
from rep3d.training.settings import AUTO, PRECISIONS  # noqa: E402
from rep3d.training.train import TrainSettings, task_for_cases, train  # noqa: E402

LICENCES = {"CC-BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/"}
"""Under which a model made of the data may be passed on, and where they are to be read."""
MOST_BYTES = 20_000_000
console = Console()


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with imagesTr, labelsTr and dataset.json")
    parser.add_argument("--state", type=Path, required=True, help="folder of this run alone, from which it goes on")
    parser.add_argument("--name", default="hippocampus", help="of the model and its files")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--minutes", type=float, default=90.0, help="of training, those before a kill included")
    parser.add_argument("--iterations", type=int, default=100_000, help="at most")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--patch", type=int, nargs=3, default=(32, 48, 32), metavar="VOXELS")
    parser.add_argument("--crops", type=int, default=2, help="patches of a step")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--loss", default="present")
    parser.add_argument("--precision", choices=PRECISIONS, default=AUTO, help="of the training's arithmetic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda, ...; the best there is where not given")
    return parser.parse_args(arguments)


def source_of(description: Path) -> dict[str, str]:
    """Return whose data these are, and under which licence.

    Raises:
        TaskError: if the data set does not say so, or a model of it may not be passed on.
    """
    said = read_dataset_json(description)
    lacking = [key for key in ("name", "reference", "licence") if not isinstance(said.get(key), str) or not said[key]]
    if lacking:
        raise TaskError(
            f"{description} lacks {', '.join(lacking)}: whoever ships a model has to name its data's source."
        )
    if said["licence"] not in LICENCES:
        raise TaskError(
            f"{description}: the licence is {said['licence']!r}, and a starter model is made of data under "
            f"{', '.join(LICENCES)}."
        )
    return {
        "data": said["name"],
        "attribution": said["reference"],
        "licence": said["licence"],
        "licence_url": LICENCES[said["licence"]],
    }


def split_into(file: Path, cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to measure on, and keep in a file which they are.

    Raises:
        TaskError: if there is none of either, or the file says otherwise.
    """
    known = JsonFile(file, lambda content: json_object(content, training=list, held_out=list), "the split", dict, False)
    before = known.read()
    parts = {
        "training": sorted({*(case.id for case in cases if not is_held_out(case.id)), *before.get("training", [])}),
        "held_out": sorted({*(case.id for case in cases if is_held_out(case.id)), *before.get("held_out", [])}),
    }
    if wrong := [id_ for part, ids in parts.items() for id_ in ids if is_held_out(id_) != (part == "held_out")]:
        raise TaskError(f"{file} gives cases another part than its rule: {', '.join(wrong[:5])}. Restore it.")
    found = [case for case in cases if not is_held_out(case.id)], [case for case in cases if is_held_out(case.id)]
    if not all(found):
        raise TaskError(f"Of {len(cases)} cases {len(found[1])} are held out: both parts need one. Add cases.")
    known.write({"rule": RULE, **parts})
    return found


def trained_on(training: Sequence[Case], task: TaskConfig, settings: TrainSettings, state: Path) -> Checkpoint:
    """Train, or return what the same command has trained before.

    Raises:
        Rep3DError: if the folder holds another run, or as the training does.
    """
    output = state / "trained.pt"
    asked = {"settings": dataclasses.asdict(settings), "task": task.to_dict(), "cases": [case.id for case in training]}
    asked = json.loads(json.dumps(asked))
    note = JsonFile(state / "asked.json", json_object, "what was asked for in this folder", dict, False)
    if note.read() not in ({}, asked):
        raise Rep3DError(f"--state: {state} holds a run with other settings or cases. Give another folder.")
    note.write(asked)
    if output.exists():
        return load_checkpoint(output)
    with train_progress(console, settings.max_minutes) as progress:
        return train(
            *(training, task, settings, output),
            on_progress=progress,
            state=state / "run",
            prepared=state / "prepared",
        )


def measured(model: Path | Checkpoint, cases: Sequence[Case], device: str | None) -> dict[str, dict[str, float]]:
    """Return case id to label name to Dice, on the images' own voxels.

    Raises:
        Rep3DError: if a case cannot be measured: the split is one for all.
    """
    checkpoint = model if isinstance(model, Checkpoint) else load_checkpoint(model)
    predictor = Predictor(checkpoint, device, "torch")
    left_out: list[LeftOut] = []
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.nii.gz"

        def dice(case: Case) -> dict[str, float]:
            predictor.segment(case.image, found)
            return dice_of_files(found, case.label, predictor.task.labels)

        scores = {case.id: score for case, score in each_case(cases, dice, left_out)}
    if left_out:
        raise Rep3DError(f"{len(left_out)} of {len(cases)} held-out cases cannot be measured: {listed(left_out)}")
    return scores


def seen_in(cases: Sequence[Case]) -> dict[str, Any]:
    """Return of which size the images are: smallest and largest extent and voxel, in mm along R, A, S."""
    spacings, extents = lengths_along([case.image for case in cases], "RAS")
    ends = {"extent_mm": extents, "voxel_mm": spacings}
    return {name: [values.min(0).round(2).tolist(), values.max(0).round(2).tolist()] for name, values in ends.items()}


def summary(scores: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return of each label mean with its 95 % interval by the bootstrap (none of one case), standard deviation, median
    and lowest Dice over the cases that have it."""
    found = {}
    for label in label_means(scores):
        values = [case[label] for case in scores.values() if not math.isnan(case[label])]
        mean = mean_with_interval(values)
        found[label] = {
            "mean": mean.mean,
            "low": math.nan if mean.low is None else mean.low,
            "high": math.nan if mean.high is None else mean.high,
            "deviation": statistics.pstdev(values),
            "median": statistics.median(values),
            "lowest": min(values),
        }
    return {
        label: {name: round(value, 4) for name, value in row.items() if not math.isnan(value)}
        for label, row in found.items()
    }


def card(result: Mapping[str, Any]) -> str:
    """Return the model card; every figure in it is one of the result's."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return page.get_template("starter_card.md.j2").render(result)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do all of it."""
    options = parsed(arguments)
    description = options.data / "dataset.json"
    source = source_of(description)
    labels, modality = labels_from_dataset_json(description), modality_from_dataset_json(description)
    files = {ending: options.out / f"{options.name}{ending}" for ending in (".pt", ".json", ".md")}
    for ending, file in files.items():
        check_output(file, (ending,), option="--out", room=MOST_BYTES, make_folder=True)
    state = check_output_folder(options.state, option="--state", room=10 * MOST_BYTES)
    there = read_data_set(options.data)
    if there.left_out:
        raise TaskError(f"{options.data} is not whole: {listed(there.left_out)}")
    training, held_out = split_into(options.out / f"{options.name}_split.json", there.cases)
    console.print(f"{len(training)} cases to train on, {len(held_out)} to measure on")
    known = matching_task(labels, modality)
    task = known or task_for_cases(options.name, labels, [case.image for case in training], modality)
    task = dataclasses.replace(task, roi_size=tuple(options.patch))
    settings = TrainSettings(
        options.iterations,
        options.minutes,
        options.learning_rate,
        crops=options.crops,
        seed=options.seed,
        preset=options.preset,
        device=options.device,
        loss=options.loss,
        precision=options.precision,
    )
    trained = trained_on(training, task, settings, state)
    facts = {"name": options.name, **source, "cases": len(trained.info["cases"]), "held_out": len(held_out)}
    info = {**trained.info, "precision": HALF_PRECISION, "starter": {**facts, "dice": {}}}
    half = state / "half.pt"
    save_checkpoint(half, trained.model, trained.task, info)
    if half.stat().st_size > MOST_BYTES:
        raise Rep3DError(
            f"The model takes {half.stat().st_size / 1e6:.1f} MB; 20 may be shipped. Take a smaller preset."
        )
    scores = measured(half, held_out, options.device)
    dice = {label: round(value, 4) for label, value in label_means(scores).items()}
    info["starter"] = {**facts, "dice": dice}
    save_checkpoint(half, trained.model, trained.task, info)
    result = {
        "name": options.name,
        "command": command(),
        "machine": machine(choose_device(options.device)),
        "rep3d": __version__,
        "source": source,
        "cases": {"training": len(trained.info["cases"]), "held_out": len(held_out), "rule": RULE},
        "images": seen_in(training),
        "task": trained.task.to_dict(),
        "settings": dataclasses.asdict(settings),
        "training": {
            key: trained.info[key]
            for key in (
                "preset",
                "parameters",
                "iterations",
                "minutes",
                "step_seconds",
                "stopped",
                "loss",
                "trained_in",
                "created",
            )
        },
        "dice": summary(scores),
        "mean_dice": round(mean_dice(scores), 4),
        "mean_dice_in_single_precision": round(mean_dice(measured(trained, held_out, options.device)), 4),
        "by_case": {
            case: {label: round(value, 4) for label, value in one.items() if not math.isnan(value)}
            for case, one in scores.items()
        },
        "file": {"bytes": half.stat().st_size, "sha256": file_hash(half), "precision": HALF_PRECISION},
    }
    write_text(files[".json"], json.dumps(result, indent=1) + "\n")
    write_text(files[".md"], card(result))
    copy_whole(half, files[".pt"])  # last: without the others beside it, it must not be shipped
    console.print(
        f"Wrote {files['.pt']}: mean Dice {result['mean_dice']:.4f} ({dice}) on {len(held_out)} held-out cases"
    )


if __name__ == "__main__":
    try:
        main()
    except Rep3DError as error:
        sys.exit(f"make_starter: {error}")
