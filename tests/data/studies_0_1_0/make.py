"""Makes the studies folder beside this file, with the code of release 0.1.0 (commit 6bb01aa) and with nothing else.

    git worktree add /tmp/old 6bb01aa
    PYTHONPATH=/tmp/old python tests/data/studies_0_1_0/make.py OUT

A server of that code is used as people use it: labels come, are corrected, reviewed and restored, a model is trained,
published, asked. In the end it is killed in the middle of a training. What it answered last is in ``answers.json``, and
the times of the files, by which an interrupted training knows them again, in ``times.json``.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from rep3d.config import Rep3DConfig
from rep3d.network import Rep3D
from tests.rep3d.test_dicom import write_series

import rep3d
from rep3d.checkpoint import save_checkpoint
from rep3d.tasks import TaskConfig
from tests.app.data import write_nifti
from tests.app.server import AppServer

LABELS = {"head": 1, "tail": 3}
SHAPE = (14, 12, 10)
CASES = 8
CONF = {"labels": "head=1,tail=3", "device": "cpu", "train_every": "100", "lease_minutes": "100000"}
MODEL = "/rep3d/models/rep3d"


def organ(seed: int, radius: float = 4.0) -> np.ndarray:
    """Return a ball of which the upper half is the head and the lower half the tail."""
    centre = np.array(SHAPE) / 2 + np.random.default_rng(seed).uniform(-1, 1, 3)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), -1)
    ball = np.linalg.norm(grid - centre, axis=-1) < radius
    return np.where(ball, np.where(grid[..., 2] > centre[2], 1, 3), 0).astype(np.uint8)


def image(path: Path, seed: int) -> Path:
    """Return an image in which the two labels are bright and brighter."""
    noise = np.random.default_rng(seed).normal(0, 1, SHAPE)
    return write_nifti(path, (100 + 40 * organ(seed) + noise).astype(np.int16))


def publish(studies: Path) -> None:
    """Publish an untrained network of a few thousand weights."""
    torch.manual_seed(0)
    config = Rep3DConfig(1, 3, (1, 2, 2, 2), (1, 1, 1, 1), 2, kernel_size=3, generator_kernel=1)
    info = {"version": "v1", "created": "2024-01-01T00:00:00+00:00", "cases": ["elsewhere"], "preset": "tiny"}
    task = TaskConfig("test", LABELS, roi_size=(32, 32, 32))
    save_checkpoint(studies / "rep3d" / "published.pt", Rep3D(config), task, info)


def wait(what: Callable[[], Any], seconds: float = 240) -> Any:
    """Return the first answer that is not empty."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


