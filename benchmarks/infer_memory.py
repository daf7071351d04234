"""How much memory a large CT takes in inference: 512 x 512 x 700 voxels, 13 labels, one stage and two, on a CPU.

    python benchmarks/infer_memory.py [--output FILE]

The CT is generated (`ct_phantom`). The networks have random weights; as all windows take the same memory, only every
25th batch of them is really computed, the first one included. ``organs`` answers with the generated organs, as a
trained network might, ``everything`` takes all of the body for a label, so that the fine stage looks everywhere: the
most that a version can take. Each is measured in a process of its own, from before the image is read to its written
label map, as the peak of resident memory (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import command, extra_memory, machine, write_result
from parts.ct_phantom import LABELS, WINDOW, Rule, write_ct

from rep3d.checkpoint import Checkpoint
from rep3d.inference.engines import TorchEngine
from rep3d.inference.predictor import Predictor
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import Intensity, TaskConfig

_SHAPE, _SPACING = (512, 512, 700), (0.8, 0.8, 1.0)
_COARSE_MM, _FINE_MM = 4.0, 1.5
_EVERY = 25  # batches of windows


class _Everything(Rule):
    """Takes all that is not air for the first label, and in half of it for the second."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows to logits."""
        logits = super().forward(windows)
        logits[:, 1] = torch.where(windows[:, 0] > 0, logits.amax(1) + 3, logits[:, 1])
        return logits


def _predictor(stages: int, rule: type[Rule]) -> Predictor:
    def checkpoint(spacing: float, channels: int) -> Checkpoint:
        task = TaskConfig("benchmark", LABELS, (spacing,) * 3, Intensity("window", *WINDOW), "RAS", (96, 96, 96))
        network = build_network(preset_config("tiny", channels, task.out_channels, task.roi_size))
        return Checkpoint(network.eval(), task)

    fine = checkpoint(_FINE_MM, len(LABELS) + 1)
    version = checkpoint(_COARSE_MM, 1) if stages == 2 else checkpoint(_FINE_MM, 1)
    predictor = Predictor(Checkpoint(version.model, version.task, {}, fine if stages == 2 else None), "cpu", "torch")
    predictor.engine = TorchEngine(rule(predictor.model, _EVERY))
    if predictor.fine is not None:
        predictor.fine.engine = TorchEngine(rule(predictor.fine.model, _EVERY))
    return predictor


def _measure(image: Path, stages: int, answer: str) -> dict[str, Any]:
    torch.manual_seed(0)
    predictor = _predictor(stages, _Everything if answer == "everything" else Rule)
    found: dict[str, Any] = {}

    def segment() -> None:
        result = predictor.segment(image, image.with_name("found.nii.gz"))
        found["stage"], found["labels_found"] = result.stage, sum(volume > 0 for volume in result.volumes_ml.values())

    found["peak_mb"] = round(extra_memory(segment, torch.device("cpu")))
    return found


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs/results/memory_infer.json"))
    parser.add_argument("--shape", default="512,512,700", help="voxels, by comma")
    parser.add_argument(
        "--one", nargs=3, metavar=("IMAGE", "STAGES", "ANSWER"), help="measure this alone, and print it"
    )
    options = parser.parse_args()
    if options.one:
        image, stages, answer = options.one
        print(json.dumps(_measure(Path(image), int(stages), answer)))
        return
    x, y, z = (int(side) for side in options.shape.split(","))
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        image = write_ct(Path(scratch) / "ct.nii", (x, y, z), _SPACING)
        for stages, answer in (("2", "everything"), ("2", "organs"), ("1", "organs")):
            child = [sys.executable, __file__, "--one", str(image), stages, answer]
            done = subprocess.run(child, capture_output=True, text=True, check=True)
            found[f"{stages} stages, {answer}"] = json.loads(done.stdout.splitlines()[-1])
            print(stages, answer, done.stdout.splitlines()[-1])
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "voxels": [x, y, z],
        "voxel_mm": _SPACING,
        "labels": len(LABELS),
        "coarse_mm": _COARSE_MM,
        "fine_mm": _FINE_MM,
        "found": found,
    }
    write_result(options.output, result)


if __name__ == "__main__":
    main()
