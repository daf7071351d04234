"""How long the server takes to start, beside a bare MONAI Label server, and to segment one small volume over HTTP.

Run ``python benchmarks/server.py [--runs N] [--starts-only] [--output FILE]`` in the project's environment. Starting
times are taken in turn (bare, ours, bare, ours ...), because machines drift; the ratio of the medians is what counts.
The model has random weights: time does not depend on what they are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import nibabel as nib
import numpy as np
import torch
from measuring import command, machine, write_result

from rep3d.checkpoint import save_checkpoint
from rep3d.demo.checkout import APP, import_client_path
from rep3d.demo.server import ServerProcess
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import TaskConfig

import_client_path()
from Rep3DLabelLib.client import Rep3DClient  # noqa: E402

_SHAPE = (36, 50, 35)
_EMPTY_APP = """
from monailabel.interfaces.app import MONAILabelApp


class EmptyApp(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        super().__init__(app_dir, studies, conf, name="Empty")
"""


def _studies(folder: Path) -> Path:
    folder.mkdir(parents=True)
    voxels = np.random.default_rng(0).normal(100, 30, _SHAPE).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "volume.nii.gz")
    return folder


def _seconds_to_first_answer(app: Path, studies: Path, log: Path, conf: dict[str, str]) -> float:
    started = time.perf_counter()
    with ServerProcess(studies, log, conf=conf, app=app) as server:
        server.wait_until(server.answers, pause=0.05)
        return time.perf_counter() - started


def _start_times(folder: Path, runs: int) -> dict[str, list[float]]:
    empty = folder / "empty_app"
    empty.mkdir()
    (empty / "main.py").write_text(_EMPTY_APP)
    times: dict[str, list[float]] = {"bare": [], "rep3d_label": []}
    for run in range(runs + 1):  # the first of each warms the disk's cache and is not counted
        bare = _seconds_to_first_answer(empty, _studies(folder / f"bare_{run}"), folder / "bare.log", {})
        ours = _seconds_to_first_answer(APP, _studies(folder / f"ours_{run}"), folder / "ours.log", {"labels": "a,b"})
        if run:
            times["bare"].append(bare)
            times["rep3d_label"].append(ours)
    return times


def _infer_times(folder: Path, runs: int) -> list[float]:
    studies = _studies(folder / "infer")
    task = TaskConfig("benchmark", {"a": 1, "b": 2}, roi_size=(48, 64, 48))
    network = build_network(preset_config("tiny", 1, 3))
    save_checkpoint(studies / "rep3d" / "published.pt", network, task, {"version": "v1"})
    with ServerProcess(studies, folder / "infer.log") as server:
        client = Rep3DClient(server.url)
        server.wait_until(client.is_alive)
        times = []
        for _ in range(runs + 2):
            started = time.perf_counter()
            client.infer("volume", folder)
            times.append(time.perf_counter() - started)
    return times[2:]


def main() -> None:
    """Measure, print and, if asked, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--starts-only", action="store_true", help="do not segment")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    load = [round(each, 2) for each in os.getloadavg()]
    with tempfile.TemporaryDirectory() as name:
        starts = _start_times(Path(name), arguments.runs)
        infers = [] if arguments.starts_only else _infer_times(Path(name), max(arguments.runs, 10))
    medians = {key: statistics.median(values) for key, values in starts.items()}
    result: dict[str, Any] = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load_before": load,
        "start_to_first_answer_seconds": {k: [round(v, 2) for v in values] for k, values in starts.items()},
        "start_ratio_of_medians": round(medians["rep3d_label"] / medians["bare"], 3),
    }
    if infers:
        result["segment_36x50x35_over_http_warm_seconds"] = [round(v, 3) for v in infers]
        result["segment_median_seconds"] = round(statistics.median(infers), 3)
    print(json.dumps(result, indent=1))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
