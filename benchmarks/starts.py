"""What a training gains within the same minutes if it does not begin from nothing: Dice on held-out cases.

    python benchmarks/starts.py --data ../shared/data --output docs/results/starts.json

Beside trainings from nothing: such that begin with the encoder of a model of another data set (trained beforehand, the
time is not counted), and such that spend a part of their minutes on restoring images whose blocks were blanked, on all
images of the folder that nothing is measured on, labelled or not, and the rest on the labels. All at one voxel size.
Run it on an idle machine. Runs that the output has already are not repeated, so it may be interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import command, machine, write_result
from minutes import SETTINGS, Setting, dice_on, patient, split, task_of
from rich.console import Console

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case, read_data_set
from rep3d.imaging.transforms import preparation
from rep3d.inference.streaming import cut
from rep3d.nn.single import for_single_patches
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import TaskConfig
from rep3d.training.one import at_its_resolution
from rep3d.training.plan import TrainPlan
from rep3d.training.train import TrainSettings, train

_STARTS = ("nothing", "another task's encoder", "restoring")
_BLOCK = 8  # voxels
_BLANKED = 0.5  # of the blocks


def _settings(minutes: float, preset: str, seed: int, resolution: str = "task") -> TrainSettings:
    return TrainSettings(
        iterations=1_000_000, max_minutes=minutes, preset=preset, seed=seed, resolution=resolution, device="cpu"
    )


def _at_the_size(setting: Setting, data: Path, preset: str, scratch: Path) -> TaskConfig:
    """Return the setting's task at the voxel size that its minutes give it."""
    cases, _ = split(setting, data)
    settings = _settings(setting.minutes, preset, 0, "auto")
    return at_its_resolution(TrainPlan(cases, task_of(setting, data, cases), settings, scratch / "model.pt")).task


def _restored(images: list[Path], task: TaskConfig, minutes: float, preset: str, seed: int) -> Checkpoint:
    """Return a network that learned to restore blanked blocks."""
    began, prepare = time.monotonic(), preparation(task)
    torch.manual_seed(seed)
    network = build_network(preset_config(preset, 1, 1, task.roi_size))
    random = np.random.default_rng(seed)
    volumes = [prepare({"image": str(image)})["image"][0].numpy() for image in images]
    trained = for_single_patches(network).train()
    optimizer = torch.optim.AdamW(trained.parameters(), 2e-3, weight_decay=0.08, fused=True)
    while (done := (time.monotonic() - began) / 60.0 / minutes) < 1.0:
        optimizer.param_groups[0]["lr"] = 2e-3 * max(0.01, (1.0 - done) ** 0.9)
        patch = _patch(volumes[random.integers(len(volumes))], task.roi_size, random)
        blocks = torch.from_numpy(random.random([-(-side // _BLOCK) for side in task.roi_size]) < _BLANKED)
        for axis, side in enumerate(task.roi_size):
            blocks = blocks.repeat_interleave(_BLOCK, axis).narrow(axis, 0, side)
        loss = (trained(patch.masked_fill(blocks, 0.0)) - patch)[..., blocks].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Checkpoint(network, dataclasses.replace(task, name="restoring"), {"version": "v1", "preset": preset})


def _patch(volume: np.ndarray, sides: tuple[int, int, int], random: np.random.Generator) -> torch.Tensor:
    """Return a random patch (1, 1, D, H, W), cut as in a training."""
    first = [int(random.integers(max(0, length - side) + 1)) for length, side in zip(volume.shape, sides, strict=True)]
    return torch.from_numpy(cut(volume, first, sides))[None, None]


def _run(
    setting: Setting, data: Path, task: TaskConfig, start: str, share: float, seed: int, preset: str, other: Checkpoint
) -> dict[str, Any]:
    cases, held_out = split(setting, data)
    encoder, minutes = None, setting.minutes
    if start == "another task's encoder":
        encoder = other
    elif start == "restoring":
        encoder = _restored(_images(setting, data, held_out), task, share * minutes, preset, seed)
        minutes *= 1.0 - share
    with tempfile.TemporaryDirectory(prefix="rep3d-starts-") as scratch:
        trained = train(cases, task, _settings(minutes, preset, seed), Path(scratch) / "model.pt", encoder=encoder)
        dice = dice_on(trained, held_out, Path(scratch))
    steps = trained.info["iterations"]
    return {"start": start, "seed": seed, "mean": round(setting.mean(dice), 4), "dice": dice, "steps": steps}


def _images(setting: Setting, data: Path, held_out: list[Case]) -> list[Path]:
    """Return all images of patients that nothing is measured on."""
    patients = {patient(case) for case in held_out}
    return [case.image for case in read_data_set(data / setting.data).cases if patient(case) not in patients]


def main() -> None:
    """Run what is missing in the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--setting", type=int, default=1, help="number in minutes.py, from 0")
    parser.add_argument("--other", type=int, default=2, help="number of the other data set's, for as many minutes")
    parser.add_argument("--share", type=float, default=0.25, help="of the minutes, for restoring")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    setting, other = SETTINGS[asked.setting], SETTINGS[asked.other]
    console = Console()
    result = json.loads(asked.output.read_text()) if asked.output.exists() else {"runs": []}
    result.update(
        machine=machine(torch.device("cpu")),
        command=command(),
        setting=setting.name,
        preset=asked.preset,
        other=f"{other.data}, {other.labels} labels, {setting.minutes:g} minutes",
        restoring_share=asked.share,
    )
    with tempfile.TemporaryDirectory(prefix="rep3d-starts-") as scratch:
        task = _at_the_size(setting, asked.data, asked.preset, Path(scratch))
        console.print(f"{task.spacing} mm, patch {task.roi_size}")
        cases, _ = split(other, asked.data)
        trained = train(
            cases,
            task_of(other, asked.data, cases),
            _settings(setting.minutes, asked.preset, 0, "auto"),
            Path(scratch) / "other.pt",
        )
    result.update(spacing=task.spacing, roi_size=task.roi_size)
    for seed in map(int, asked.seeds.split(",")):
        for start in _STARTS:
            if any((run["start"], run["seed"]) == (start, seed) for run in result["runs"]):
                continue
            run = _run(setting, asked.data, task, start, asked.share, seed, asked.preset, trained)
            result["runs"].append(run)
            by_start = {name: [each["mean"] for each in result["runs"] if each["start"] == name] for name in _STARTS}
            result["means"] = {name: round(statistics.fmean(means), 4) for name, means in by_start.items() if means}
            write_result(asked.output, result)
            console.print(f"{start}, seed {seed}: {run['mean']:.3f}, {run['steps']} steps")


if __name__ == "__main__":
    main()
