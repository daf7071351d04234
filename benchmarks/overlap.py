"""What the overlap of the sliding windows brings and costs: Dice and time of a trained model, from 0.1 to 0.6.

As many windows as an overlap needs lie at even distances, as nnU-Net's. As MONAI's inferer lays them, the last one
along each axis is moved back into the image. Both are measured.

    python benchmarks/overlap.py --checkpoint model.pt --data FOLDER [--cases 6] [--output FILE]

``FOLDER`` is a data set in the decathlon's layout; measured are cases that the model was not trained on. Each is
segmented from file to file once for each of them, in turn on each case, so that a machine's drift falls on all alike.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measuring import command, machine, write_result

from rep3d.checkpoint import load_checkpoint
from rep3d.data.cases import Case, read_data_set
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.inference import slab
from rep3d.inference.predictor import Predictor
from rep3d.inference.sliding import OVERLAP
from rep3d.inference.tuned import PLAIN, Way

_OVERLAPS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)


def _moved_back(side: int, length: int, overlap: float) -> list[int]:
    """Return where windows begin along an axis as MONAI's inferer lays them."""
    step = max(1, int(side * (1 - overlap)))
    count = math.ceil(max(length - side, 0) / step) + 1
    return [max(min(number * step, length - side), 0) for number in range(count)]


_LAID = {"even": slab.starts_along, "moved_back": _moved_back}


def _measure(model: Predictor, case: Case, overlap: float, laid: str, folder: Path) -> dict[str, Any]:
    for stage in filter(None, (model, model.fine)):
        stage.way = Way(overlap=overlap)
    with mock.patch.object(slab, "starts_along", _LAID[laid]):
        result = model.segment(case.image, folder / "found.nii.gz")
    dice = dice_of_files(folder / "found.nii.gz", case.label, model.task.labels)
    return {"dice": mean_dice({case.id: dice}), "network_seconds": result.seconds["network"]}


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=6, help="how many; default 6")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("docs/results/overlap.json"))
    options = parser.parse_args()
    load = [round(each, 2) for each in os.getloadavg()]
    model = Predictor(load_checkpoint(options.checkpoint), options.device, way=PLAIN)
    seen = set(model.info.get("trained_on", model.info.get("cases", [])))
    cases = [case for case in read_data_set(options.data).cases if case.id not in seen][: options.cases]
    if not cases:
        raise SystemExit(f"{options.data} has no case that the model was not trained on.")
    found: dict[tuple[float, str], list[dict[str, Any]]] = {(each, laid): [] for each in _OVERLAPS for laid in _LAID}
    with tempfile.TemporaryDirectory() as scratch:
        for case in cases:
            for (overlap, laid), measured in found.items():
                measured.append(_measure(model, case, overlap, laid, Path(scratch)))
    rows = {
        f"{overlap:g}, {laid}": {
            "mean_dice": round(statistics.fmean(each["dice"] for each in measured), 4),
            "network_seconds": round(sum(each["network_seconds"] for each in measured), 2),
            "dice": [round(each["dice"], 4) for each in measured],
        }
        for (overlap, laid), measured in found.items()
    }
    result = {
        "command": command(),
        "machine": machine(torch.device(options.device)),
        "load_before": load,
        "spacing_mm": model.task.spacing,
        "window": model.task.roi_size,
        "preset": model.info.get("preset"),
        "in_use": OVERLAP,
        "cases": [case.id for case in cases],
        "by_overlap": rows,
    }
    write_result(options.output, result)
    for name, row in rows.items():
        print(name, row)


if __name__ == "__main__":
    main()
