"""How much faster a large CT is segmented on a CPU, step by step, and what each step does to the Dice.

    python benchmarks/predict_speed.py --data FOLDER [--minutes 4] [--output FILE]

Two measurements, within 15 minutes on two idle cores.

**Dice**: ``tiny`` is trained for some minutes on the data set in ``FOLDER``, with windows so small that an image needs
several; `rep3d.predicting.tuning` then tries all ways on cases that it was not trained on.

**Time and memory**: ``base`` with 16 classes at 1.5 x 1.5 x 2 mm on a generated CT of 512 x 512 x 400 voxels
(`ct_phantom`), by `rep3d.predicting.run`, statistics and record included. Each way runs in a process of its own, whose
peak of resident memory is given, the program itself included. As all windows take the same time, only every so-many-th
batch of them is really computed where the whole would take minutes; ``computed`` says how many were, and the seconds of
the network are those of the computed ones times all windows. The network has random weights; what it is said to have
found are the generated organs; writing those over each window's logits is the benchmark's own work, and left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from infer_time import timed_steps
from measuring import command, machine, write_result
from parts.ct_phantom import WINDOW, Rule, write_ct

from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.data.cases import read_data_set
from rep3d.imaging.body import BodyMask
from rep3d.inference import predictor as module
from rep3d.inference.engines import BFLOAT16, Engine
from rep3d.inference.predictor import Predictor
from rep3d.inference.tuned import PLAIN, Way
from rep3d.nn.zoo import build_network, preset_config
from rep3d.predicting import run as predicting
from rep3d.predicting.tuning import measure, tune
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json
from rep3d.training.settings import AUTO, PRECISIONS, TrainSettings
from rep3d.training.train import task_for_cases, train
from rep3d.training.validation import choose_validation

_SPACING = (0.8, 0.8, 1.25)  # of the CT
_LABELS = {f"organ_{number:02}": number for number in range(1, 16)}
_TASK = TaskConfig("benchmark", _LABELS, (1.5, 1.5, 2.0), Intensity("window", *WINDOW), "RAS", (96, 96, 96))
_TRAINED_ON = 24  # cases at most


@dataclasses.dataclass(frozen=True)
class _Step:
    """One row: what is computed how.

    Attributes:
        engine: by name; None for what the way says.
        way: how the windows lie, and in which precision they are computed.
        air: whether air is computed, too.
        every: which batches of windows are really computed.
    """

    engine: str | None
    way: Way
    air: bool = False
    every: int = 1


_FAST = Way(BFLOAT16, overlap=0.25)
_STEPS = {
    "PyTorch, air and all": _Step("torch", PLAIN, air=True, every=16),
    "OpenVINO, air and all": _Step(None, PLAIN, air=True, every=12),
    "without air (plainly, as without a record)": _Step(None, PLAIN, every=5),
    "bfloat16": _Step(None, Way(BFLOAT16), every=3),
    "windows overlap by 0.25": _Step(None, _FAST, every=2),
    "windows overlap by 0.125": _Step(None, dataclasses.replace(_FAST, overlap=0.125), every=2),
    "windows 1.5 times as wide, overlap 0.25": _Step(None, dataclasses.replace(_FAST, window=1.5), every=2),
    "overlap 0.25 and a first look": _Step(None, dataclasses.replace(_FAST, first_look=True)),
}


class _Sampled:
    """An engine that computes every so-many-th batch, takes the time, and answers with the generated organs."""

    def __init__(self, engine: Engine, every: int) -> None:
        self.name = engine.name
        self.windows = self.computed = 0
        self.seconds = self.answering = 0.0
        self._engine = engine
        self._every = every
        self._calls = 0
        self._rule = Rule(torch.nn.Identity(), classes=_TASK.out_channels)

    def __call__(self, windows: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
        """Map windows to logits."""
        self._calls += 1
        self.windows += len(windows)
        if (self._calls - 1) % self._every == 0:
            began = time.perf_counter()
            logits = self._engine(windows, check)
            self.seconds += time.perf_counter() - began
            self.computed += len(windows)
        else:
            logits = windows.new_empty(len(windows), _TASK.out_channels, *windows.shape[2:])
        began = time.perf_counter()
        with torch.inference_mode():
            answer = self._rule.answer(windows, logits)
        self.answering += time.perf_counter() - began
        return answer

    def release(self) -> None:
        """As the engine does."""
        self._engine.release()


def _everything(image: torch.Tensor, *_: object) -> BodyMask:
    return BodyMask(np.ones((1, 1, 1), bool), tuple(image.shape[1:]))  # type: ignore[arg-type]


def _measure(image: Path, model: Path, step: _Step) -> dict[str, Any]:
    """Predict the image in this process, and return what it took."""
    made: list[_Sampled] = []
    encoding = 0.0

    def predictor(*arguments: Any, **settings: Any) -> Predictor:
        found = Predictor(*arguments, **{**settings, "single_image": False, "way": step.way})
        encode = found.model.encode

        def timed(windows: torch.Tensor) -> list[torch.Tensor]:
            nonlocal encoding
            began = time.perf_counter()
            try:
                return encode(windows)
            finally:
                encoding += time.perf_counter() - began

        found.model.encode = timed  # type: ignore[method-assign]
        made.append(_Sampled(found.engine, step.every))
        found.engine = made[0]  # type: ignore[assignment]
        return found

    seconds: dict[str, float] = {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as out, mock.patch.object(predicting, "Predictor", predictor):
        body = mock.patch.object(module, "body_mask", _everything) if step.air else mock.MagicMock()
        with timed_steps(seconds), body:
            done = predicting.predict([model], image, Path(out), predicting.Wanted(), "cpu", step.engine)
        assert not done.failed, done.failed
        entry = json.loads((Path(out) / "manifest.json").read_text())["cases"][done.done[0]]
    total, engine = time.perf_counter() - began, made[0]
    share = engine.windows / engine.computed
    network = engine.seconds * share
    overhead = total - engine.seconds - engine.answering
    steps = {
        "cut windows, gather, softmax": seconds.pop("network")
        + seconds.pop("first look", 0.0)
        - (engine.seconds + engine.answering),
        **seconds,
        "statistics and checksums": entry["seconds"]["outputs"],
    }
    steps["load the model, start the engine, the rest"] = overhead - sum(steps.values())
    return {
        "seconds": round(network + overhead, 1),
        "network_seconds": round(network, 1),
        "of_it_encoder": round(encoding * share, 1),
        "other_seconds": round(overhead, 1),
        "steps": {name: round(taken, 2) for name, taken in steps.items()},
        "windows": engine.windows,
        "computed": engine.computed,
        "peak_gb": round(_peak_kib() * 1024 / 1e9, 2),
        "engine": entry["engine"],
        "labels_found": sum(row["voxels"] > 0 for row in entry["statistics"].values()),
    }


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _dice(options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Train a model where there is none in the file, and measure what each way does to its Dice."""
    data: Path = options.data
    training, held_out = choose_validation(read_data_set(data).cases, options.held_out)
    if not file.exists():
        training = training[:_TRAINED_ON]
        description = data / "dataset.json"
        images, modality = [case.image for case in training], modality_from_dataset_json(description)
        task = task_for_cases(data.name, labels_from_dataset_json(description), images, modality)
        task = dataclasses.replace(task, spacing=(options.spacing,) * 3, roi_size=(options.window,) * 3)
        minutes, precision = options.minutes, options.precision
        settings = TrainSettings(1_000_000, minutes, preset="tiny", device="cpu", precision=precision)
        train(training, task, settings, file)
    model = load_checkpoint(file)
    if seen := {case.id for case in held_out} & set(model.info["cases"]):
        raise SystemExit(f"{file} was trained on {', '.join(sorted(seen))}, on which it is to be measured.")
    with mock.patch.object(module, "body_mask", _everything):
        air = measure(model, held_out, model.task.labels, file.with_name("found.nii.gz"), PLAIN)
    assert air is not None, "there is memory for the plain way"
    print("air and all", air, flush=True)
    tuned = tune(model, held_out, model.task.labels, tell=lambda *told: print(*told, flush=True))
    assert tuned is not None, "there is time for all cases"
    spent = f"{round(model.info['minutes'], 1):g} minutes in {model.info['trained_in']}"
    return {
        "data": data.name,
        "training": f"tiny, {spent}, {len(model.info['cases'])} cases, {model.info['iterations']} steps",
        "spacing_mm": list(model.task.spacing),
        "window": list(model.task.roi_size),
        "with_air": {"dice": air.dice, "seconds": air.seconds},
        **tuned.to_dict(),
    }


