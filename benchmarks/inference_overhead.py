"""How long a segmentation over HTTP takes besides the network: reading, resampling, deciding, writing, sending.

Run ``python benchmarks/inference_overhead.py [--runs N] [--large] [--output FILE]`` in the project's environment. A
real server segments a volume of 36 x 50 x 35 voxels with 3 classes and, with ``--large``, a synthetic CT of
512 x 512 x 300 with 4 and with 16 classes, by the ``tiny`` network. Its weights are random, so that it is unsure
everywhere and hardly a class can be ruled out: the hardest case for bringing the result onto the image's grid.
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
import psutil
import requests
import torch
from measuring import machine, write_result

from rep3d.checkpoint import save_checkpoint
from rep3d.demo.server import ServerProcess
from rep3d.nn.config import preset_config
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

SMALL = (36, 50, 35)
LARGE = (512, 512, 300)
_CT = Intensity("window", -125, 275)
_TIMEOUT = 3600


def small_volume(path: Path) -> Path:
    """Noise like an MR crop of 1 mm voxels, float32."""
    voxels = np.random.default_rng(0).normal(100, 30, SMALL).astype(np.float32)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return path


def large_volume(path: Path) -> Path:
    """A body with round organs and noise, in HU, int16, voxels of 0.75 x 0.75 x 1 mm, stored left to right."""
    random = np.random.default_rng(0)
    x, y, z = np.ogrid[-1 : 1 : LARGE[0] * 1j, -1 : 1 : LARGE[1] * 1j, -1 : 1 : LARGE[2] * 1j]
    voxels = np.broadcast_to(np.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 40, -1000), LARGE).astype(np.int16)
    for organ in range(12):
        a, b, c = random.uniform(-0.4, 0.4, 3)
        voxels[(x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2 < 0.02] += np.int16(10 * organ)
    for index in range(LARGE[2]):  # slice by slice: noise for all at once would take gigabytes
        voxels[:, :, index] += random.normal(0, 15, LARGE[:2]).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([-0.75, -0.75, 1.0, 1.0])), path)
    return path


def _case(folder: Path, name: str, classes: int) -> tuple[Path, TaskConfig]:
    studies = folder / f"{name}_{classes}"
    studies.mkdir()
    labels = {f"organ_{number}": number for number in range(1, classes)}
    if name == "small":
        small_volume(studies / "volume.nii.gz")
        return studies, TaskConfig("benchmark", labels, roi_size=(48, 64, 48))
    large_volume(studies / "volume.nii.gz")
    return studies, TaskConfig("benchmark", labels, (1.5, 1.5, 2.0), _CT, roi_size=(96, 96, 96))


def measure(folder: Path, name: str, classes: int, runs: int) -> dict[str, Any]:
    """Segments a volume over HTTP several times.

    Returns:
        Medians in seconds: ``total`` as the client sees it, ``network``, ``else`` (the difference), the parts ``read``
        and ``write`` as the server states them; and the server's peak memory in GB (Linux).
    """
    studies, task = _case(folder, name, classes)
    torch.manual_seed(0)
    model = Rep3D(preset_config("tiny", 1, classes))
    save_checkpoint(studies / "rep3d" / "published.pt", model, task, {"version": "v1", "preset": "tiny"})
    taken: list[dict[str, float]] = []
    with ServerProcess(studies, folder / f"{name}_{classes}.log") as server:
        server.wait_until(lambda: _answers(server.url))
        for run in range(runs + (1 if name == "small" else 0)):
            started = time.perf_counter()
            answer = requests.post(f"{server.url}/infer/rep3d", params={"image": "volume"}, timeout=_TIMEOUT)
            total = time.perf_counter() - started
            answer.raise_for_status()
            latencies = _facts(answer)["latencies"]
            if run or name != "small":  # the first small one pays for what is loaded once
                parts = {key: latencies[key] for key in ("read", "network", "write")}
                taken.append({"total": total, "else": total - latencies["network"], **parts})
        peak = _peak_gb(server)
    medians = {key: round(statistics.median(one[key] for one in taken), 3) for key in taken[0]}
    return {"classes": classes, "runs": len(taken), **medians, "peak_memory_gb": peak}


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/info/", timeout=60).ok
    except requests.ConnectionError:
        return False


def _facts(answer: requests.Response) -> dict[str, Any]:
    """The JSON part of MONAI Label's answer."""
    boundary = answer.headers["Content-Type"].split("boundary=")[1].encode()
    part = next(part for part in answer.content.split(b"--" + boundary) if b'name="params"' in part)
    found: dict[str, Any] = json.loads(part.split(b"\r\n\r\n", 1)[1])
    return found


def _peak_gb(server: ServerProcess) -> float | None:
    port = int(server.url.rsplit(":", 1)[1])
    for process in psutil.Process().children(recursive=True):
        status = Path(f"/proc/{process.pid}/status")
        if str(port) in process.cmdline() and status.exists():
            line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) * 1024 / 1e9, 2)
    return None


def main() -> None:
    """Measures, prints and, if asked, writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="of the small volume; the large one runs once")
    parser.add_argument("--large", action="store_true", help="also 512 x 512 x 300, some minutes of network each")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "command": f"python benchmarks/inference_overhead.py --runs {arguments.runs}"
        + (" --large" if arguments.large else ""),
        "machine": machine(torch.device("cpu")),
        "load_average_before": round(os.getloadavg()[0], 1),
        "seconds": {},
    }
    with tempfile.TemporaryDirectory() as name:
        cases = [("small", 3, arguments.runs)]
        cases += [("large", 4, 1), ("large", 16, 1)] if arguments.large else []
        for volume, classes, runs in cases:
            shape = "x".join(map(str, SMALL if volume == "small" else LARGE))
            result["seconds"][f"{shape}, {classes} classes"] = measure(Path(name), volume, classes, runs)
            print(json.dumps(result["seconds"], indent=2), flush=True)
    print(json.dumps(result, indent=2))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
