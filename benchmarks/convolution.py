"""The large-kernel convolution beside PyTorch's own and MONAI's FFT convolution: time and memory, over Rep3D's shapes.

    python benchmarks/convolution.py --device cpu --output docs/results/convolution_cpu.json
    python benchmarks/convolution.py --device cuda --output docs/results/convolution_cuda.json

Kernels are 21^3, maps those of `base` at 96^3. Per shape all run in turn in one process; memory is taken in a process
for each. PyTorch's backward pass takes minutes on a CPU at the larger shapes: ``--no-native-backward`` leaves it out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F
from measuring import (
    add_gpu_options,
    command,
    extra_memory,
    machine,
    set_up_gpu,
    time_in_turns,
    write_result,
)
from monai.networks.blocks.hyena import DepthwiseFFTConv3d
from rich.console import Console
from rich.table import Table

from rep3d.nn.fastconv.conv3d import depthwise_conv3d

SHAPES = ((48, 48), (96, 24), (192, 12), (384, 6))  # channels and side of the four stages of `base` at 96^3
KERNEL = 21
WAYS = ("rep3d", "native", "monai")
Convolution = Callable[[torch.Tensor, torch.nn.Parameter], torch.Tensor]


def convolution(way: str, channels: int, device: torch.device) -> Convolution:
    """Return the way as a function of maps and kernels."""
    if way == "rep3d":
        return depthwise_conv3d
    if way == "native":
        return lambda x, weight: F.conv3d(x, weight, padding=KERNEL // 2, groups=channels)
    module = DepthwiseFFTConv3d(channels, channels, KERNEL, groups=channels, padding=KERNEL // 2).to(device)

    def monai(x: torch.Tensor, weight: torch.nn.Parameter) -> torch.Tensor:
        module.weight = weight
        return module(x)

    return monai


def passes(way: str, shape: tuple[int, int, int], device: torch.device) -> dict[str, Callable[[], object]]:
    """Return what is measured of one way: ``forward`` (inference) and ``forward+backward`` (both gradients)."""
    batch, channels, side = shape
    torch.manual_seed(0)
    x = torch.randn(batch, channels, side, side, side, device=device)
    weight = torch.nn.Parameter(torch.randn(channels, 1, KERNEL, KERNEL, KERNEL, device=device))
    upstream = torch.randn_like(x)
    convolve = convolution(way, channels, device)

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return convolve(x, weight)

    def both() -> tuple[torch.Tensor, ...]:
        leaf = x.detach().requires_grad_()
        return torch.autograd.grad(convolve(leaf, weight), (leaf, weight), upstream)

    found: dict[str, Callable[[], object]] = {"forward": forward, "forward+backward": both}
    if way == "rep3d":

        def changed() -> torch.Tensor:  # as after each step of an optimizer: no kept spectrum fits
            with torch.no_grad():
                return convolve(x, weight.detach())

        found["forward, new kernel"] = changed
    return found


def memory(way: str, name: str, shape: tuple[int, int, int], device: torch.device, run: Callable[[], object]) -> float:
    """Measure the memory of one way, MB beyond inputs and kernels, results included; on a CPU in a process of its own.

    On a GPU PyTorch counts what ``run`` takes.
    """
    if device.type == "cuda":
        return extra_memory(run, device)
    child = [sys.executable, __file__, "--device", str(device), "--memory", way, name, *map(str, shape)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def measure(shape: tuple[int, int, int], device: torch.device, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways at one shape (batch, channels, side)."""
    ways = {way: passes(way, shape, device) for way in WAYS}
    exact = ways["native"]["forward"]()
    error = (ways["rep3d"]["forward"]() - exact).abs().max() / exact.abs().max()  # type: ignore[operator, attr-defined]
    found: dict[str, Any] = {
        "batch": shape[0],
        "channels": shape[1],
        "side": shape[2],
        "relative_difference_from_native": float(error),
    }
    for name in ("forward", "forward+backward"):
        runs = {way: ways[way][name] for way in WAYS}
        if name == "forward":
            runs["rep3d, new kernel"] = ways["rep3d"]["forward, new kernel"]
        elif arguments.no_native_backward:
            del runs["native"]
        times = time_in_turns(runs, device, arguments.rounds, arguments.seconds)
        ratios = {
            f"{other}/rep3d": times[other]["median"] / times["rep3d"]["median"] for other in times if other in WAYS[1:]
        }
        # PyTorch's backward pass would take minutes once more.
        alone = [] if arguments.no_memory else [way for way in WAYS if name == "forward" or way != "native"]
        used = {way: round(memory(way, name, shape, device, ways[way][name]), 1) for way in alone}
        found[name] = {"milliseconds": times, "ratios": ratios, "extra_memory_mb": used}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shapes", nargs="+", metavar="CxN", help="channels and side; those of `base` by default")
    parser.add_argument("--rounds", type=int, default=15, help="runs of each way at most")
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each way, as far as one run allows")
    parser.add_argument("--no-native-backward", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--no-memory", action="store_true", help="times only: no process for each way")
    add_gpu_options(parser)
    parser.add_argument("--memory", nargs=5, metavar=("WAY", "PASS", "B", "C", "N"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    device = arguments.device
    if arguments.memory:
        way, name, *numbers = arguments.memory
        passes(way, (1, 2, 8), device)[name]()  # loads the libraries
        run = passes(way, tuple(map(int, numbers)), device)[name]  # type: ignore[arg-type]
        print(json.dumps(extra_memory(run, device)))
        return
    console = Console()
    gpu = set_up_gpu(arguments)
    result: dict[str, Any] = {"command": command(), "machine": machine(device), **gpu, "shapes": []}
    shapes = [tuple(map(int, shape.split("x"))) for shape in arguments.shapes or ()] or SHAPES
    for batch in arguments.batches:
        for channels, side in shapes:
            found = measure((batch, channels, side), device, arguments)
            result["shapes"].append(found)
            table = Table(
                "pass",
                "way",
                "median ms",
                "best ms",
                "times ours",
                "extra MB",
                title=f"{batch} x {channels} x {side}^3",
            )
            for name in ("forward", "forward+backward"):
                for way, taken in found[name]["milliseconds"].items():
                    ratio, used = found[name]["ratios"].get(f"{way}/rep3d"), found[name]["extra_memory_mb"].get(way)
                    table.add_row(
                        name,
                        way,
                        f"{taken['median']:.2f}",
                        f"{taken['best']:.2f}",
                        "" if ratio is None else f"{ratio:.2f}",
                        "" if used is None else f"{used:.0f}",
                    )
            console.print(table)
            if arguments.output:
                write_result(arguments.output, result)


if __name__ == "__main__":
    main()