class Folder:
    """A studies folder, with the server on it."""

    def __init__(self, server: AppServer, scratch: Path) -> None:
        self.server = server
        self._scratch = scratch

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Return the answer to a request that must succeed."""
        answer = self.server.request(method, path, **options)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def submit(self, case: str, values: np.ndarray, tag: str = "final", **params: Any) -> None:
        """Submit a label."""
        file = write_nifti(self._scratch / f"{case}.nii.gz", values)
        self.call(
            "PUT",
            "/datastore/label",
            params={"image": case, "tag": tag},
            files={"label": (file.name, file.read_bytes())},
            data={"params": json.dumps(params)},
        )

    def use(self) -> None:
        """All that people do with it, up to two versions."""
        self.call("POST", "/infer/rep3d", params={"image": "case_1", "output": "json"})
        self.submit("case_1", organ(1), user="anna")
        self.submit("case_1", organ(1, 3.5), user="ben")
        self.submit("case_2", np.where(organ(2) == 3, 2, organ(2)), user="anna", label_info={"head": 1, "tail": 2})
        for seed in (3, 4, 5):
            self.submit(f"case_{seed}", organ(seed), user="ben", comment="Grenze unscharf")
        self.submit("case_5", organ(6), tag="draft", user="anna")
        self.call("DELETE", "/datastore/label", params={"id": "case_5", "tag": "draft"})
        self.submit("case_6", organ(7), tag="draft", user="anna")
        self.submit("case_4", organ(4, 3.2), user="anna")
        entry = self.call("GET", "/rep3d/cases/case_4/history")[1]["entry"]
        self.call("POST", f"/rep3d/cases/case_4/history/{entry}/restore", json={"user": "carl"})
        self.call("POST", "/rep3d/cases/case_3/review", json={"user": "carl"})
        self.call("PUT", "/datastore/image/info", params={"image": "case_7"}, data={"info": '{"note": "von Hand"}'})
        self.submit("gone", organ(8), user="anna")
        self.call("DELETE", "/datastore/image", params={"id": "gone"})
        self.call("POST", "/train/rep3d", json={"iterations": 4, "score_minutes": 5})
        assert self.server.wait_for_training()["phase"] == "done"
        if self.call("GET", f"{MODEL}/versions")["published"] != "v2":
            self.call("POST", f"{MODEL}/versions/v2/publish", json={"by": "carl", "reason": "for the test"})
        self.call("POST", f"{MODEL}/rollback", json={"by": "carl", "reason": "a look at the old one"})
        self.call("POST", f"{MODEL}/versions/v2/publish", json={"by": "carl", "reason": "and back"})
        self.call("POST", "/scoring/uncertainty")
        wait(lambda: self.call("GET", "/rep3d/status")["models"]["rep3d"]["scores"]["top"])
        self.call("POST", f"{MODEL}/batch", json={})
        wait(lambda: self.call("GET", f"{MODEL}/batch")["phase"] == "done")
        self.call("POST", "/rep3d/leases/case_7", json={"user": "anna"})
        self.submit("case_0", organ(0, 3.8), user="anna")  # the training that follows does not count it

    def answers(self) -> dict[str, Any]:
        """Return what the server says, by address."""
        cases = self.call("GET", "/rep3d/cases")
        addresses = ["/rep3d/cases", "/rep3d/leases", "/datastore/?output=all", f"{MODEL}/versions", f"{MODEL}/batch"]
        addresses += [f"{MODEL}/versions/v1", f"{MODEL}/versions/v2"]
        addresses += [f"/rep3d/cases/{case['id']}/history" for case in cases]
        return {address: self.call("GET", address) for address in addresses}

    def interrupt(self) -> None:
        """Kill the server in the middle of a training."""
        self.call("POST", "/train/rep3d", json={"iterations": 100_000, "max_minutes": 60, "score_minutes": 0})
        wait((self.server.studies / "rep3d" / "models" / "rep3d" / "run" / "state" / "run.pt").exists)
        process = psutil.Process(self.server.pid)
        for one in (*process.children(recursive=True), process):
            one.kill()


def _compact(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def main(out: Path) -> None:
    """Make the folder."""
    assert rep3d.__version__ == "0.1.0", rep3d.__version__
    studies, scratch = out / "studies", out / "scratch"
    scratch.mkdir(parents=True)
    for seed in range(CASES):
        image(studies / f"case_{seed}.nii.gz", seed)
    image(studies / "gone.nii.gz", 8)
    write_nifti(studies / "labels" / "final" / "case_0.nii.gz", organ(0))
    write_series(studies / "scan")
    publish(studies)
    with AppServer(studies, scratch, {**CONF, "labels": "head=1,tail=3,cyst=5"}) as server:
        pass  # a label that is no longer served keeps its value
    with AppServer(studies, scratch, CONF) as server:
        folder = Folder(server, scratch)
        folder.use()
        answers = folder.answers()
        folder.interrupt()
    times = {str(file.relative_to(studies)): file.stat().st_mtime_ns for file in sorted(studies.rglob("*.nii.gz"))}
    lines = ",\n".join(f"{json.dumps(address)}:{_compact(answer)}" for address, answer in answers.items())
    (out / "answers.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    (out / "times.json").write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")
    # Locks of the dead; and what is one file with the second version, which a repository would keep twice.
    for leftover in (*studies.rglob("*.lock"), studies / ".lock", studies / "rep3d/models/rep3d/published.pt"):
        leftover.unlink(missing_ok=True)
    for folder_ in (studies / "rep3d" / "thumbnails", scratch):
        shutil.rmtree(folder_, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
