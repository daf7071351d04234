"""Rep3D Label beside MONAI Label's own radiology app (model ``segmentation``, SegResNet) on one machine, over HTTP.

    python benchmarks/radiology.py --data HIPPOCAMPUS --radiology-python .radiology/bin/python --work out/radiology \\
        --output docs/results/radiology.json

Learning online: both apps get the same cases, 8 at first, then up to 16, then up to 32, and after each the same minutes
to train, counted from the request to the published model; then each segments 40 others, which no server ever held. The
apps take turns, one at a time on the machine: ours at 8 cases, theirs at 8, ours at 16 ... A run that was interrupted
goes on where it was with the same ``--work``.

Serving: what a request takes beyond the network's own time, on a small and a large volume, with random weights: time
does not depend on what they are. The environment of the radiology app is one of its own
(``benchmarks/radiology_requirements.txt``).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import torch
from measuring import machine, write_result
from radiology_parts.app import AppChanges, versions_of
from radiology_parts.learning import Learning
from radiology_parts.systems import Ours, Radiology, System
from rich.console import Console
from rich.table import Table

from rep3d.data.cohort import decathlon_cohort

OURS, THEIRS, AS_DELIVERED = "rep3d_label", "radiology", "radiology_as_delivered"
_CT_SPACING = (0.8, 0.8, 1.0)
# Of both apps in the serving part: the radiology app's own values for CT, and those for the small images.
_LARGE_GRID: tuple[tuple[float, float, float], tuple[int, int, int]] = ((1.5, 1.5, 1.5), (96, 96, 96))
_SMALL_GRID: tuple[tuple[float, float, float], tuple[int, int, int]] = ((1.0, 1.0, 1.0), (48, 64, 48))


def numbers(text: str) -> tuple[int, ...]:
    """Read ``8,16,32`` or ``512x512x300``."""
    return tuple(int(part) for part in text.replace("x", ",").split(","))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="data set in the decathlon's layout (imagesTr, labelsTr, dataset.json)"
    )
    parser.add_argument("--parts", default="learning,serving", help="learning, serving or both")
    parser.add_argument("--only", choices=(OURS, THEIRS, AS_DELIVERED), help="one app alone")
    parser.add_argument("--as-delivered", action="store_true", help="the radiology app unchanged too, as a third")
    parser.add_argument("--cases", type=numbers, default=(8, 16, 32), help="submitted cases at each training")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=4.0, help="for each training")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cases, and of our trainings")
    parser.add_argument("--radiology-python", type=Path, help="python of the environment with the radiology app")
    parser.add_argument("--radiology-app", type=Path, help="the app's folder; default: as installed with monailabel")
    parser.add_argument("--radiology-spacing", type=float, default=1.0, help="its voxel size in mm (learning)")
    parser.add_argument("--radiology-roi", type=numbers, default=_SMALL_GRID[1], help="its patch in voxels (learning)")
    parser.add_argument("--radiology-learning-rate", type=float, help="default: its own, 1e-4")
    parser.add_argument("--small", type=numbers, default=(36, 50, 35), help="voxels of the small volume (serving)")
    parser.add_argument("--large", type=numbers, default=(512, 512, 300), help="voxels of the large volume (serving)")
    parser.add_argument("--labels", type=int, default=2, help="labels of the model (serving)")
    parser.add_argument("--runs", type=int, default=10, help="requests for the small volume (serving)")
    parser.add_argument("--large-runs", type=int, default=1, help="requests for the large volume (serving)")
    parser.add_argument(
        "--work", type=Path, help="folder for servers, logs and segmentations; default: a temporary one"
    )
    parser.add_argument("--output", type=Path, help="result file")
    found = parser.parse_args(arguments)
    if found.radiology_python is None and found.only != OURS:
        parser.error("--radiology-python: expected the python of an environment with the radiology app; see --help")
    if found.data is None and "learning" in found.parts:
        parser.error("--data: expected a folder with the data set")
    if found.radiology_python:  # a link must stay one: it tells Python its environment
        found.radiology_python = found.radiology_python.absolute()
    return found


def make_systems(
    arguments: argparse.Namespace, folder: Path, labels: dict[str, int], changes: AppChanges
) -> list[System]:
    """Return the apps to compare, ours first: the others get at least the time that it took."""
    python, source = arguments.radiology_python, arguments.radiology_app
    systems: list[System] = [Ours(OURS, folder / OURS, labels)]
    if python:
        systems.append(Radiology(THEIRS, folder / THEIRS, labels, python, source, changes))
        if arguments.as_delivered or arguments.only == AS_DELIVERED:
            systems.append(Radiology(AS_DELIVERED, folder / AS_DELIVERED, labels, python, source, AppChanges()))
    return [system for system in systems if arguments.only in (None, system.name)]


def measure_learning(arguments: argparse.Namespace, work: Path, console: Console) -> dict[str, Any]:
    """Dice on the held-out cases after each number of submitted ones."""
    cohort = decathlon_cohort(arguments.data, max(arguments.cases), arguments.held_out, arguments.seed)
    spacing = arguments.radiology_spacing
    changes = AppChanges((spacing,) * 3, arguments.radiology_roi, arguments.radiology_learning_rate)
    systems = make_systems(arguments, work, cohort.labels, changes)
    settings = {"minutes": arguments.minutes, "seed": arguments.seed, "held_out": arguments.held_out}
    settings |= {"changes": str(changes), "data": cohort.name}
    learning = Learning(cohort, systems, arguments.cases, settings, work / "learning.json", OURS, console)
    return learning.run()


def _volume(path: Path, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> None:
    """Write a smooth blob in noise, as 16-bit integers like a scanner's."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in shape), indexing="ij", sparse=True)
    blob = 600 * np.exp(-3 * sum(axis**2 for axis in axes))
    noise = np.random.default_rng(0).normal(0, 20, shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image((blob + noise).astype(np.int16), np.diag([*spacing, 1.0])), path)


