"""A training step of a 3^3 convolution on one small patch: PyTorch's own way, ours, and half of a step on two.

python benchmarks/single_patch.py --output docs/results/single_patch.json
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import machine, time_in_turns, write_result
from torch import nn

from rep3d.nn.single import SinglePatchConv3d

_MAPS = ((16, (32, 32, 40)), (64, (16, 16, 20)), (128, (8, 8, 10)), (32, (24, 32, 24)))
"""Channels and voxels of maps that the network ``quick`` has where patches are small."""


def _step(conv: nn.Module, x: torch.Tensor) -> None:
    conv(x).square().sum().backward()


def main() -> None:
    """Time all maps and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    device, found = torch.device("cpu"), []
    for channels, shape in _MAPS:
        plain = nn.Conv3d(channels, channels, 3, padding=1)
        one, two = (torch.rand(batch, channels, *shape, requires_grad=True) for batch in (1, 2))
        ways = {"plain": (plain, one), "ours": (SinglePatchConv3d.of(plain), one), "two patches": (plain, two)}
        times = time_in_turns({name: partial(_step, *way) for name, way in ways.items()}, device, 20, 5.0)
        best: dict[str, Any] = {name: time["best"] for name, time in times.items()}
        best["two patches, each"] = best.pop("two patches") / 2
        ratio = {"plain / ours": round(best["plain"] / best["ours"], 2)}
        found.append({"channels": channels, "shape": shape, "best_ms": best, **ratio})
    write_result(asked.output, {"machine": machine(device), "maps": found})


if __name__ == "__main__":
    main()
