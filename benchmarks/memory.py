"""A CT of 512 x 512 x 700 voxels with 13 labels: what its preparation, a training step and a validation take.

    python benchmarks/memory.py --output docs/results/memory.json
    python benchmarks/memory.py --patches --output docs/results/patch_memory.json
    python benchmarks/memory.py --validations --output docs/results/validation.json

The second command measures training steps of one patch alone, beside what `rep3d plan` works out for them. The weights
were there before them, so what the steps take is the peak less what was held before, and the weights themselves. The
third one measures what a validation takes and says on the images' own voxels, beside the same on the task's grid.

Memory is what the process holds by itself (``RssAnon`` of Linux), looked at every 20 ms; pages of mapped files are the
system's to take back. The windows of the validation go through one convolution in place of the network, whose own
memory the training step shows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import torch
from measuring import alone, command, held_gb, machine, write_result
from rich.console import Console

from rep3d.data.cases import Case
from rep3d.data.phantoms import LABELS as PHANTOM_LABELS
from rep3d.data.phantoms import generate_cohort
from rep3d.evaluation.metrics import mean_dice
from rep3d.inference.streaming import slab_axis
from rep3d.nn.single import for_single_patches
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.minutes.step_memory import step_memory
from rep3d.training.settings import TrainProgress
from rep3d.training.train import TrainSettings, train
from rep3d.training.validation import DrawnCase, Validator, as_drawn
from rep3d.training.volumes.prepared import Prepared, make_ready
from rep3d.training.volumes.store import volume_store

SHAPE = (512, 512, 700)
LABELS = {f"organ {number}": number for number in range(1, 14)}
CT = TaskConfig("ct", LABELS, (0.8, 0.8, 0.8), Intensity("window", -125, 275))
MR = TaskConfig("mr", LABELS, (0.8, 0.8, 0.8), Intensity("zscore", 0.5, 99.5))
FINER = TaskConfig("finer", LABELS, (0.75, 0.75, 0.75), Intensity("zscore", 0.5, 99.5))
COARSE = TaskConfig("coarse", LABELS, (4.0, 4.0, 4.0), Intensity("window", -125, 275))


def generated(
    folder: Path, shape: tuple[int, ...] = SHAPE, spacing: tuple[float, ...] = CT.spacing, seed: int = 0
) -> Case:
    """Return a case of noise with 13 boxes, each half as long as the one before or more."""
    random = np.random.default_rng(seed)
    image = random.integers(-1000, 1000, shape, dtype=np.int16)
    label = np.zeros(shape, np.uint8)
    for number in LABELS.values():
        side = 120 - 8 * number
        corner = random.integers(0, np.array(shape) - side)
        label[tuple(slice(start, start + side) for start in corner)] = number
    affine = np.diag([*spacing, 1.0])
    case = Case(f"ct{seed}", folder / f"image{seed}.nii.gz", folder / f"label{seed}.nii.gz")
    nib.openers.Opener.default_compresslevel = 1
    nib.save(nib.Nifti1Image(image, affine), case.image)
    nib.save(nib.Nifti1Image(label, affine), case.label)
    return case


def measured(run: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds that something takes, and the most memory in GB that the process held meanwhile."""
    highest, ended = [0.0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            highest[0] = max(highest[0], held_gb())

    watch = threading.Thread(target=look)
    watch.start()
    started = time.perf_counter()
    try:
        run()
    finally:
        ended.set()
        watch.join()
    return {"seconds": round(time.perf_counter() - started, 2), "peak_gb": round(highest[0], 2)}


def prepared(case: Case, task: TaskConfig, folder: Path) -> dict[str, float]:
    """Measure a preparation for a task."""

    def run() -> None:
        with volume_store(folder, task, (), True) as volumes:
            volumes.get(case)

    return measured(run)


def steps(case: Case, folder: Path, preset: str) -> dict[str, Any]:
    """Measure three training steps on the kept volume, and how long the first one takes to begin."""
    first: list[float] = []
    begun = time.perf_counter()

    def on_progress(progress: TrainProgress) -> None:
        if progress.phase == "training" and not first:
            first.append(time.perf_counter() - begun)

    def run() -> None:
        settings = TrainSettings(iterations=3, preset=preset, device="cpu")
        train([case], CT, settings, folder.parent / "model.pt", on_progress=on_progress, prepared=folder)

    found: dict[str, Any] = measured(run)
    return {**found, "first_step_after_seconds": round(first[0], 2)}


def validation(case: Case, folder: Path) -> dict[str, float]:
    """Measure a validation on the kept volume."""
    network = torch.nn.Conv3d(1, len(LABELS) + 1, 1)

    def run() -> None:
        with volume_store(folder, CT, (), True) as volumes:
            validator = Validator([as_drawn(case, volumes.get(case), CT, 16)], CT, torch.device("cpu"))
            validator.measure(network, lambda window, net: net(window), lambda: None)

    return measured(run)


def one_step(preset: str, side: int) -> dict[str, float]:
    """Measure two training steps on a patch of noise in this process, and what it held before them."""
    network = for_single_patches(build_network(preset_config(preset, 1, len(LABELS) + 1, (side,) * 3))).train()
    optimizer = torch.optim.AdamW(network.parameters())
    patch = torch.rand(1, 1, side, side, side)
    target = torch.zeros_like(patch[:, 0], dtype=torch.long)

    def run() -> None:
        for _ in range(2):
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(network(patch), target).backward()
            optimizer.step()

    before = measured(lambda: time.sleep(0.1))["peak_gb"]
    worked_out = round(step_memory(preset, 1, len(LABELS) + 1).of((side,) * 3) / 1e9, 2)
    return {**measured(run), "before_gb": before, "worked_out_gb": worked_out}


def patches() -> dict[str, dict[str, float]]:
    """Measure each in a process of its own."""
    kinds = (("tiny", 64), ("tiny", 96), ("segresnet", 64))
    return {f"{preset} {side}": alone(one_step, preset, side) for preset, side in kinds}


def organs(folder: Path, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Case:
    """Return a case with 13 balls whose grey value tells the label."""
    random = np.random.default_rng(0)
    image = random.integers(-20, 20, shape, dtype=np.int16)
    label = np.zeros(shape, np.uint8)
    mm = np.array(shape) * spacing
    for number in LABELS.values():
        radius = min(60 - 4 * number, mm.min() / 3)
        middle = random.uniform(radius, mm - radius)
        first = np.ceil((middle - radius) / spacing).astype(int)
        box = tuple(slice(a, b) for a, b in zip(first, ((middle + radius) / spacing).astype(int), strict=True))
        inside = sum(
            ((np.arange(part.start, part.stop) * side - at).reshape([-1 if a == axis else 1 for a in range(3)])) ** 2
            for axis, (part, side, at) in enumerate(zip(box, spacing, middle, strict=True))
        )
        label[box][inside < radius**2] = number
    image += 100 * label.astype(np.int16)
    case = Case("organs", folder / "organs_image.nii.gz", folder / "organs_label.nii.gz")
    nib.openers.Opener.default_compresslevel = 1
    for values, file in ((image, case.image), (label, case.label)):
        nib.save(nib.Nifti1Image(values, np.diag([*spacing, 1.0])), file)
    return case


def on_task_grid(case: DrawnCase, ready: Prepared, task: TaskConfig) -> DrawnCase:
    """Return a case that is measured on the task's grid, as validations were before."""
    values = np.array([0, *task.label_values], np.uint8)[ready.label]
    along = slab_axis(case.seen, case.window, case.seen) or 0
    planes = [zlib.compress(np.ascontiguousarray(plane).data, 1) for plane in np.moveaxis(values, along, 0)]
    return replace(case, grid=case.seen, along=along, planes=planes, kind=values.dtype)


def both_grids(
    cases: list[Case], task: TaskConfig, network: torch.nn.Module, run: Callable[..., torch.Tensor]
) -> dict[str, Any]:
    """Measure a validation on the images' own voxels and on the task's grid, in turns, the faster of two each.

    Seconds are those of the process, as other work makes those of a clock longer.
    """
    drawn = [(ready := make_ready(case, task), as_drawn(case, ready, task, network.stride)) for case in cases]
    kinds = {
        "own voxels": [each for _, each in drawn],
        "task's grid": [on_task_grid(each, ready, task) for ready, each in drawn],
    }
    found: dict[str, Any] = {"task_grid": drawn[0][1].seen.shape, "own_grid": drawn[0][1].grid.shape}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(2):
        for name, each in kinds.items():
            validator = Validator(each, task, torch.device("cpu"))
            started = time.process_time()
            scores = validator.measure(network, run, lambda: None)
            seconds[name].append(time.process_time() - started)
            found[name] = {"mean_dice": round(mean_dice(scores), 4)}
    for name, measured_seconds in seconds.items():
        found[name]["cpu_seconds"] = round(min(measured_seconds), 2)
    found["read_and_pack_seconds"] = round(sum(each.seconds for _, each in drawn), 2)
    return found


def validations() -> dict[str, Any]:
    """Measure what validations take at several voxel sizes, and what they say of a model trained on phantoms."""
    network = for_single_patches(build_network(preset_config("tiny", 1, len(LABELS) + 1, (96,) * 3))).train()

    def told_by_grey(window: torch.Tensor, net: torch.nn.Module) -> torch.Tensor:
        net(window)  # for its time; an untrained network's labels would be noise
        return torch.stack([-10 * (window[:, 0] * 13 - number) ** 2 for number in range(14)], 1)

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rep3d-validations-") as name:
        folder = Path(name)
        grey = Intensity("window", 0, 1300)
        for shape, spacing, voxel, patch in (
            ((512, 512, 100), (0.8, 0.8, 2.5), 6.0, (80, 80, 48)),
            ((512, 512, 100), (0.8, 0.8, 2.5), 4.0, (64, 64, 64)),
        ):
            task = TaskConfig("ct", LABELS, (voxel,) * 3, grey, "RAS", patch)
            case = organs(folder, shape, spacing)
            key = f"{shape} voxels of {spacing} mm, task {voxel:g} mm"
            found[key] = both_grids([case], task, network, told_by_grey)
        cases = generate_cohort(folder / "phantoms", 10, seed=3)
        for voxel, side in ((4.0, 32), (2.0, 48)):
            scale = Intensity("zscore", 0.5, 99.5)
            task = TaskConfig("phantoms", PHANTOM_LABELS, (voxel,) * 3, scale, "RAS", (side,) * 3)
            settings = TrainSettings(iterations=100, preset="tiny", device="cpu")
            trained = train(cases[:6], task, settings, folder / "model.pt").model.train()
            found[f"phantoms, task {voxel:g} mm"] = both_grids(
                cases[6:], task, trained, lambda window, net: net(window)
            )
    return found


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--patches", action="store_true", help="training steps of one patch alone")
    parser.add_argument("--validations", action="store_true", help="validations on both grids")
    options = parser.parse_args()
    measure = validations if options.validations else patches if options.patches else whole_image
    found: dict[str, Any] = measure()
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load": [round(load, 1) for load in os.getloadavg()],
        **({} if options.patches or options.validations else {"shape": SHAPE}),
        "labels": len(LABELS),
        "measured": found,
    }
    Console().print_json(data=result)
    if options.output is not None:
        write_result(options.output, result)


def whole_image() -> dict[str, Any]:
    """Generate the image, and measure what is done with it."""
    folder = Path(tempfile.mkdtemp(prefix="rep3d-memory-"))
    try:
        case, kept = generated(folder), folder / "kept"
        return {
            "prepare, window": prepared(case, CT, kept),
            "prepare, percentiles": prepared(case, MR, kept),
            "prepare, percentiles, finer voxels": prepared(case, FINER, kept),
            "prepare, 4 mm": prepared(case, COARSE, kept),
            "kept, opened again": prepared(case, CT, kept),
            "3 steps, tiny": steps(case, kept, "tiny"),
            "validation": validation(case, kept),
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
