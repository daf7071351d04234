"""What a large folder costs: a server on 5,000 images asked the same as one on 50, one after the other.

Run ``python benchmarks/many_images.py [--images 50,5000] [--output FILE]`` in the project's environment. The images are
generated and tiny, every tenth has a final label, and the disk's cache is warm: what is measured is what the server
does per image that it knows. Each server is started on a folder that it has never seen, asked, and started again.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests
import torch
from measuring import command, machine, write_result

from rep3d.demo.server import ServerProcess

_SHAPE = (12, 12, 12)
_LABELLED = 10  # every tenth
_ROUNDS = 10


def _write_folder(folder: Path, images: int) -> None:
    (folder / "labels" / "final").mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(images):
        name = f"case_{number:05}.nii.gz"
        voxels = random.normal(100, 30, _SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / name)
        if number % _LABELLED == 0:
            nib.save(nib.Nifti1Image(_label(number), np.eye(4)), folder / "labels" / "final" / name)


def _label(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, _SHAPE, dtype=np.uint8)


def _seconds(ask: Callable[[], requests.Response]) -> float:
    started = time.perf_counter()
    answer = ask()
    seconds = time.perf_counter() - started
    if not answer.ok:
        raise RuntimeError(f"expected success, got {answer.status_code}: {answer.text[:500]}")
    return round(seconds, 3)


def _median(ask: Callable[[int], requests.Response]) -> dict[str, float]:
    times = [_seconds(lambda number=number: ask(number)) for number in range(_ROUNDS)]  # type: ignore[misc]
    return {"median": round(statistics.median(times), 3), "longest": max(times)}


def _asked(url: str, scratch: Path) -> dict[str, Any]:
    """Return how long the answers take of a server that has just started."""
    label = scratch / "label.nii.gz"

    def submit(number: int) -> requests.Response:
        nib.save(nib.Nifti1Image(_label(int(time.time() * 1000) % 2**32), np.eye(4)), label)
        query = f"image=case_{number + 1:05}&tag=final"  # those without a label, but for the first
        with label.open("rb") as file:
            return requests.put(f"{url}/datastore/label?{query}", files={"label": ("label.nii.gz", file)}, timeout=600)

    def get(path: str) -> Callable[..., requests.Response]:
        return lambda *_: requests.get(f"{url}{path}", timeout=600)

    return {
        "case_list_first": _seconds(get("/rep3d/cases")),
        "case_list": _median(get("/rep3d/cases")),
        "submit": _median(submit),
        "next_sample": _median(lambda _: requests.post(f"{url}/activelearning/first", json={}, timeout=600)),
        "info": _median(get("/info/")),
        "datastore_info": _median(get("/datastore/")),
        "datastore_all": _median(get("/datastore/?output=all")),
        "status": _median(get("/rep3d/status")),
    }


def _measure(images: int, folder: Path) -> dict[str, Any]:
    studies = folder / f"images_{images}"
    _write_folder(studies, images)
    found = {}
    for start in ("first_start", "second_start"):
        began = time.perf_counter()
        with ServerProcess(studies, folder / f"{start}.log", conf={"labels": "a", "device": "cpu"}) as server:
            server.wait_until(server.answers, timeout=600, pause=0.05)
            seconds = round(time.perf_counter() - began, 3)
            found[start] = {"seconds_to_first_answer": seconds, **_asked(server.url, folder)}
    return found


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="50,5000", help="how many, by comma; default 50,5000")
    parser.add_argument("--output", type=Path, default=Path("docs/results/many_images.json"))
    options = parser.parse_args()
    counts = [int(part) for part in options.images.split(",")]
    with tempfile.TemporaryDirectory() as scratch:
        seconds = {str(images): _measure(images, Path(scratch)) for images in counts}
    result = {
        "command": command(),
        "machine": machine(torch.device("cpu")),
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "seconds_by_images": seconds,
    }
    write_result(options.output, result)
    for images, found in seconds.items():
        print(images, found)


if __name__ == "__main__":
    main()
