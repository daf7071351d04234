"""The helper process as Slicer sees it: real child processes, against a server that misbehaves on request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
from Rep3DLabelLib.worker import jobs
from Rep3DLabelLib.worker.jobs import Job, JobError, Worker

from tests.fake_server import FakeServer

KEY = 'k3y-"that\\nobody-may-see'


class Desk:
    """A worker and what came of its jobs, in order."""

    def __init__(self, worker: Worker, url: str = "http://127.0.0.1:9") -> None:
        self.worker, self.url = worker, url
        self.came: list[tuple[str, str, Any]] = []
        self.longest = 0.0

    def ask(self, op: str, name: str | None = None, key: str = "", times: dict | None = None, **args: Any) -> Job:
        name = name or op
        server = {"url": self.url, "api_key": key, "verify": True, "client_id": "somebody", "timeouts": times or {}}
        return self.worker.submit(
            op,
            {"server": server, **args},
            lambda value: self.came.append((name, "done", value)),
            lambda error: self.came.append((name, "failed", error)),
            lambda progress: self.came.append((name, "progress", progress)),
        )

    def poll(self) -> None:
        start = time.perf_counter()
        self.worker.poll()
        self.longest = max(self.longest, time.perf_counter() - start)

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.came[-5:]
            self.poll()
            time.sleep(0.005)

    def finish(self, seconds: float = 20.0) -> list[tuple[str, str, Any]]:
        """Waits for all jobs; gives what ended, in order."""
        self.until(lambda: not self.worker.pending, seconds)
        return [event for event in self.came if event[1] != "progress"]

    def result(self, seconds: float = 20.0) -> Any:
        """Waits for the only job."""
        ((_, how, value),) = self.finish(seconds)
        self.came.clear()
        return value if how == "done" else pytest.fail(str(value))

    def error(self, seconds: float = 20.0) -> JobError:
        ((_, how, value),) = self.finish(seconds)
        assert how == "failed", value
        self.came.clear()
        return value


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


@pytest.fixture
def desk(tmp_path: Path, server: FakeServer) -> Iterator[Desk]:
    worker = Worker(tmp_path / "helper", sys.executable)
    yield Desk(worker, server.url)
    pid = worker.pid
    worker.close()
    worker.close()
    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(10)


def image_file(path: Path, shape: tuple[int, ...] = (6, 5, 4)) -> Path:
    values = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.diag([-1.0, 1.0, 2.0, 1.0])), path)
    return path


# ---- results and errors


def test_a_result_comes_by_poll_only(desk: Desk, tmp_path: Path) -> None:
    image_file(tmp_path / "Bild ü.nii.gz")
    desk.ask("read_image", path=str(tmp_path / "Bild ü.nii.gz"), folder=str(tmp_path))
    time.sleep(0.3)
    assert desk.came == []
    volume = desk.result()["volume"]
    assert np.load(volume["voxels"]).shape == (4, 5, 6) and volume["source"].endswith("Bild ü.nii.gz")


def test_errors_come_with_their_kind(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    desk.ask("read_image", path=str(tmp_path / "none.nii"), folder=str(tmp_path))
    assert desk.error().kind == "LocalProblem"
    (tmp_path / "a.nii").write_bytes(b"garbage")
    desk.ask("read_image", path=str(tmp_path / "a.nii"), folder=str(tmp_path))
    assert desk.error().kind == "BadAnswer"
    server.on("POST", "/train/rep3d", {"detail": "a training runs"}, status=409)
    desk.ask("train_start", model="rep3d")
    error = desk.error()
    assert (error.kind, error.status, error.detail) == ("ConflictError", 409, "a training runs")
    assert error.state == "failed"
    server.on("GET", "/rep3d/cases", {"detail": "busy"}, status=503)
    desk.ask("cases", model="rep3d")
    error = desk.error()
    assert (error.kind, error.status, error.state) == ("ServerBusy", 503, "busy")
    desk.url = "http://127.0.0.1:9"
    desk.ask("cases")
    error = desk.error()
    assert (error.kind, error.state, error.status) == ("ServerUnreachable", "unreachable", None)
    desk.url = "no address"
    desk.ask("cases")
    assert desk.error().kind == "InvalidAddress"


def test_a_mistake_of_ours_is_an_internal_error_with_its_traceback_in_the_log(desk: Desk) -> None:
    desk.ask("history")
    error = desk.error()
    assert error.kind == "InternalError" and "KeyError: 'image_id'" in error.message
    assert "Traceback" in desk.worker.log.read_text() and "Traceback" not in error.message
    desk.ask("no such operation")
    error = desk.error()
    assert error.kind == "InternalError" and "no such operation" in error.message
    with pytest.raises(TypeError):
        desk.ask("cases", model=object())
    assert desk.worker.pending == ()


def test_a_test_tells_the_state_and_what_the_server_is(desk: Desk, server: FakeServer) -> None:
    desk.ask("test")
    report = desk.result()
    assert (report["state"], report["url"]) == ("ready", server.url)
    assert report["info"]["models"]["rep3d"]["labels"] == {"Anterior": 1, "Posterior": 2}
    assert [entry["name"] for entry in report["info"]["models"]["rep3d"]["entries"]] == ["Anterior", "Posterior"]
    assert report["info"]["total"] == 12
    server.on("GET", "/info/", {"detail": "no"}, status=401)
    desk.ask("test")
    report = desk.result()
    assert (report["state"], report["info"]) == ("not_allowed", None)


# ---- order, speed


def test_jobs_of_a_lane_keep_their_order_and_others_overtake(desk: Desk, server: FakeServer) -> None:
    server.on("POST", "/rep3d/leases/a", {"detail": "x"}, status=409, delay=0.6)
    server.on("POST", "/rep3d/leases/b", {"detail": "x"}, status=409)
    server.on("GET", "/rep3d/cases", [])
    desk.ask("take", "first", image_id="a")
    desk.ask("take", "second", image_id="b")
    desk.ask("cases", "other", model="rep3d")
    assert [name for name, _, _ in desk.finish()] == ["other", "first", "second"]


def test_six_at_once_and_the_seventh_waits(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=1.5)
    for number in range(7):
        desk.ask("cases", str(number), model="rep3d")
    desk.until(lambda: len(server.received) == 6)
    time.sleep(0.3)
    desk.poll()
    assert len(server.received) == 6 and desk.came == []
    assert [name for name, how, _ in desk.finish() if how == "done"][6] == "6"


@pytest.mark.timed
def test_neither_submit_nor_poll_waits(desk: Desk, server: FakeServer) -> None:
    """The child is busy, its answers are many, and jobs are as large as they get."""
    server.on("GET", "/rep3d/cases", [{"id": str(n), "state": "new", "x": "y" * 500} for n in range(200)])
    longest = 0.0
    for number in range(60):
        start = time.perf_counter()
        desk.ask("cases", f"{number}", filler="z" * 20_000)
        if number:  # the first starts the process
            longest = max(longest, time.perf_counter() - start)
    assert len(desk.finish()) == 60
    assert longest < 0.02 and desk.longest < 0.05, (longest, desk.longest)


@pytest.mark.timed
def test_a_poll_without_news_takes_no_time(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=1.0)
    desk.ask("cases")
    times = []
    while desk.worker.pending:
        start = time.perf_counter()
        desk.worker.poll()
        times.append(time.perf_counter() - start)
        time.sleep(0.002)
    assert sorted(times)[int(len(times) * 0.99) - 1] < 0.005


def test_a_large_job(desk: Desk) -> None:
    desk.ask("history", filler="ü" * 3_000_000)
    assert desk.error(60).kind == "InternalError"


def test_an_exception_in_a_callback_loses_nothing(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    wrong = desk.worker.submit("cases", {"server": {"url": desk.url}}, lambda value: 1 / 0)
    desk.ask("cases", "right")
    time.sleep(1.5)
    with pytest.raises(ZeroDivisionError):
        desk.until(lambda: False)
    assert wrong not in desk.worker.pending
    assert desk.finish()[-1][:2] == ("right", "done")


def test_long_files_of_answers_are_replaced(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    server.on("GET", "/rep3d/cases", [{"id": "a", "state": "new", "x": "y" * 1_500_000}])
    for number in range(12):
        desk.ask("cases", str(number))
    assert [how for _, how, _ in desk.finish()] == ["done"] * 12

    def files() -> list[Path]:
        return list((tmp_path / "helper").glob("answers-*"))

    desk.until(lambda: len(files()) == 1)  # the last answer may be the one that makes a file too long
    assert files()[0].stat().st_size < 8_000_000
    if os.name == "posix":
        assert files()[0].stat().st_mode & 0o077 == 0


# ---- what nobody may see


def test_no_key_is_written(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    server.on("GET", "/rep3d/cases", {"detail": f"the key {KEY} is wrong"}, status=401)
    server.on("GET", "/rep3d/cases/a/history", [{"entry": KEY}])
    desk.ask("cases", key=KEY)
    desk.ask("history", key=KEY)
    desk.ask("history", key=KEY, image_id="a")
    desk.ask("review", key=KEY, image_id=KEY, done=None)
    assert [how for _, how, _ in desk.finish()].count("failed") == 3
    assert server.received[-1].headers["authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in (tmp_path / "helper").iterdir())
    assert written and KEY.encode() not in written and json.dumps(KEY)[1:-1].encode() not in written
    assert KEY not in str(desk.came)
    command = " ".join(psutil.Process(desk.worker.pid).cmdline())
    assert KEY not in command


# ---- the end of processes


def test_a_child_that_is_killed_fails_each_job_and_the_next_job_starts_another(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=5)
    desk.ask("cases", "one")
    desk.ask("cases", "two")
    desk.until(lambda: len(server.received) >= 2)
    desk.ask("cases", "never sent")
    os.kill(desk.worker.pid, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    ended = desk.finish()
    assert [name for name, _, _ in ended] == ["one", "two", "never sent"]
    assert {error.kind for _, _, error in ended} == {"HelperEnded"}
    assert "signal 9" in ended[0][2].message and ended[0][2].state == "failed"
    desk.came.clear()
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")
    assert desk.result() == {"cases": []}
    assert len(list(desk.worker.log.parent.glob("answers-*"))) == 1


def test_a_child_killed_between_two_jobs_is_replaced_without_a_word(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")
    desk.result()
    child = psutil.Process(desk.worker.pid)
    child.kill()
    child.wait(5)
    desk.ask("cases")
    assert desk.result() == {"cases": []}


def test_answers_of_a_child_that_died_are_not_lost(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases", "told")
    desk.until(lambda: server.received)
    time.sleep(0.5)  # it has answered, nobody has looked
    server.on("GET", "/rep3d/cases", [], delay=5)
    desk.ask("cases", "lost")
    time.sleep(0.3)
    psutil.Process(desk.worker.pid).kill()
    assert [(name, how) for name, how, _ in desk.finish()] == [("told", "done"), ("lost", "failed")]


def test_a_python_that_cannot_run(tmp_path: Path) -> None:
    desk = Desk(Worker(tmp_path, str(tmp_path / "no python")))
    desk.ask("cases")
    assert desk.came == []
    error = desk.error()
    assert error.kind == "LocalProblem" and "no python" in error.message
    bad = tmp_path / "bad"
    bad.write_text("#!/bin/sh\necho the library is missing >&2\nexit 4\n")
    bad.chmod(0o755)
    desk = Desk(Worker(tmp_path, str(bad)))
    desk.ask("cases")
    error = desk.error()
    assert error.kind == "HelperEnded"
    assert "code 4" in error.message and "the library is missing" in error.message


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk = Desk(Worker(tmp_path / "file" / "helper", sys.executable))
    desk.ask("cases")
    error = desk.error()
    assert error.kind == "LocalProblem" and "Check free space" in error.message


@pytest.mark.skipif(os.name != "posix" or not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_answers_that_cannot_be_written_end_the_child_with_a_word(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, str(Path(jobs.__file__).with_name("main.py")), "--events", "/dev/full"],
        input=b"",
        capture_output=True,
        timeout=30,
    )
    assert child.returncode == 3 and b"No space left" in child.stderr


@pytest.mark.timed
def test_closing_waits_for_nothing_and_leaves_no_process(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=20)
    desk.ask("cases")
    desk.until(lambda: server.received)
    child = psutil.Process(desk.worker.pid)
    start = time.perf_counter()
    desk.worker.close()
    assert time.perf_counter() - start < 0.05
    child.wait(5)
    desk.poll()
    assert desk.came == [] and desk.worker.pending == () and desk.worker.pid is None
    assert not list(desk.worker.log.parent.glob("answers-*"))
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")  # and it can be used again
    assert desk.result() == {"cases": []}


def test_a_change_that_was_asked_for_is_carried_out_before_the_child_ends(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    server.on("DELETE", "/rep3d/leases/case_1", {})
    desk.ask("cases")
    desk.result()
    child = psutil.Process(desk.worker.pid)
    desk.ask("release", image_id="case_1")
    desk.worker.close()
    child.wait(5)
    assert [request.method for request in server.received] == ["GET", "DELETE"]


def test_a_child_that_hangs_is_killed_by_the_second_close(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")
    desk.result()
    child = psutil.Process(desk.worker.pid)
    child.suspend()
    desk.worker.close()
    time.sleep(0.2)
    assert child.is_running()
    desk.worker.close()
    assert child.wait(5) is not None or not child.is_running()


PARENT = """
import sys, time
sys.path.insert(0, {lib!r})
from pathlib import Path
from Rep3DLabelLib.worker.jobs import Worker
worker = Worker(Path({folder!r}), sys.executable)
worker.submit("cases", {{"server": {{"url": {url!r}}}}})
while not {marker!r} or not Path({marker!r}).exists():
    worker.poll()
    print(worker.pid, flush=True)
    time.sleep(0.05)
