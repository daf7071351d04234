"""200 times kill -9 while four people submit: what was acknowledged is there, under the author and time of its voxels.

Each label map says in its own voxels who sent it and which of his it is, so that nothing else has to be believed.
``REP3D_RESULTS=FOLDER`` writes what was counted to ``FOLDER/kills.json``.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests

from rep3d.keys import KeyBook
from tests.app.data import AFFINE, CONF, SHAPE, write_image
from tests.app.server import AppServer

KILLS = int(os.environ.get("REP3D_KILLS", "200"))
SECONDS = 25 * 60  # after these it stops by itself, and says how far it came; eight minutes are usual
SEED = 14
PEOPLE = ("Anna", "Ben", "Cleo", "Dan")
IMAGES = 6
LONGEST = 1.0  # seconds from the first submission to the kill
SLACK = 1.1  # seconds by which a time in whole seconds may seem early
_BITS = 20


@dataclass
class Sent:
    """One submission.

    Attributes:
        image, person, number: what for, who, and the person's own count.
        began: when it was sent, seconds since 1970.
        ended: when it was acknowledged; None where it never was.
    """

    image: str
    person: int
    number: int
    began: float
    ended: float | None = None


def _label(person: int, number: int) -> bytes:
    """Return a label map whose first voxels are a person and a number."""
    values = np.zeros(SHAPE, np.uint8)
    code = person << 16 | number
    values.flat[:_BITS] = [3 if code >> bit & 1 else 1 for bit in range(_BITS)]
    values[8:14, 8:14, 8:14] = 1
    return gzip.compress(nib.Nifti1Image(values, AFFINE).to_bytes(), 1)


def _code(file: Path) -> tuple[int, int]:
    """Return the person and the number that a label map is of."""
    bits = np.asarray(nib.load(file).dataobj).flat[:_BITS]
    assert set(np.unique(bits)) <= {1, 3}, file
    code = sum(1 << place for place, value in enumerate(bits) if value == 3)
    return code >> 16, code & 0xFFFF


class _Hospital:
    """Four people with keys who submit to a server, again and again.

    Args:
        studies: the studies folder.
    """

    def __init__(self, studies: Path) -> None:
        book = KeyBook(studies / "rep3d")
        self.keys = [{"Authorization": f"Bearer {book.make('annotator', name)[1]}"} for name in PEOPLE]
        self.sent: dict[tuple[int, int], Sent] = {}
        self.refused: Counter[str] = Counter()
        self._numbers = [0] * len(PEOPLE)

    def submit_until(self, server: AppServer, gone: threading.Event, seed: int) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._submit, args=(server, gone, person, random.Random(f"{seed} {person}")))
            for person in range(len(PEOPLE))
        ]
        for thread in threads:
            thread.start()
        return threads

    def _submit(self, server: AppServer, gone: threading.Event, person: int, chance: random.Random) -> None:
        with requests.Session() as session:
            while not gone.is_set():
                self._numbers[person] += 1
                number = self._numbers[person]
                one = Sent(f"case_{chance.randrange(IMAGES)}", person, number, time.time())
                self.sent[person, number] = one
                with contextlib.suppress(requests.RequestException):  # it was killed: nobody knows what became of it
                    answer = session.put(
                        f"{server.url}/datastore/label",
                        params={"image": one.image},
                        files={"label": ("label.nii.gz", _label(person, number))},
                        headers=self.keys[person],
                        timeout=30,
                    )
                    if answer.ok:
                        one.ended = time.time()
                    else:
                        self.refused[f"{answer.status_code} {answer.text[:100]}"] += 1


class _Books:
    """What the folder and the server say after a restart, against what was sent."""

    def __init__(self, studies: Path, hospital: _Hospital) -> None:
        self._studies, self._hospital = studies, hospital
        self._history: dict[Path, tuple[int, int]] = {}
        self.wrong: list[str] = []
        self.lost: set[tuple[int, int]] = set()
        self.leftovers: set[str] = set()

    def check(self, server: AppServer, scratch: Path, since: float) -> None:
        """Compare all; ``since`` is when the last server was started."""
        labels = self._studies / "labels" / "final"
        now = {file.name.split(".")[0]: _code(file) for file in labels.glob("*.nii.gz")}
        for file in (self._studies / "rep3d" / "history").rglob("*.nii.gz"):
            if file not in self._history:
                self._history[file] = _code(file)
        kept = {*now.values(), *(code for file, code in self._history.items() if file.exists())}
        self.lost |= {code for code, one in self._hospital.sent.items() if one.ended is not None and code not in kept}
        for image, code in now.items():
            told = server.get(f"/rep3d/cases/{image}", headers=self._hospital.keys[0]).json()
            self._check_author(image, code, told)
            self._check_latest(image, self._hospital.sent[code], since)
        self.leftovers |= set(_leftovers(self._studies, scratch))

    def _check_author(self, image: str, code: tuple[int, int], told: dict[str, Any]) -> None:
        one = self._hospital.sent[code]
        when = datetime.fromisoformat(told["time"]).timestamp() if told["time"] else 0.0
        last = one.ended or one.began + 60
        if (one.image, PEOPLE[one.person]) != (image, told["author"]) or not one.began - SLACK <= when <= last + SLACK:
            self.wrong.append(f"{image} has {one}, and it is said to be {told['author']}'s of {told['time']}")

    def _check_latest(self, image: str, current: Sent, since: float) -> None:
        """Nothing that was acknowledged before a later one was sent may be the current label."""
        if current.ended is None:
            return
        for later in self._hospital.sent.values():
            newer = later.image == image and later.ended is not None and later.began > current.ended
            if newer and later.began >= since:
                self.lost.add((later.person, later.number))


def _leftovers(studies: Path, scratch: Path) -> list[str]:
    """Return files that no orderly server leaves: half-written ones, and folders that uploads were received in."""
    hidden = {str(file.relative_to(studies)) for file in studies.rglob(".*") if not file.name.endswith("lock")}
    halves = {str(file.relative_to(studies)) for word in ("part", "tmp") for file in studies.rglob(f"*.{word}*")}
    folders = sorted((scratch / "tmp").glob("rep3d-label-*"), key=lambda folder: folder.stat().st_mtime)
    earlier = {f"tmp/{folder.name}" for folder in folders[:-1]}  # the last one is the running server's
    return [*hidden, *halves, *earlier]


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_kill_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    scratch.mkdir()
    for number in range(IMAGES):
        write_image(studies / f"case_{number}.nii.gz", number)
    hospital = _Hospital(studies)
    books = _Books(studies, hospital)
    chance = random.Random(SEED)
    server = AppServer(studies, scratch, {**CONF, "keys": "on"})
    began = time.monotonic()
    kills, since = 0, 0.0
    while True:
        server.launch()
        server.wait_until_ready()
        books.check(server, scratch, since)
        if kills == KILLS or time.monotonic() - began > SECONDS:
            break
        since = time.time()
        gone = threading.Event()
        threads = hospital.submit_until(server, gone, kills)
        time.sleep(chance.uniform(0.0, LONGEST))
        family = psutil.Process(server.pid).children(recursive=True)
        psutil.Process(server.pid).kill()
        gone.set()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for thread in threads:
            thread.join()
        kills += 1
    server.stop()
    acknowledged = sum(one.ended is not None for one in hospital.sent.values())
    result = {
        "command": "REP3D_RESULTS=docs/results make test-slow ARGS=tests/attack/test_kills.py",
        "kills": kills,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "submitted": len(hospital.sent),
        "acknowledged": acknowledged,
        "acknowledged_lost": len(books.lost),
        "wrong_author_or_time": len(books.wrong),
        "leftovers": sorted(books.leftovers),
        "refused": dict(hospital.refused),
    }
    if "REP3D_RESULTS" in os.environ:
        file = Path(os.environ["REP3D_RESULTS"]) / "kills.json"
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    assert kills == KILLS, result
    assert acknowledged > kills, result
    assert (books.lost, books.wrong, books.leftovers, hospital.refused) == (set(), [], set(), Counter()), result
