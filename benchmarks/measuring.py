"""What the benchmarks share: timing in turns, peak memory, and the name of the machine."""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rep3d.nn.fastconv import dft

__all__ = [
    "add_gpu_options",
    "alone",
    "command",
    "extra_memory",
    "held_gb",
    "machine",
    "set_up_gpu",
    "time_in_turns",
    "write_result",
]


def add_gpu_options(parser: argparse.ArgumentParser) -> None:
    """Add what only matters on a GPU."""
    parser.add_argument("--tf32", action="store_true", help="float32 products on tensor cores, as training does")
    parser.add_argument("--no-fused", action="store_true", help="nine passes in the place of the Triton kernel")


def set_up_gpu(arguments: argparse.Namespace) -> dict[str, bool]:
    """Do what :func:`add_gpu_options` offers, and return it for the result."""
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    if arguments.no_fused:
        dft._fused_product = lambda: None  # type: ignore[assignment]
    fused = arguments.device.type == "cuda" and dft._fused_product() is not None
    return {"tf32": arguments.tf32, "fused_product": fused}


def command() -> str:
    """Return the command that this process was started with, as a shell takes it."""
    return shlex.join(["python", *sys.argv])


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the figures were measured on."""
    cores = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {
        "cpu": next(
            (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
            platform.processor(),
        ),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA", "not limited"),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    return found


def alone(run: Callable[..., Any], *arguments: Any) -> Any:
    """Run something in a process of its own: what one took is not given back to the system at once."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(run, *arguments).result()


def held_gb() -> float:
    """Return what this process holds by itself, in GB; pages of mapped files are the system's to take back."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e9


def time_in_turns(
    runs: Mapping[str, Callable[[], object]], device: torch.device, rounds: int, seconds_each: float
) -> dict[str, dict[str, float]]:
    """Time several ways of doing the same in turn, so that a machine's drift falls on all of them alike.

    Args:
        runs: Name to what is timed. Each runs once before it is timed, if that takes less than ``seconds_each``.
        device: Waited for before and after each run.
        rounds: Runs of each at most.
        seconds_each: A way that has used this much time is not run again; it has one run at least.

    Returns:
        For each name ``median`` and ``best`` in milliseconds and the number of ``runs``.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        warm_up = _seconds(run, device)
        if warm_up > seconds_each:
            times[name].append(warm_up)
    for _ in range(rounds):
        for name, run in runs.items():
            if sum(times[name]) < seconds_each:
                times[name].append(_seconds(run, device))
    return {
        name: {"median": 1e3 * statistics.median(taken), "best": 1e3 * min(taken), "runs": len(taken)}
        for name, taken in times.items()
    }


def extra_memory(run: Callable[[], object], device: torch.device) -> float:
    """Return by how many MB memory rose above its level before, while ``run`` ran; its result counts.

    On a CPU it is the process's resident memory (Linux). Measure one thing in one process, and warm the libraries up
    with something small before.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to the present
    before = _resident_kib("VmRSS")
    result = run()
    del result
    return (_resident_kib("VmHWM") - before) * 1024 / 1e6


def _resident_kib(field: str) -> int:
    return next(int(line.split()[1]) for line in _lines("/proc/self/status") if line.startswith(field))


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
