"""How soon a training steps whose cases an earlier one has prepared: whole abdominal CTs, over HTTP.

    python benchmarks/next_training.py --data ../shared/data --output docs/results/next_training.json

A server gets four CTs with their label maps and trains; then it trains again, at once, after a pause as people make who
correct labels, and after one with a fifth case. Counted are the seconds from sending the request to the first step that
the server tells of; the start of the process in which the training runs is inside, unless it waited already.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from measuring import command, machine, write_result
from parts.label_server import LabelServer, running_server

from rep3d.data.cases import read_data_set
from rep3d.tasks.dataset_json import labels_from_dataset_json

_POLL_SECONDS = 0.05
_CASES = 4


def _first_step(server: LabelServer, minutes: float) -> dict[str, float]:
    """Train, and return when the first step was told of."""
    found: dict[str, float] = {}
    before = (server.info().get("train_stats", {}).get(server.model) or {}).get("started")

    def watch() -> None:
        while "first_step" not in found and not ended.is_set():
            stats: dict[str, Any] = server.info().get("train_stats", {}).get(server.model) or {}
            if stats.get("started") != before and (stats.get("iteration") or 0) > 0:
                found["first_step"] = round(time.perf_counter() - started, 2)
            time.sleep(_POLL_SECONDS)

    ended = threading.Event()
    watcher = threading.Thread(target=watch)
    started = time.perf_counter()
    watcher.start()
    try:
        found["whole"] = round(
            server.train({"max_minutes": minutes, "iterations": 1_000_000, "score_minutes": 0}).seconds, 1
        )
    finally:
        ended.set()
        watcher.join()
    return found


def main() -> None:
    """Measure, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each training")
    parser.add_argument(
        "--pause", type=float, default=30.0, help="seconds before a training that is not asked for at once"
    )
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    folder = asked.data / "abdomen_ct"
    cases, labels = read_data_set(folder).cases, labels_from_dataset_json(folder / "dataset.json")
    label_info = [{"name": name, "idx": value} for name, value in labels.items()]
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="rep3d-next-training-") as scratch:
        conf = {"labels": ",".join(labels)}
        with running_server(Path(scratch) / "studies", Path(scratch) / "server.log", conf) as server:
            for case in cases[:_CASES]:
                server.submit(case, label_info)
            for name in (f"first, {_CASES} cases", "again, at once", "again", "again, with one more case"):
                if name.endswith("more case"):
                    server.submit(cases[_CASES], label_info)
                if not name.endswith("at once"):
                    time.sleep(asked.pause)
                seconds[name] = _first_step(server, asked.minutes)
                print(name, seconds[name], flush=True)
    if asked.output:
        result = {"command": command(), "machine": machine(torch.device("cpu")), "seconds": seconds}
        write_result(asked.output, result)


if __name__ == "__main__":
    main()
