"""A CT of 512 x 512 x 700 voxels with 13 labels: what its preparation, a training step and a validation take.

    python benchmarks/memory.py --output docs/results/memory.json
    python benchmarks/memory.py --patches --output docs/results/patch_memory.json

The second command measures training steps of one patch alone, beside what `rep3d plan` works out for them. The weights
were there before them, so what the steps take is the peak less what was held before, and the weights themselves.

Memory is what the process holds by itself (``RssAnon`` of Linux), looked at every 20 ms; pages of mapped files are the
system's to take back. The windows of the validation go through one convolution in place of the network, whose own
memory the training step shows.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import torch
from measuring import command, machine, write_result
from rich.console import Console

from rep3d.data.cases import Case
from rep3d.nn.single import for_single_patches
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.minutes.step_memory import step_memory
from rep3d.training.settings import TrainProgress
from rep3d.training.train import TrainSettings, train
from rep3d.training.validation import Validator, as_drawn
from rep3d.training.volumes.store import volume_store

SHAPE = (512, 512, 700)
LABELS = {f"organ {number}": number for number in range(1, 14)}
CT = TaskConfig("ct", LABELS, (0.8, 0.8, 0.8), Intensity("window", -125, 275))
MR = TaskConfig("mr", LABELS, (0.8, 0.8, 0.8), Intensity("zscore", 0.5, 99.5))
FINER = TaskConfig("finer", LABELS, (0.75, 0.75, 0.75), Intensity("zscore", 0.5, 99.5))
COARSE = TaskConfig("coarse", LABELS, (4.0, 4.0, 4.0), Intensity("window", -125, 275))


def generated(folder: Path) -> Case:
    """Return a case of noise with 13 boxes, each half as long as the one before or more."""
    random = np.random.default_rng(0)
    image = random.integers(-1000, 1000, SHAPE, dtype=np.int16)
    label = np.zeros(SHAPE, np.uint8)
    for number in LABELS.values():
        side = 120 - 8 * number
        corner = random.integers(0, np.array(SHAPE) - side)
        label[tuple(slice(start, start + side) for start in corner)] = number
    affine = np.diag([0.8, 0.8, 0.8, 1.0])
    case = Case("ct", folder / "image.nii.gz", folder / "label.nii.gz")
    nib.openers.Opener.default_compresslevel = 1
    nib.save(nib.Nifti1Image(image, affine), case.image)
    nib.save(nib.Nifti1Image(label, affine), case.label)
    return case


def measured(run: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds that something takes, and the most memory in GB that the process held meanwhile."""
    highest, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            highest[0] = max(highest[0], *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))

    watch = threading.Thread(target=look)
    watch.start()
    started = time.perf_counter()
    try:
        run()
    finally:
        ended.set()
        watch.join()
    return {"seconds": round(time.perf_counter() - started, 2), "peak_gb": round(highest[0] * 1024 / 1e9, 2)}


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
    """Measure each in a process of its own: what one took is not given back to the system at once."""
    found = {}
    for preset, side in (("tiny", 64), ("tiny", 96), ("segresnet", 64)):
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            found[f"{preset} {side}"] = alone.submit(one_step, preset, side).result()
    return found


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--patches", action="store_true", help="training steps of one patch alone")
    options = parser.parse_args()
    found: dict[str, Any] = patches() if options.patches else whole_image()
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load": [round(load, 1) for load in os.getloadavg()],
        **({} if options.patches else {"shape": SHAPE}),
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