def _times(preset: str, shape: str) -> dict[str, Any]:
    """Measure each step on the generated CT."""
    load = [round(each, 2) for each in os.getloadavg()]
    x, y, z = (int(side) for side in shape.split(","))
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        image, model = write_ct(Path(scratch) / "ct.nii.gz", (x, y, z), _SPACING), Path(scratch) / "base.pt"
        torch.manual_seed(0)
        network = build_network(preset_config(preset, 1, _TASK.out_channels, _TASK.roi_size)).eval()
        save_checkpoint(model, network, _TASK, {"version": "random weights"})
        for step in _STEPS:
            child = [sys.executable, __file__, "--one", str(image), str(model), step]
            done = subprocess.run(child, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{step}:\n{done.stderr}")
            rows[step] = json.loads(done.stdout.splitlines()[-1])
            print(step, rows[step], flush=True)
    plain = next(row["seconds"] for step, row in rows.items() if "plainly" in step)
    return {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load_before": load,
        "voxels": [x, y, z],
        "voxel_mm": _SPACING,
        "preset": preset,
        "classes": _TASK.out_channels,
        "task_mm": list(_TASK.spacing),
        "window": list(_TASK.roi_size),
        "by_step": {step: {**row, "times_as_fast": round(plain / row["seconds"], 2)} for step, row in rows.items()},
    }


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in the decathlon's layout; without it no Dice is measured")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training; default 4")
    parser.add_argument("--spacing", type=float, default=4.0, help="of the trained task, in mm; default 4")
    parser.add_argument("--window", type=int, default=64, help="of the trained task, in voxels; default 64")
    parser.add_argument("--precision", choices=PRECISIONS, default=AUTO, help="of its training")
    parser.add_argument("--held-out", type=int, default=12, help="cases to measure on; default 12")
    parser.add_argument("--model", type=Path, help="keep the trained model here, or take the one that is here")
    parser.add_argument("--only-dice", action="store_true", help="keep the times that are in --output")
    parser.add_argument("--preset", default="base")
    parser.add_argument("--shape", default="512,512,400", help="voxels, by comma")
    parser.add_argument("--output", type=Path, default=Path("docs/results/predict_speed.json"))
    parser.add_argument("--one", nargs=3, metavar=("IMAGE", "MODEL", "STEP"), help="measure this alone, and print it")
    options = parser.parse_args()
    if options.one:
        image, model, step = options.one
        print(json.dumps(_measure(Path(image), Path(model), _STEPS[step])))
        return
    result = json.loads(options.output.read_text()) if options.only_dice else _times(options.preset, options.shape)
    write_result(options.output, result)
    if options.data:
        with tempfile.TemporaryDirectory() as scratch:
            dice = _dice(options, options.model or Path(scratch) / "model.pt")
        write_result(options.output, {**result, "dice": {"command": command(), **dice}})


if __name__ == "__main__":
    main()
