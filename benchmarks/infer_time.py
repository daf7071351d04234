"""How long the segmentation of a whole CT takes, from file to file, and where the time goes.

    python benchmarks/infer_time.py [--preset tiny] [--spacing 4] [--device cpu] [--output FILE]

The CTs are generated (`ct_phantom`): 256 x 256 x 150 and 512 x 512 x 400 voxels, as compressed NIfTI. The network has
random weights and its own arithmetic; the label map that it is said to have found is that of the generated organs.
Labels are 13. Each CT is segmented twice; the second run counts, as on a server that has its network loaded.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import command, machine, write_result
from parts.ct_phantom import LABELS, WINDOW, Rule, write_ct

from rep3d.checkpoint import Checkpoint
from rep3d.inference import predictor as module
from rep3d.inference.engines import TorchEngine
from rep3d.inference.predictor import Predictor
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import Intensity, TaskConfig

_SIZES = {
    "256x256x150": ((256, 256, 150), (1.5, 1.5, 3.0)),
    "512x512x400": ((512, 512, 400), (0.8, 0.8, 1.25)),
    "96x96x64": ((96, 96, 64), (4.0, 4.0, 6.0)),
}
_STEPS = {
    "read and unpack": (module.ImageSteps, "read"),
    "resample": (module.ImageSteps, "spaced"),
    "find the body": (module, "body_mask"),
    "first look": (module, "worth_computing"),
    "scale": (module.ImageSteps, "scaled"),
    "network": (module.Predictor, "_mean"),
    "decide on the image's voxels": (module, "decide"),
    "entropy": (module, "voxel_entropy"),
    "pack and write": (module, "write_label"),
}


@contextmanager
def timed_steps(seconds: dict[str, float]) -> Iterator[None]:
    """Add up what the steps of a segmentation take."""

    def timing(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **settings: Any) -> Any:
            started = time.perf_counter()
            try:
                return run(*arguments, **settings)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started

        return timed

    with ExitStack() as stack:
        for name, (owner, attribute) in _STEPS.items():
            stack.enter_context(mock.patch.object(owner, attribute, timing(name, getattr(owner, attribute))))
        yield


def _measure(predictor: Predictor, folder: Path, name: str, rounds: int) -> dict[str, Any]:
    shape, spacing = _SIZES[name]
    image = write_ct(folder / f"{name}.nii.gz", shape, spacing)
    for _ in range(rounds):
        seconds: dict[str, float] = {}
        started, computed = time.perf_counter(), time.process_time()
        with timed_steps(seconds):
            result = predictor.segment(image, folder / "found.nii.gz")
        total, computed = time.perf_counter() - started, time.process_time() - computed
    found = sum(volume > 0 for volume in result.volumes_ml.values())
    steps = {step: round(taken, 2) for step, taken in seconds.items()}
    # On a busy machine, what the cores computed says more than what passed: two of them share the network.
    whole = {"seconds": round(total, 2), "cpu_seconds": round(computed, 2)}
    if result.device.startswith("cuda"):
        whole["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return {**whole, "steps": steps, "labels_found": found, "engine": result.engine}


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="network; default tiny")
    parser.add_argument("--spacing", type=float, default=4.0, help="of the task, in mm; default 4")
    parser.add_argument("--sizes", default=",".join([*_SIZES][:2]), help=f"by comma, of {', '.join(_SIZES)}")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("docs/results/infer_time.json"))
    options = parser.parse_args()
    load = [round(each, 2) for each in os.getloadavg()]
    spacing = (options.spacing,) * 3
    task = TaskConfig("benchmark", LABELS, spacing, Intensity("window", *WINDOW), "RAS", (96, 96, 96))
    torch.manual_seed(0)
    network = build_network(preset_config(options.preset, 1, task.out_channels, task.roi_size))
    predictor = Predictor(Checkpoint(network.eval(), task), str(options.device))
    computed = predictor.engine
    predictor.engine = TorchEngine(Rule(_Called(computed)).to(options.device))
    predictor.engine.name = computed.name
    with tempfile.TemporaryDirectory() as scratch:
        found = {size: _measure(predictor, Path(scratch), size, options.rounds) for size in options.sizes.split(",")}
    result = {
        "command": command(),
        "machine": machine(options.device),
        "parameters": sum(p.numel() for p in network.parameters()),
        "load_before": load,
        "preset": options.preset,
        "spacing_mm": options.spacing,
        "labels": len(LABELS),
        "by_size": found,
    }
    write_result(options.output, result)
    for size, one in found.items():
        print(size, one)


class _Called(torch.nn.Module):
    """An engine as a module."""

    def __init__(self, engine: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._engine = engine

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows to logits."""
        return self._engine(windows)


if __name__ == "__main__":
    main()
