"""A training on generated CTs for some minutes: steps, what a step takes, memory.

    python benchmarks/training.py --device cuda --preset base --minutes 2 --output docs/results/gpu_training.json

The cases are `rep3d demo`'s phantoms; patches are 96^3, so that a step is that of a large organ task. What is learned
does not matter here, but that the loss falls is part of the result.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import add_gpu_options, command, machine, set_up_gpu, write_result

from rep3d.data.phantoms import generate_cohort
from rep3d.tasks.dataset_json import labels_from_dataset_json
from rep3d.training.precision import MixedPrecision
from rep3d.training.train import TrainProgress, TrainSettings, task_for_cases, train


def main() -> None:
    """Train, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--preset", default="base")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--iterations", type=int, default=100_000, help="at most")
    parser.add_argument("--side", type=int, default=96, help="of the patches, in voxels")
    parser.add_argument("--crops", type=int, default=2, help="patches of a step; the paper takes 2")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--output", type=Path)
    add_gpu_options(parser)
    options = parser.parse_args()
    gpu = set_up_gpu(options)
    steps: list[tuple[float, float]] = []  # when a step was done, and the loss
    memory: list[float] = []

    def note(progress: TrainProgress) -> None:
        memory.append(progress.memory_mb or 0.0)
        if progress.phase == "training" and progress.loss is not None:
            steps.append((time.perf_counter(), progress.loss))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = generate_cohort(folder, options.cases)
        labels = labels_from_dataset_json(folder / "dataset.json")
        task = task_for_cases("phantoms", labels, [case.image for case in cases], roi_size=(options.side,) * 3)
        settings = TrainSettings(
            options.iterations,
            options.minutes,
            crops=options.crops,
            preset=options.preset,
            device=str(options.device),
        )
        info = train(cases, task, settings, folder / "model.pt", on_progress=note).info
    apart = [1e3 * (later[0] - earlier[0]) for earlier, later in zip(steps, steps[1:], strict=False)]
    result = {
        "command": command(),
        "machine": machine(options.device),
        **gpu,
        "bfloat16": MixedPrecision(options.device).precision == "bfloat16",
        "preset": options.preset,
        "parameters": info["parameters"],
        "patches": [options.crops, *task.roi_size],
        "steps": info["iterations"],
        "minutes": round(info["minutes"], 3),
        "step_ms": {"median": statistics.median(apart), "best": min(apart)} if apart else None,
        "peak_mb": round(max(memory)),
        "loss": {"first": steps[0][1], "last": steps[-1][1]},
    }
    print(result)
    if options.output:
        write_result(options.output, result)


if __name__ == "__main__":
    main()
