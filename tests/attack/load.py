"""Load on a real server: people who annotate without a break, an administrator who trains and lets batches run.

All of it comes from this process over loopback and stops with :meth:`Load.stop`.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import requests

from tests.app.data import AFFINE, LABELS
from tests.app.server import AppServer
from tests.voxel_bodies import VOXELS, packed

__all__ = ["Load", "Tally", "Watch", "percentile"]

_BUSY = (429, 503)  # "come again": no error as long as the answer says when
_IDLE = ("never", None, "done", "error", "stopped", "interrupted")
_SECONDS = 120.0  # that a client waits for an answer


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed; NaN for none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else float("nan")


class Tally:
    """How long each kind of request took, and which were not answered as they should be."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.busy: Counter[str] = Counter()
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def ask(self, what: str, send: Callable[[], requests.Response], fine: tuple[int, ...] = (200,)) -> Any:
        """Send a request until the server takes it; None where it was not answered as it should be."""
        while True:
            started = time.perf_counter()
            try:
                answer = send()
            except requests.RequestException as error:
                with self._lock:
                    self.errors.append(f"{what}: {type(error).__name__}: {error}"[:300])
                return None
            taken = time.perf_counter() - started
            with self._lock:
                if answer.status_code in _BUSY and "Retry-After" in answer.headers:
                    self.busy[f"{what} {answer.status_code}"] += 1
                else:
                    self.seconds[what].append(taken)
                    if answer.status_code not in fine:
                        self.errors.append(f"{what}: {answer.status_code} {answer.text[:300]}")
                        return None
                    return answer
            time.sleep(min(float(answer.headers["Retry-After"]), 2.0))

    def report(self) -> dict[str, dict[str, float]]:
        """Return number, median, 95th percentile and longest of each kind, in seconds."""
        return {
            what: {
                "requests": len(taken),
                "median": round(statistics.median(taken), 3),
                "p95": round(percentile(taken, 0.95), 3),
                "longest": round(max(taken), 3),
            }
            for what, taken in sorted(self.seconds.items())
        }


class Watch:
    """Memory, handles and threads of a server's own process, once in two seconds."""

    def __init__(self, pid: int) -> None:
        self.samples: list[tuple[float, float, int, int]] = []  # seconds since the start, MB, handles, threads
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._ended.wait(2.0):
            memory = self._process.memory_info().rss / 2**20
            now = time.monotonic() - started
            self.samples.append((now, memory, self._process.num_fds(), self._process.num_threads()))

    def around(self, seconds: float, width: float = 30.0) -> dict[str, float]:
        """Return the medians of all samples within `width` seconds of a time since the start."""
        near = [sample for sample in self.samples if abs(sample[0] - seconds) <= width]
        memory, handles, threads = (statistics.median(values) for values in list(zip(*near, strict=True))[1:])
        return {"seconds": round(seconds), "memory_mb": round(memory), "handles": handles, "threads": threads}