def measure_serving(arguments: argparse.Namespace, work: Path, console: Console) -> dict[str, Any]:
    """Return what a request takes beyond the network's own time, for each volume and app."""
    labels = {f"organ_{value}": value for value in range(1, arguments.labels + 1)}
    result: dict[str, Any] = {"labels": len(labels)}
    volumes = (
        (arguments.small, (1.0, 1.0, 1.0), _SMALL_GRID, arguments.runs),
        (arguments.large, _CT_SPACING, _LARGE_GRID, arguments.large_runs),
    )
    for shape, spacing, grid, runs in volumes:
        name = "x".join(str(side) for side in shape)
        found: dict[str, Any] = {"voxel_mm": spacing, "network_voxel_mm": grid[0], "patch": grid[1]}
        for system in make_systems(arguments, work / f"serving_{name}", labels, AppChanges(*grid)):
            _volume(system.studies / "volume.nii.gz", shape, spacing)
            _volume(system.studies / "warm_up.nii.gz", _SMALL_GRID[1], spacing)
            system.use_random_weights(*grid)
            with system.served() as server:
                for _ in range(2):
                    server.segment(image_id="warm_up")
                answers = [server.segment(image_id="volume") for _ in range(runs)]
            overheads = [answer.overhead(system.network_time) for answer in answers]
            found[system.name] = {
                "overhead_seconds": [round(value, 3) for value in overheads],
                "overhead_median": round(statistics.median(overheads), 3),
                "request_median": round(statistics.median(answer.seconds for answer in answers), 3),
                "latencies_of_last": {k: v for k, v in answers[-1].params["latencies"].items() if k != "transform"},
            }
            console.print(f"{name} {system.name}: overhead {found[system.name]['overhead_median']} s")
        if OURS in found and THEIRS in found:
            found["overhead_ratio"] = round(found[OURS]["overhead_median"] / found[THEIRS]["overhead_median"], 3)
        result[name] = found
    return result


def show(result: dict[str, Any], console: Console) -> None:
    """Print the two tables."""
    learning, serving = result.get("learning"), result.get("serving")
    if learning:
        table = Table(
            "cases", "app", "training s", "Dice", "per label", "ours - theirs", "95 %", "ours better in", "ratio"
        )
        for step in learning["steps"]:
            beside = learning["beside"].get(str(step["cases"]), {}).get(step["system"], {})
            labels = ", ".join(f"{name} {value:.3f}" for name, value in step["dice_per_label"].items())
            shown = [str(beside[name]) for name in ("difference", "interval_95", "ours_better_in", "ratio") if beside]
            seconds, dice = f"{step['training_seconds']:.0f}", f"{step['dice']:.3f}"
            table.add_row(str(step["cases"]), step["system"], seconds, dice, labels, *shown)
        console.print(table)
    if serving:
        table = Table("volume", "app", "request s", "overhead s")
        for name, found in serving.items():
            for system in (OURS, THEIRS, AS_DELIVERED):
                if isinstance(found, dict) and system in found:
                    row = found[system]
                    table.add_row(name, system, str(row["request_median"]), str(row["overhead_median"]))
        console.print(table)


def main() -> None:
    """Measure, print and, if asked, write the result."""
    arguments = parse_arguments()
    # Ends as on Ctrl-C, so that no server, and no training without an end, is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        settings = {key: value for key, value in vars(arguments).items() if not isinstance(value, Path)}
        result: dict[str, Any] = {"machine": machine(torch.device("cpu")), "arguments": settings}
        if arguments.radiology_python:
            result["radiology_environment"] = versions_of(arguments.radiology_python)
        if "learning" in arguments.parts:
            result["learning"] = measure_learning(arguments, work, console)
        if "serving" in arguments.parts:
            result["serving"] = measure_serving(arguments, work, console)
    show(result, console)
    if arguments.output:
        write_result(arguments.output, result)
    else:
        console.print_json(json.dumps(result))


if __name__ == "__main__":
    main()
