"""What a patch costs a training from files, from memory, and in MONAI's usual way.

    python benchmarks/cache.py --output docs/results/cache.json

Generated CTs with 13 labels, patches of 96^3 voxels, each way in a process of its own:

- from the prepared files, as `rep3d train` does it: with the system keeping them in memory, and with their pages taken
  away before each patch, as where memory is short or a network drive lets nobody keep them;
- with all and with half of the cases held in memory (`--cache-gb`), their pages taken away as well;
- as MONAI's tutorials do it: CacheDataset with LoadImaged ... RandCropByPosNegLabeld, single precision, prepared anew
  at each start.

Patches are not varied here, which costs the same in each; what it costs is measured beside them. Memory is what the
process holds by itself (``RssAnon`` of Linux); what the system keeps of files comes on top where memory is to spare.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import alone, command, held_gb, machine, write_result
from memory import LABELS, generated
from monai.data import CacheDataset
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    RandCropByPosNegLabeld,
    ScaleIntensityRanged,
    Spacingd,
)
from rich.console import Console

from rep3d.data.cases import Case
from rep3d.imaging.transforms import augmentation
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.sampling import Patches
from rep3d.training.settings import TrainSettings
from rep3d.training.volumes.prepared import Prepared
from rep3d.training.volumes.store import volume_store

SPACING = (0.8, 0.8, 1.5)
SHAPE = (512, 512, 160)
TASK = TaskConfig("ct", LABELS, SPACING, Intensity("window", -125, 275), "RAS", (96, 96, 96))
_TAKE_AWAY = 4  # MADV_DONTNEED


def take_away(volumes: Sequence[Prepared], folder: Path) -> None:
    """Have the system forget what it keeps of the files in memory, mapped or not."""
    libc = ctypes.CDLL(None, use_errno=True)
    for volume in volumes:
        for array in (volume.image, volume.label, volume.positions):
            if libc.madvise(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), _TAKE_AWAY):
                raise OSError(ctypes.get_errno(), "madvise")
    for path in folder.glob("*.volume"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(
    patches: Iterator[Any], warm_up: int, count: int, held_before: float, before: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Measure patches after the first ones, which fill what is to be filled.

    Args:
        patches: the patches.
        warm_up: how many come first.
        count: how many are measured.
        held_before: GB that the process held before it had any.
        before: called before each.
    """
    for _ in range(warm_up):
        next(patches)
    seconds = []
    for _ in range(count):
        before()
        started = time.perf_counter()
        next(patches)
        seconds.append(time.perf_counter() - started)
    return {
        "median_ms": round(1e3 * statistics.median(seconds), 2),
        "mean_ms": round(1e3 * statistics.mean(seconds), 2),
        "held_gb": max(0.0, round(held_gb() - held_before, 3)),
    }


def ours(cases: list[Case], folder: Path, count: int, share: float, forgotten: bool) -> dict[str, float]:
    """Measure patches as a training cuts them.

    Args:
        cases: the cases, prepared before.
        folder: where they are.
        count: patches to measure.
        share: of the cases to hold in memory.
        forgotten: whether the system keeps nothing of the files between patches.
    """
    torch.set_num_threads(1)
    before = held_gb()
    with volume_store(folder, TASK, (), True) as store:
        started = time.perf_counter()
        volumes = [store.get(case) for case in cases]
        most = round(share * sum(volume.nbytes for volume in volumes))
        settings = TrainSettings(crops=1, device="cpu")
        made = Patches(volumes, [1.0] * len(cases), lambda _: Compose([]), TASK.roi_size, settings, held_most=most)
        patches = iter(made)
        next(patches)
        first = time.perf_counter() - started
        forget = partial(take_away, volumes, folder) if forgotten else lambda: None
        found = timed(patches, 4 * len(cases), count, before, forget)
    return {
        "cases_held": len(made.held.held),
        "first_patch_seconds": round(first, 2),
        **found,
    }


def monais(cases: list[Case], count: int) -> dict[str, float]:
    """Measure patches as MONAI's tutorials have it, one patch of a case at a time."""
    torch.set_num_threads(1)
    before = held_gb()
    keys = ("image", "label")
    steps = Compose(
        [
            LoadImaged(keys),
            EnsureChannelFirstd(keys),
            Orientationd(keys, axcodes="RAS"),
            Spacingd(keys, pixdim=SPACING, mode=("bilinear", "nearest")),
            ScaleIntensityRanged("image", -125, 275, 0, 1, clip=True),
            RandCropByPosNegLabeld(keys, "label", TASK.roi_size, num_samples=1),
        ]
    )
    started = time.perf_counter()
    files = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    data = CacheDataset(files, steps, progress=False)
    order = np.random.default_rng(0)
    patches = (data[int(order.integers(len(cases)))] for _ in iter(int, 1))
    next(patches)
    first = time.perf_counter() - started
    return {
        "cases_held": len(cases),
        "first_patch_seconds": round(first, 2),
        **timed(patches, 2, count, before),
    }


def varied(count: int) -> float:
    """Return the median milliseconds that varying a patch takes beside cutting it."""
    torch.set_num_threads(1)
    patch = {"image": torch.rand(1, *TASK.roi_size), "label": torch.zeros(1, *TASK.roi_size, dtype=torch.int32)}
    change, seconds = augmentation(TASK), []
    for _ in range(count):
        started = time.perf_counter()
        change({name: tensor.clone() for name, tensor in patch.items()})
        seconds.append(time.perf_counter() - started)
    return round(1e3 * statistics.median(seconds), 2)


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="where to work, such as on a network drive")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rep3d-cache-", dir=options.folder) as name:
        folder = Path(name)
        cases, kept = [generated(folder, SHAPE, SPACING, seed) for seed in range(options.cases)], folder / "kept"
        found["files, prepared at this start"] = alone(ours, cases, kept, options.patches, 0.0, False)
        for words, share, forgotten in (
            ("files, kept by the system", 0.0, False),
            ("files, forgotten by the system", 0.0, True),
            ("half held in memory, files forgotten", 0.5, True),
            ("all held in memory, files forgotten", 1.0, True),
        ):
            found[words] = alone(ours, cases, kept, options.patches, share, forgotten)
        found["MONAI's usual way"] = alone(monais, cases, options.patches)
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load": [round(load, 1) for load in os.getloadavg()],
        "shape": SHAPE,
        "cases": options.cases,
        "patch": TASK.roi_size,
        "varying_a_patch_ms": alone(varied, 20),
        "measured": found,
    }
    Console().print_json(data=result)
    if options.output is not None:
        write_result(options.output, result)


if __name__ == "__main__":
    main()