class Load:
    """People at work on one server.

    Args:
        server: a running server that asks for keys.
        keys: text of the key of each annotator, by name.
        admin: text of an administrator's key.
        cases: shape of each image, by its id; each annotator has his own share of them.
    """

    def __init__(
        self, server: AppServer, keys: Mapping[str, str], admin: str, cases: Mapping[str, tuple[int, int, int]]
    ) -> None:
        self.tally = Tally()
        self.acknowledged: dict[str, tuple[str, np.ndarray]] = {}  # case: author and voxels of its newest label
        self.done: Counter[str] = Counter()
        self._server, self._cases = server, cases
        self._keys = {name: {"Authorization": f"Bearer {text}"} for name, text in keys.items()}
        self._admin = {"Authorization": f"Bearer {admin}"}
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin the work of all."""
        for place, name in enumerate(self._keys):
            own = list(self._cases)[place :: len(self._keys)]
            self._threads.append(threading.Thread(target=self._annotate, args=(name, own, place), daemon=True))
        self._threads.append(threading.Thread(target=self._administrate, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End it, and wait for the last answers."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    # Annotators --------------------------------------------------------------------------------------------------

    def _annotate(self, name: str, own: list[str], seed: int) -> None:
        random, header = np.random.default_rng(seed), self._keys[name]
        while not self._ended.is_set():
            case = own[int(random.integers(len(own)))]
            self._look_around(header)
            self._get("image", f"/rep3d/voxels/images/{case}", header)
            self._get("thumbnail", f"/rep3d/cases/{case}/thumbnail.png", header)
            self.segment(name, case)
            if random.random() < 0.1:
                self._leave_in_the_middle(case, header)
            self.submit(name, case, random)
            self._get("history", f"/rep3d/cases/{case}/history", header)
            self._ended.wait(random.uniform(0.2, 1.0))

    def _look_around(self, header: dict[str, str]) -> None:
        self._get("info", "/info/", header)
        self._get("case list", "/rep3d/cases", header)
        ask, post = self.tally.ask, self._server.post
        sample = ask("next sample", lambda: post("/activelearning/random", json={}, headers=header), (200, 404))
        if sample is not None and sample.status_code == 200:  # it is another's share: he would be refused
            path = f"/rep3d/leases/{sample.json()['id']}"
            ask("give back", lambda: self._server.request("DELETE", path, headers=header))

    def segment(self, name: str, case: str) -> None:
        """Ask for a segmentation, and wait for it."""
        path, header = "/rep3d/voxels/infer/rep3d", self._keys[name]
        options = {"params": {"image": case}, "json": {}, "headers": header, "timeout": _SECONDS}
        self.tally.ask("segment", lambda: self._server.post(path, **options))

    def _leave_in_the_middle(self, case: str, header: dict[str, str]) -> None:
        options = {"params": {"image": case}, "json": {}, "headers": header}
        try:
            self._server.post("/rep3d/voxels/infer/rep3d", timeout=0.1, **options)
        except requests.Timeout:
            self.done["segmentations left in the middle"] += 1

    def submit(self, name: str, case: str, random: np.random.Generator) -> None:
        """Submit a label of random voxels."""
        label = random.choice([0, *LABELS.values()], self._cases[case]).astype(np.uint8)
        path, body = f"/rep3d/voxels/labels/{case}", packed({"label": label}, AFFINE)
        headers = {**VOXELS, **self._keys[name]}
        while True:
            answer = self.tally.ask("submit", lambda: self._server.put(path, data=body, headers=headers), (200, 409))
            if answer is None or answer.status_code == 200:
                break
            self.done["submissions while another had the case"] += 1
            time.sleep(0.1)
        if answer is not None:
            self.acknowledged[case] = (name, label)

    def _get(self, what: str, path: str, header: dict[str, str]) -> None:
        self.tally.ask(what, lambda: self._server.get(path, headers=header, timeout=_SECONDS))

    # An administrator --------------------------------------------------------------------------------------------

    def _administrate(self) -> None:
        ask, server, header = self.tally.ask, self._server, self._admin
        train, batch = "/train/rep3d", "/rep3d/models/rep3d/batch"
        while not self._ended.wait(1.0):
            self._get("status", "/rep3d/status", header)
            trains = ask("info", lambda: server.get("/info/", headers=header))
            if trains is not None and trains.json()["train_stats"]["rep3d"].get("phase") in _IDLE:
                ask("train", lambda: server.post(train, json={}, headers=header), (200, 409, 422))
                self.done["trainings asked for"] += 1
            state = ask("batch state", lambda: server.get(batch, headers=header), (200, 404))
            if state is not None and state.json().get("phase") in _IDLE:
                ask("batch", lambda: server.post(batch, json={"images": "all"}, headers=header), (200, 409))
                self.done["batches asked for"] += 1

    # Many at once ------------------------------------------------------------------------------------------------

    def submit_while_many_wait(self, number: int) -> tuple[list[float], int]:
        """Send many requests for segmentations at once, and meanwhile let every annotator submit every few seconds.

        Returns:
            Seconds of each submission that was sent while segmentations waited, and how many segmentations were
            still unanswered when the last of these was.
        """
        self.tally.seconds.clear()
        names, cases, answered = list(self._keys), list(self._cases), self.tally.seconds["segment"]

        def submissions(place: int) -> None:
            random = np.random.default_rng(place)
            while len(answered) < number // 2:
                time.sleep(random.uniform(0.0, 4.0))
                self.submit(names[place], cases[place], random)

        with ThreadPoolExecutor(number + len(names)) as pool:
            for each in range(number):
                pool.submit(self.segment, names[each % len(names)], cases[each % len(cases)])
            time.sleep(0.5)  # they are all on their way
            for work in [pool.submit(submissions, place) for place in range(len(names))]:
                work.result()
            return self.tally.seconds["submit"][:], number - len(answered)