"""


def parent(tmp_path: Path, url: str, marker: str) -> tuple[subprocess.Popen, psutil.Process]:
    lib = str(Path(jobs.__file__).parents[2])
    code = textwrap.dedent(PARENT.format(lib=lib, folder=str(tmp_path / "helper"), url=url, marker=marker))
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert started.stdout is not None
    return started, psutil.Process(int(started.stdout.readline()))


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_child_ends_with_its_parent(server: FakeServer, tmp_path: Path, how: str) -> None:
    server.on("GET", "/rep3d/cases", [], delay=60)
    marker = tmp_path / "marker"
    started, child = parent(tmp_path, server.url, str(marker) if how == "ended" else "")
    deadline = time.monotonic() + 20
    while not server.received and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.received
    if how == "killed":
        started.kill()
    else:
        marker.touch()
    started.wait(10)
    assert started.stdout is not None
    started.stdout.close()
    with contextlib.suppress(psutil.NoSuchProcess):
        assert child.wait(10) is not None or not child.is_running()
    assert not child.is_running()
    deadline = time.monotonic() + 5
    while list((tmp_path / "helper").glob("answers-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not list((tmp_path / "helper").glob("answers-*"))


@pytest.mark.skipif(os.name != "posix", reason="signals to a group")
def test_control_c_does_not_end_the_child(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")
    desk.result()
    os.kill(desk.worker.pid, signal.SIGINT)
    time.sleep(0.2)
    desk.ask("cases")
    assert desk.result() == {"cases": []}


# ---- stopping jobs


def test_a_dropped_job_calls_nobody(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    job = desk.ask("cases", "dropped")
    desk.worker.drop(job)
    desk.worker.drop(job)
    desk.ask("cases", "kept")
    assert [name for name, _, _ in desk.finish()] == ["kept"]
    assert len(server.requests_to("/rep3d/cases")) == 1  # it was not even asked


def test_dropping_a_slow_download_stops_it(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    content = image_file(tmp_path / "image.nii", (64, 64, 64)).read_bytes() * 8
    server.on("POST", "/activelearning/random", {"id": "a", "name": "a.nii"})
    server.on("GET", "/datastore/image", content, pause=1.0, headers={"Content-Disposition": 'filename="a.nii"'})
    folder = tmp_path / "cases"
    folder.mkdir()
    job = desk.ask("next_sample", strategy="random", folder=str(folder))
    desk.until(lambda: server.requests_to("/datastore/image"))
    time.sleep(0.3)
    desk.worker.drop(job)
    told = len(desk.came)
    server.on("GET", "/rep3d/cases", [])
    desk.ask("cases")
    desk.until(lambda: not desk.worker.pending)
    time.sleep(1.3)
    desk.poll()
    assert [name for name, _, _ in desk.came[told:]] == ["cases"]
    assert list(folder.iterdir()) == []  # no half file
    (returned,) = server.requests_to("/rep3d/leases/a")  # others may have it
    assert returned.method == "DELETE"


def test_dropping_a_slow_segmentation_cancels_it_at_the_server(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    server.on("POST", "/infer/rep3d", {"detail": "cancelled"}, status=409, delay=2.0)
    server.on("DELETE", "/rep3d/requests/r1", {"detail": "unknown"}, status=404)  # it has not arrived there yet
    server.then("DELETE", "/rep3d/requests/r1", {"id": "r1", "state": "cancelled"})
    args = {"image_id": "a", "image": "x", "model": "rep3d", "request_id": "r1", "folder": str(tmp_path)}
    job = desk.ask("infer", **args)
    desk.until(lambda: server.requests_to("/infer/rep3d"))
    desk.worker.drop(job)
    desk.until(lambda: len(server.requests_to("/rep3d/requests/r1")) == 2)
    time.sleep(0.8)
    assert len(server.requests_to("/rep3d/requests/r1")) == 2
    desk.poll()
    assert [how for _, how, _ in desk.came if how != "progress"] == []


def test_a_segmentation_is_cancelled_when_slicer_ends(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    server.on("POST", "/infer/rep3d", {"detail": "cancelled"}, status=409, delay=5.0)
    server.on("DELETE", "/rep3d/requests/r1", {"id": "r1", "state": "cancelled"})
    args = {"image_id": "a", "image": "x", "model": "rep3d", "request_id": "r1", "folder": str(tmp_path)}
    desk.ask("infer", **args)
    desk.until(lambda: server.requests_to("/infer/rep3d"))
    child = psutil.Process(desk.worker.pid)
    desk.worker.close()
    child.wait(5)
    assert len(server.requests_to("/rep3d/requests/r1")) == 1


def test_jobs_that_hang_and_were_dropped_make_room(desk: Desk, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=10)
    hanging = [desk.ask("cases", str(number)) for number in range(6)]
    desk.until(lambda: len(server.requests_to("/rep3d/cases")) == 6)
    server.on("GET", "/rep3d/cases/a/history", [])
    desk.ask("history", image_id="a")
    time.sleep(0.3)
    desk.poll()
    assert len(desk.worker.pending) == 7
    for job in hanging:
        desk.worker.drop(job)
    assert desk.result(3) == {"entries": []}


def test_a_submission_that_is_dropped_goes_on(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    """Nobody knows how much of it the server has; the next one waits for it."""
    label = image_file(tmp_path / "label.nii.gz")
    server.on("PUT", "/datastore/label", {"label": "a"}, delay=0.7)
    server.on("POST", "/rep3d/leases/b", {"detail": "x"}, status=409)
    job = desk.ask("submit", image_id="a", path=str(label))
    desk.until(lambda: any(how == "progress" for _, how, _ in desk.came))
    desk.worker.drop(job)
    desk.ask("take", image_id="b")
    assert desk.finish()[-1][0] == "take"
    assert [request.path for request in server.received] == ["/datastore/label", "/rep3d/leases/b"]


def test_how_far_a_job_is(desk: Desk, server: FakeServer, tmp_path: Path) -> None:
    content = image_file(tmp_path / "image.nii", (64, 64, 64)).read_bytes()
    server.on("POST", "/activelearning/random", {"id": "a", "name": "a.nii", "used_strategy": "first", "reason": "why"})
    server.on("GET", "/datastore/image", content, pause=0.3, headers={"Content-Disposition": 'filename="a.nii"'})
    desk.ask("next_sample", strategy="random", folder=str(tmp_path))
    ((_, _, value),) = desk.finish()
    assert (value["id"], value["used_strategy"], value["reason"]) == ("a", "first", "why")
    told = [event[2] for event in desk.came if event[1] == "progress"]
    assert any(0 < one["done"] < one["total"] == len(content) for one in told if one["stage"] == "downloading")
    stages = [one["stage"] for one in told]
    assert list(dict.fromkeys(stages)) == ["asking", "downloading", "decoding"]
