"""Whole networks side by side: one training step and folded inference at 96^3, on a CPU or a GPU.

    python benchmarks/network.py --device cpu --output docs/results/network_cpu.json
    python benchmarks/network.py --device cuda --precision bf16 --output docs/results/network_cuda_bf16.json

Compared are Rep3D, Rep3D on PyTorch's own convolution, 3D UX-Net, SwinUNETR and SegResNet, as the registry builds them.
A training step is forward, Dice and cross-entropy loss, backward and an AdamW step on one patch; inference is one
window. Rep3D runs folded and, on a CPU, also through each inference engine that is installed. PyTorch's own large
kernels train so slowly on a CPU (minutes a step) that ``--no-native-training`` leaves that step out.
"""

from __future__ import annotations

import argparse
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from measuring import add_gpu_options, command, machine, set_up_gpu, time_in_turns, write_result
from monai.losses import DiceCELoss
from rich.console import Console
from rich.table import Table

import rep3d.nn.lrbm
from rep3d import build_model, reparameterize
from rep3d.inference.engines import choose_engine

NETWORKS = ("rep3d", "rep3d on F.conv3d", "uxnet", "swinunetr", "segresnet")
NATIVE = NETWORKS[1]


@contextmanager
def native_convolution(enabled: bool) -> Iterator[None]:
    """Let Rep3D's layers call PyTorch's convolution in place of ours."""

    def native(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        return F.conv3d(x, weight, bias, padding=[side // 2 for side in weight.shape[2:]], groups=x.shape[1])

    ours = rep3d.nn.lrbm.depthwise_conv3d
    if enabled:
        rep3d.nn.lrbm.depthwise_conv3d = native  # type: ignore[assignment]
    try:
        yield
    finally:
        rep3d.nn.lrbm.depthwise_conv3d = ours


def build(name: str, arguments: argparse.Namespace) -> torch.nn.Module:
    """Build a network with random weights."""
    torch.manual_seed(0)
    roi_size = (arguments.side,) * 3
    kind = name.split()[0]
    preset = arguments.preset if kind in ("rep3d", "uxnet") else "base"
    return build_model(kind, 1, arguments.classes, preset=preset, roi_size=roi_size).to(arguments.device)


def training_step(name: str, arguments: argparse.Namespace) -> Callable[[], None]:
    """Return one step of training, ready to run."""
    network = build(name, arguments).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.08)
    loss_function = DiceCELoss(to_onehot_y=True, softmax=True)
    shape = (1, 1, *(arguments.side,) * 3)
    image = torch.randn(shape, device=arguments.device)
    label = torch.randint(0, arguments.classes, shape, device=arguments.device)

    def step() -> None:
        with native_convolution(name == NATIVE):
            optimizer.zero_grad()
            with lower_precision(arguments):
                logits = network(image)
            loss_function(logits.float(), label).backward()
            optimizer.step()

    return step


def inference(name: str, arguments: argparse.Namespace) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the ways to segment one window: PyTorch and, for Rep3D on a CPU, the other engines at hand."""
    network = reparameterize(build(name, arguments), copy=False)
    image = torch.randn(1, 1, *(arguments.side,) * 3, device=arguments.device)

    def eager() -> torch.Tensor:
        with torch.inference_mode(), lower_precision(arguments), native_convolution(name == NATIVE):
            return network(image)

    ways = {name: eager}
    if name == NETWORKS[0] and arguments.device.type == "cpu" and find_spec("openvino"):
        engine = choose_engine(network, arguments.device, "openvino")
        ways[f"{name}, openvino"] = lambda: engine(image)
    return ways


@contextmanager
def lower_precision(arguments: argparse.Namespace) -> Iterator[None]:
    """Autocast, if asked for."""
    with torch.autocast(arguments.device.type, torch.bfloat16, enabled=arguments.precision == "bf16"):
        yield


def peak_memory(run: Callable[[], object], device: torch.device) -> float | None:
    """Return the peak of a GPU's memory in MB during a run, None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 1e6


def measure(ways: dict[str, Callable[[], Any]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Time the ways in turn; the ratio is how many times as long as Rep3D (in PyTorch) each takes."""
    times = time_in_turns(ways, arguments.device, arguments.rounds, arguments.seconds)
    ours = times[NETWORKS[0]]["median"]
    return {
        name: {**taken, "times_rep3d": taken["median"] / ours, "peak_mb": peak_memory(ways[name], arguments.device)}
        for name, taken in times.items()
    }


def agreement(ways: dict[str, Callable[[], torch.Tensor]]) -> dict[str, float]:
    """Return the largest difference in probability between Rep3D in PyTorch and on what computes the same."""
    expected = ways[NETWORKS[0]]().float().softmax(1)
    same = [name for name in ways if name.startswith(NETWORKS[0]) and name != NETWORKS[0]]
    return {name: float((ways[name]().float().softmax(1) - expected).abs().max()) for name in same}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--preset", default="base", help="of Rep3D and 3D UX-Net")
    parser.add_argument("--side", type=int, default=96, help="of the patch, in voxels")
    parser.add_argument("--classes", type=int, default=16, help="channels of the logits; AMOS-CT has 16")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS[1:], default=NETWORKS[1:], help="beside Rep3D")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each, as far as one run allows")
    parser.add_argument("--no-native-training", action="store_true")
    parser.add_argument("--output", type=Path)
    add_gpu_options(parser)
    arguments = parser.parse_args()
    gpu = set_up_gpu(arguments)
    names = [NETWORKS[0], *arguments.networks]
    result: dict[str, Any] = {
        "command": command(),
        "machine": machine(arguments.device),
        "precision": arguments.precision,
        **gpu,
        "parameters": {name: sum(p.numel() for p in build(name, arguments).parameters()) for name in names},
    }
    ways = {way: run for name in names for way, run in inference(name, arguments).items()}
    result["difference_in_probability"] = agreement(ways)
    result["inference"] = measure(ways, arguments)
    show("inference", result)
    if arguments.output:
        write_result(arguments.output, result)  # also if the training is stopped
    del ways
    gc.collect()
    trained = [name for name in names if not (name == NATIVE and arguments.no_native_training)]
    result["training_step"] = measure({name: training_step(name, arguments) for name in trained}, arguments)
    show("training_step", result)
    if arguments.output:
        write_result(arguments.output, result)


def show(task: str, result: dict[str, Any]) -> None:
    """Print a table of one task."""
    table = Table(task, "median ms", "best ms", "runs", "times rep3d", "peak MB")
    for name, taken in result[task].items():
        peak = "" if taken["peak_mb"] is None else f"{taken['peak_mb']:.0f}"
        cells = f"{taken['median']:.0f}", f"{taken['best']:.0f}", f"{taken['runs']:.0f}", f"{taken['times_rep3d']:.2f}"
        table.add_row(name, *cells, peak)
    Console().print(table)


if __name__ == "__main__":
    main()
