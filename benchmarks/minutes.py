"""What networks learn within the same minutes: Dice on cases that were not trained on, in the images' own voxels.

    python benchmarks/minutes.py --data ../shared/data --output docs/results/minutes.json

Each run is a whole training of ours (``rep3d.training.train.train``) with the voxel size chosen by the minutes, so
preparing and saving are inside them; only the network differs. Run it on an idle machine. Runs that the output has
already are not repeated, so it may be interrupted.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import command, machine, write_result
from rich.console import Console

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case, read_data_set
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.predictor import Predictor
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json
from rep3d.training.train import TrainSettings, task_for_cases, train

_SIX = ("spleen", "right kidney", "left kidney", "liver", "stomach", "aorta")


@dataclass(frozen=True)
class Setting:
    """So many labels of a data set, trained on for so many minutes.

    Attributes:
        data: folder of the data set.
        labels: cases to train on, the first ones; of hearts one volume of each patient.
        minutes: of training.
        held_out: cases to measure on, the last ones.
        of: labels of the mean that the project set itself a target for; all where it is empty.
    """

    data: str
    labels: int
    minutes: float
    held_out: int
    of: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How the results call it."""
        return f"{self.data}, {self.labels} labels, {self.minutes:g} minutes"

    def mean(self, dice: dict[str, float]) -> float:
        """Return the mean of the labels that count."""
        return float(np.mean([dice[name] for name in self.of or dice]))


SETTINGS = (
    Setting("abdomen_ct", 4, 6, 6, _SIX),
    Setting("cardiac_mr", 8, 6, 12),
    Setting("abdomen_mr", 8, 15, 6),
    Setting("hippocampus", 8, 2, 20),
    Setting("abdomen_ct", 12, 30, 6, _SIX),
)


def patient(case: Case) -> str:
    """Return whose image it is; of hearts there are two of each."""
    return case.id.split("_frame")[0]


def split(setting: Setting, data: Path) -> tuple[list[Case], list[Case]]:
    """Return the cases to train on and those to measure on."""
    first_of_patient: dict[str, Case] = {}
    for case in read_data_set(data / setting.data).cases:
        first_of_patient.setdefault(patient(case), case)
    patients = list(first_of_patient.values())
    return patients[: setting.labels], patients[-setting.held_out :]


def task_of(setting: Setting, data: Path, cases: list[Case]) -> TaskConfig:
    """Return the task of the cases to train on, as it is before a voxel size is chosen."""
    description = data / setting.data / "dataset.json"
    labels, modality = labels_from_dataset_json(description), modality_from_dataset_json(description)
    return task_for_cases(setting.data, labels, [case.image for case in cases], modality)


def dice_on(trained: Checkpoint, held_out: list[Case], scratch: Path) -> dict[str, float]:
    """Return the mean Dice of each label in the images' own voxels, over the cases that have it."""
    predictor, labels = Predictor(trained), trained.task.labels
    scores = []
    for case in held_out:
        file = scratch / "found.nii.gz"
        predictor.segment(case.image, file)
        scores.append(dice_of_files(file, case.label, labels))
    return {name: round(float(np.nanmean([score[name] for score in scores])), 4) for name in labels}


def _run(
    setting: Setting, data: Path, preset: str, seed: int, changes: dict[str, Any], keep: Path | None
) -> dict[str, Any]:
    training, held_out = split(setting, data)
    task = task_of(setting, data, training)
    settings = TrainSettings(
        **{
            **{"iterations": 1_000_000, "max_minutes": setting.minutes, "preset": preset, "seed": seed},
            **{"resolution": "auto", "device": None, **changes},
        }
    )
    with tempfile.TemporaryDirectory(prefix="rep3d-minutes-") as scratch:
        started = time.monotonic()
        file = re.sub(r"\W+", "_", f"{setting.name} {preset} {seed} {changes or ''}").strip("_") + ".pt"
        trained = train(training, task, settings, (keep or Path(scratch)) / file)
        ended = time.monotonic()
        found = dice_on(trained, held_out, Path(scratch))
        seconds = (time.monotonic() - ended) / len(held_out)
    return {
        "setting": setting.name,
        "preset": preset,
        "seed": seed,
        "changes": changes,
        "mean": setting.mean(found),
        "mean_of_all": float(np.mean(list(found.values()))),
        "dice": found,
        "steps": trained.info["iterations"],
        "minutes": round((ended - started) / 60.0, 3),
        "segment_seconds": round(seconds, 2),
        "resolution": (trained.info["resolution"] or {}).get("words"),
        "spacing": list(trained.task.spacing),
        "roi_size": list(trained.task.roi_size),
        "cpu": machine(torch.device("cpu"))["cpu"],  # runs may be added on another machine
    }


def main() -> None:
    """Run what is missing in the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--presets", default="quick,tiny,segresnet,dynunet:tiny,basicunet")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--settings", default=",".join(map(str, range(len(SETTINGS)))), help="numbers, from 0")
    parser.add_argument("--changes", default="{}", help="TrainSettings that differ, as JSON")
    parser.add_argument("--keep", type=Path, help="folder for the trained checkpoints; not kept without it")
    asked = parser.parse_args()
    console, changes = Console(), json.loads(asked.changes)
    result = json.loads(asked.output.read_text()) if asked.output.exists() else {"runs": []}
    result["machine"] = machine(torch.device("cpu"))
    result["commands"] = list(dict.fromkeys([*result.get("commands", []), command()]))
    for number in map(int, asked.settings.split(",")):
        for seed in map(int, asked.seeds.split(",")):
            for preset in asked.presets.split(","):
                setting = SETTINGS[number]
                key = (setting.name, preset, seed, changes)
                if any((run["setting"], run["preset"], run["seed"], run["changes"]) == key for run in result["runs"]):
                    continue
                run = _run(setting, asked.data, preset, seed, changes, asked.keep)
                result["runs"].append(run)
                result["means"] = _means(result["runs"])
                write_result(asked.output, result)
                console.print(f"{setting.name}, {preset}, seed {seed}: {run['mean']:.3f}, {run['steps']} steps")


def _means(runs: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Mean and range over seeds, setting to preset."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        word = run["preset"] + (f" {run['changes']}" if run["changes"] else "")
        found.setdefault(run["setting"], {}).setdefault(word, []).append(run["mean"])
    return {
        setting: {
            word: f"{math.fsum(means) / len(means):.3f} ({min(means):.3f} to {max(means):.3f}, seeds: {len(means)})"
            for word, means in words.items()
        }
        for setting, words in found.items()
    }


if __name__ == "__main__":
    main()
