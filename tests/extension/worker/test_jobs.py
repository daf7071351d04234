"""The helper process as Slicer sees it: real child processes, against a server that misbehaves on request."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from Rep3DLabelLib.client.answers import Sample
from Rep3DLabelLib.client.answers_cases import Case, Lease
from Rep3DLabelLib.client.answers_status import BatchStatus, ServerState
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry, write
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.worker import jobs
from Rep3DLabelLib.worker.jobs import Job, JobError, Worker
from Rep3DLabelLib.worker.results import Measured
from Rep3DLabelLib.worker.wire import decode, encode

from tests.fake_server import FakeServer
from tests.slicerbench.system.launcher import make_launcher
from tests.voxel_bodies import VOXELS, packed, unpacked

KEY = 'k3y-"that\\nobody-may-see'


class Bench:
    """A worker and what came of its jobs, in order."""

    def __init__(self, worker: Worker, url: str = "http://127.0.0.1:9") -> None:
        self.worker, self.url = worker, url
        self.came: list[tuple[str, str, Any]] = []
        self.times: list[float] = []  # of polls, in seconds

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
        self.times.append(time.perf_counter() - start)

    def until(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.came[-5:]
            self.poll()
            time.sleep(0.005)

    def finish(self, seconds: float = 20.0) -> list[tuple[str, str, Any]]:
        """Wait for all jobs; give what ended, in order."""
        self.until(lambda: not self.worker.pending, seconds)
        return [event for event in self.came if event[1] != "progress"]

    def result(self, seconds: float = 20.0) -> Any:
        """Wait for the only job."""
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
def bench(tmp_path: Path, server: FakeServer) -> Iterator[Bench]:
    worker = Worker(tmp_path / "helper", str(make_launcher(tmp_path)))
    yield Bench(worker, server.url)
    processes = family(worker.pid)
    worker.close()
    worker.close()
    ended(processes)


def family(pid: int | None) -> list[psutil.Process]:
    """Return the launcher of a helper and the helper itself, once it has been started."""
    if pid is None:
        return []
    launcher, deadline = psutil.Process(pid), time.monotonic() + 5
    while not launcher.children() and launcher.is_running() and time.monotonic() < deadline:
        time.sleep(0.005)
    return [launcher, *launcher.children()]


def ended(processes: list[psutil.Process], seconds: float = 5.0) -> None:
    """Assert that processes end, whoever's children they are by now."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, process
                time.sleep(0.005)


IMAGE = np.random.default_rng(0).integers(0, 1000, (64, 64, 64)).astype(np.int16)
CONTENT = packed({"image": IMAGE}, np.diag([-1.0, 1.0, 2.0, 1.0]))
INFER = "/rep3d/voxels/infer/rep3d"


def draft(path: Path) -> dict[str, object]:
    """Return what the worker is told of a draft with a block of one label on an image of 6 x 5 x 4 voxels."""
    layer = np.ones((2, 3, 4), np.uint8)
    data = SegmentationData(
        (layer,), (0, 3, 0, 2, 0, 1), (6, 5, 4), np.eye(4), (SegmentEntry("s", "a", (1, 0, 0), 0, 1),)
    )
    write(path, data)
    return {
        "draft": str(path),
        "values": {"s": 3},
        "priority": [],
        "shape": [6, 5, 4],
        "affine": np.eye(4).tolist(),
    }


# ---- results and errors


def test_a_result_comes_by_poll_only(bench: Bench, tmp_path: Path) -> None:
    bench.ask("measure", **draft(tmp_path / "Bild ü.seg.nrrd"))
    time.sleep(0.3)
    assert bench.came == []
    assert bench.result() == Measured({3: 24}, (), 0, 0.001)


def test_values_come_as_they_were(bench: Bench, server: FakeServer) -> None:
    """What the server says is made a value once, in the helper, and is the same in Slicer."""
    case = Case("a", "submitted", ("final",), {"x": 1.5, "y": None}, "ben", "t", Lease("a", "b", "c", "d"), 0.5, 0.25)
    values = (case, (), {1: (2, 3.5)}, {"@": None}, True, "ü", ServerState(1, 2, "s", "m", batch=BatchStatus("done")))
    assert decode(json.loads(json.dumps(encode(values)))) == values
    with pytest.raises(TypeError, match="decode"):
        encode({"x": Path("a")})
    server.on("GET", "/rep3d/cases", [{"id": "a", "state": "new", "labels": {"x": {"ml": 1.5}}}])
    bench.ask("cases")
    assert bench.result() == (Case("a", "new", labels={"x": 1.5}),)


def test_errors_come_with_their_kind(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    asked = {**draft(tmp_path / "a.seg.nrrd"), "draft": str(tmp_path / "none.seg.nrrd")}
    bench.ask("measure", **asked)
    assert bench.error().kind == "LocalProblem"
    (tmp_path / "none.seg.nrrd").write_bytes(b"garbage")
    bench.ask("measure", **asked)
    assert bench.error().kind == "BadAnswer"
    server.on("POST", "/train/rep3d", {"detail": "a training runs"}, status=409)
    bench.ask("train_start", model="rep3d")
    error = bench.error()
    assert (error.kind, error.status, error.detail) == ("ConflictError", 409, "a training runs")
    assert error.state == "failed"
    server.on("GET", "/rep3d/cases", {"detail": "busy"}, status=503)
    bench.ask("cases", model="rep3d")
    error = bench.error()
    assert (error.kind, error.status, error.state) == ("ServerBusy", 503, "busy")
    bench.url = "http://127.0.0.1:9"
    bench.ask("cases")
    error = bench.error()
    assert (error.kind, error.state, error.status) == ("ServerUnreachable", "unreachable", None)
    bench.url = "no address"
    bench.ask("cases")
    assert bench.error().kind == "InvalidAddress"


def test_a_mistake_of_ours_is_an_internal_error_with_its_traceback_in_the_log(bench: Bench) -> None:
    bench.ask("history")
    error = bench.error()
    assert error.kind == "InternalError" and "KeyError: 'image_id'" in error.message
    assert "Traceback" in bench.worker.log.read_text() and "Traceback" not in error.message
    bench.ask("no such operation")
    error = bench.error()
    assert error.kind == "InternalError" and "no such operation" in error.message
    with pytest.raises(TypeError):
        bench.ask("cases", model=object())
    assert bench.worker.pending == ()


def test_a_test_tells_the_state_and_what_the_server_is(bench: Bench, server: FakeServer) -> None:
    bench.ask("test")
    report = bench.result()
    assert (report.state, report.url) == ("ready", server.url)
    assert report.info.labels_of("rep3d") == (Label("Anterior", 1), Label("Posterior", 2))
    assert report.info.total == 12
    server.on("GET", "/info/", {"detail": "no"}, status=401)
    bench.ask("test")
    report = bench.result()
    assert (report.state, report.info) == ("not_allowed", None)


# ---- order, speed


def test_jobs_of_a_lane_keep_their_order_and_others_overtake(bench: Bench, server: FakeServer) -> None:
    server.on("DELETE", "/rep3d/leases/a", {"detail": "x"}, status=409, delay=0.6)
    server.on("DELETE", "/rep3d/leases/b", {"detail": "x"}, status=409)
    server.on("GET", "/rep3d/cases", [])
    bench.ask("release", "first", image_id="a")
    bench.ask("release", "second", image_id="b")
    bench.ask("cases", "other", model="rep3d")
    assert [name for name, _, _ in bench.finish()] == ["other", "first", "second"]


def test_six_at_once_and_the_seventh_waits(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=1.5)
    for number in range(7):
        bench.ask("cases", str(number), model="rep3d")
    bench.until(lambda: len(server.received) == 6)
    time.sleep(0.3)
    bench.poll()
    assert len(server.received) == 6 and bench.came == []
    assert [name for name, how, _ in bench.finish() if how == "done"][6] == "6"


@pytest.mark.timed
def test_neither_submit_nor_poll_waits(bench: Bench, server: FakeServer) -> None:
    """The child is busy, its answers are many, and jobs are as large as they get."""
    server.on("GET", "/rep3d/cases", [{"id": str(n), "state": "new", "author": "y" * 500} for n in range(200)])
    times = []
    for number in range(60):
        start = time.perf_counter()
        bench.ask("cases", f"{number}", filler="z" * 20_000)
        if number:  # the first starts the process
            times.append(time.perf_counter() - start)
    assert len(bench.finish()) == 60
    # Other programs may have stopped this one once; what waits for the child waits for more than one of 60 answers.
    assert sorted(times)[-2] < 0.02 and sorted(bench.times)[-2] < 0.05, (sorted(times)[-3:], sorted(bench.times)[-3:])


@pytest.mark.timed
def test_a_poll_without_news_takes_no_time(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=1.0)
    bench.ask("cases")
    times = []
    while bench.worker.pending:
        start = time.perf_counter()
        bench.worker.poll()
        times.append(time.perf_counter() - start)
        time.sleep(0.002)
    assert sorted(times)[int(len(times) * 0.99) - 1] < 0.005


def test_a_large_job(bench: Bench) -> None:
    bench.ask("history", filler="ü" * 3_000_000)
    assert bench.error(60).kind == "InternalError"


def test_an_exception_in_a_callback_loses_nothing(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    wrong = bench.worker.submit("cases", {"server": {"url": bench.url}}, lambda value: 1 / 0)
    bench.ask("cases", "right")
    time.sleep(1.5)
    with pytest.raises(ZeroDivisionError):
        bench.until(lambda: False)
    assert wrong not in bench.worker.pending
    assert bench.finish()[-1][:2] == ("right", "done")


def test_long_files_of_answers_are_replaced(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    server.on("GET", "/rep3d/cases", [{"id": "a", "state": "new", "author": "y" * 1_500_000}])
    for number in range(12):
        bench.ask("cases", str(number))
    assert [how for _, how, _ in bench.finish()] == ["done"] * 12

    def files() -> list[Path]:
        return list((tmp_path / "helper").glob("answers-*"))

    bench.until(lambda: len(files()) == 1)  # the last answer may be the one that makes a file too long
    assert files()[0].stat().st_size < 8_000_000
    if os.name == "posix":
        assert files()[0].stat().st_mode & 0o077 == 0


# ---- what nobody may see


def test_no_key_is_written(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    server.on("GET", "/rep3d/cases", {"detail": f"the key {KEY} is wrong"}, status=401)
    server.on("GET", "/rep3d/cases/a/history", [{"entry": KEY}])
    bench.ask("cases", key=KEY)
    bench.ask("history", key=KEY)
    bench.ask("history", key=KEY, image_id="a")
    bench.ask("review", key=KEY, image_id=KEY, done=None)
    assert [how for _, how, _ in bench.finish()].count("failed") == 3
    assert server.received[-1].headers["authorization"] == f"Bearer {KEY}"
    written = b"".join(path.read_bytes() for path in (tmp_path / "helper").iterdir())
    assert written and KEY.encode() not in written and json.dumps(KEY)[1:-1].encode() not in written
    assert KEY not in str(bench.came)
    command = " ".join(psutil.Process(bench.worker.pid).cmdline())
    assert KEY not in command


# ---- the end of processes


def test_a_child_that_is_killed_fails_each_job_and_the_next_job_starts_another(
    bench: Bench, server: FakeServer
) -> None:
    server.on("GET", "/rep3d/cases", [], delay=5)
    bench.ask("cases", "one")
    bench.ask("cases", "two")
    bench.until(lambda: len(server.received) >= 2)
    bench.ask("cases", "never sent")
    launcher, helper = family(bench.worker.pid)
    helper.suspend()  # it hangs, and cannot notice that its input ends
    launcher.kill()
    told = bench.finish()
    assert [name for name, _, _ in told] == ["one", "two", "never sent"]
    assert {error.kind for _, _, error in told} == {"HelperEnded"}
    assert "signal 9" in told[0][2].message and told[0][2].state == "failed"
    ended([launcher, helper], 1)  # the helper too: what was told as failed is not done after all
    bench.came.clear()
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases")
    assert bench.result() == ()
    assert len(list(bench.worker.log.parent.glob("answers-*"))) == 1


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        (signal.SIGKILL, "wrote nothing; the system may have ended it, for lack of memory"),
    ],
)
def test_a_crash_is_told_by_what_the_child_wrote(bench: Bench, server: FakeServer, number: int, words: str) -> None:
    """All that its launcher says of a crash is that there was one."""
    server.on("GET", "/rep3d/cases", [], delay=5)
    bench.ask("cases")
    bench.until(lambda: server.received)
    os.kill(family(bench.worker.pid)[1].pid, number)
    error = bench.error()
    assert error.kind == "HelperEnded" and words in error.message and "Report the problem" not in error.message


def test_a_child_killed_between_two_jobs_is_replaced_without_a_word(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases")
    bench.result()
    processes = family(bench.worker.pid)
    processes[1].kill()
    ended(processes)
    bench.ask("cases")
    assert bench.result() == ()


def test_answers_of_a_child_that_died_are_not_lost(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases", "told")
    bench.until(lambda: server.received)
    time.sleep(0.5)  # it has answered, nobody has looked
    server.on("GET", "/rep3d/cases", [], delay=5)
    bench.ask("cases", "lost")
    time.sleep(0.3)
    family(bench.worker.pid)[1].kill()
    assert [(name, how) for name, how, _ in bench.finish()] == [("told", "done"), ("lost", "failed")]


def test_a_python_that_cannot_run(tmp_path: Path) -> None:
    bench = Bench(Worker(tmp_path, str(tmp_path / "no python")))
    bench.ask("cases")
    assert bench.came == []
    error = bench.error()
    assert error.kind == "LocalProblem" and "no python" in error.message
    bad = tmp_path / "bad"
    bad.write_text("#!/bin/sh\necho the library is missing >&2\nexit 4\n")
    bad.chmod(0o755)
    bench = Bench(Worker(tmp_path, str(bad)))
    bench.ask("cases")
    error = bench.error()
    assert error.kind == "HelperEnded"
    assert "code 4" in error.message and "the library is missing" in error.message


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bench = Bench(Worker(tmp_path / "file" / "helper", sys.executable))
    bench.ask("cases")
    error = bench.error()
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
def test_closing_waits_for_nothing_and_leaves_no_process(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=20)
    bench.ask("cases")
    bench.until(lambda: server.received)
    processes = family(bench.worker.pid)
    start = time.perf_counter()
    bench.worker.close()
    assert time.perf_counter() - start < 0.05
    ended(processes)
    bench.poll()
    assert bench.came == [] and bench.worker.pending == () and bench.worker.pid is None
    assert not list(bench.worker.log.parent.glob("answers-*"))
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases")  # and it can be used again
    assert bench.result() == ()


def test_a_change_that_was_asked_for_is_carried_out_before_the_child_ends(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    server.on("DELETE", "/rep3d/leases/case_1", {})
    bench.ask("cases")
    bench.result()
    processes = family(bench.worker.pid)
    bench.ask("release", image_id="case_1")
    bench.worker.close()
    ended(processes)
    assert [request.method for request in server.received] == ["GET", "DELETE"]


def test_a_child_that_hangs_is_killed_by_the_second_close(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases")
    bench.result()
    processes = family(bench.worker.pid)
    processes[1].suspend()
    bench.worker.close()
    time.sleep(0.2)
    assert processes[1].is_running()
    bench.worker.close()
    ended(processes)


PARENT = """
import signal, sys, time
sys.path.insert(0, {lib!r})
from pathlib import Path
from Rep3DLabelLib.worker.jobs import Worker
signal.signal(signal.SIGINT, lambda number, frame: None)
worker = Worker(Path({folder!r}), {python!r})
server = {{"server": {{"url": {url!r}}}}}
worker.submit("cases", server, lambda value: print("done", flush=True), lambda error: print(error, flush=True))
print(worker.pid, flush=True)
while not Path({marker!r}).exists():
    worker.poll()
    time.sleep(0.02)
worker.submit("release", {{**server, "image_id": "case_1"}})
worker.close()
"""


class Parent:
    """A program with a helper, as Slicer is one, in a session of its own: what it asked the server and what it says."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.marker, self.folder = tmp_path / "end", tmp_path / "helper"
        values = {"lib": str(Path(jobs.__file__).parents[2]), "folder": str(self.folder), "url": url}
        code = PARENT.format(**values, python=str(make_launcher(tmp_path)), marker=str(self.marker))
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.helper = family(int(self.line()))

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self, killed: bool = False) -> None:
        """Let it end, or kill it; with it ends its helper."""
        self.process.kill() if killed else self.marker.touch()
        self.process.communicate(timeout=10)
        ended(self.helper)


@pytest.fixture
def parent(server: FakeServer, tmp_path: Path) -> Iterator[Parent]:
    server.on("GET", "/rep3d/cases", [], delay=1.0)
    made = Parent(tmp_path, server.url)
    deadline = time.monotonic() + 20
    while not server.received and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.received
    yield made
    made.process.kill()
    made.process.wait()


def test_a_child_ends_with_its_parent_that_is_killed(parent: Parent) -> None:
    parent.end(killed=True)
    assert not list(parent.folder.glob("answers-*"))


def test_a_child_ends_with_its_parent_and_carries_out_what_was_asked_for(server: FakeServer, parent: Parent) -> None:
    server.on("DELETE", "/rep3d/leases/case_1", {}, delay=0.3)
    parent.end()
    assert [request.method for request in server.received] == ["GET", "DELETE"]
    assert not list(parent.folder.glob("answers-*"))


@pytest.mark.skipif(os.name != "posix", reason="signals to a group")
def test_control_c_in_slicers_console_does_not_end_the_child(parent: Parent) -> None:
    os.killpg(parent.process.pid, signal.SIGINT)
    assert parent.line() == "done"
    parent.end()


# ---- stopping jobs


def test_a_dropped_job_calls_nobody(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [])
    job = bench.ask("cases", "dropped")
    bench.worker.drop(job)
    bench.worker.drop(job)
    bench.ask("cases", "kept")
    assert [name for name, _, _ in bench.finish()] == ["kept"]
    assert len(server.requests_to("/rep3d/cases")) == 1  # it was not even asked


def test_dropping_a_slow_download_stops_it(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    server.on("POST", "/activelearning/random", {"id": "a", "name": "a.nii"})
    server.on("GET", "/rep3d/voxels/images/a", CONTENT, pause=1.0, headers=VOXELS)
    folder = tmp_path / "cases"
    folder.mkdir()
    job = bench.ask("next_sample", strategy="random", folder=str(folder))
    bench.until(lambda: server.requests_to("/rep3d/voxels/images/a"))
    time.sleep(0.3)
    bench.worker.drop(job)
    told = len(bench.came)
    server.on("GET", "/rep3d/cases", [])
    bench.ask("cases")
    bench.until(lambda: not bench.worker.pending)
    time.sleep(1.3)
    bench.poll()
    assert [name for name, _, _ in bench.came[told:]] == ["cases"]
    assert list(folder.iterdir()) == []  # no half file
    (returned,) = server.requests_to("/rep3d/leases/a")  # others may have it
    assert returned.method == "DELETE"


def ask_for_a_segmentation(bench: Bench, server: FakeServer, folder: Path) -> tuple[Any, str]:
    """Return a job that the server is busy with, and the address under which it can be cancelled there."""
    server.on("POST", INFER, {"detail": "cancelled"}, status=409, delay=2.0)
    job = bench.ask("infer", image_id="a", model="rep3d", folder=str(folder))
    bench.until(lambda: server.requests_to(INFER))
    return job, f"/rep3d/requests/{json.loads(server.requests_to(INFER)[0].body)['request_id']}"


def test_dropping_a_slow_segmentation_cancels_it_at_the_server(
    bench: Bench, server: FakeServer, tmp_path: Path
) -> None:
    job, address = ask_for_a_segmentation(bench, server, tmp_path)
    server.on("DELETE", address, {"detail": "unknown"}, status=404)  # it has not arrived there yet
    server.then("DELETE", address, {"state": "cancelling"})
    bench.worker.drop(job)
    bench.until(lambda: len(server.requests_to(address)) == 2)
    time.sleep(0.8)
    assert len(server.requests_to(address)) == 2
    bench.poll()
    assert [how for _, how, _ in bench.came if how != "progress"] == []


def test_a_segmentation_is_cancelled_when_slicer_ends(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    _, address = ask_for_a_segmentation(bench, server, tmp_path)
    server.on("DELETE", address, {"state": "cancelling"})
    processes = family(bench.worker.pid)
    bench.worker.close()
    ended(processes)
    assert len(server.requests_to(address)) == 1


def test_jobs_that_hang_and_were_dropped_make_room(bench: Bench, server: FakeServer) -> None:
    server.on("GET", "/rep3d/cases", [], delay=10)
    hanging = [bench.ask("cases", str(number)) for number in range(6)]
    bench.until(lambda: len(server.requests_to("/rep3d/cases")) == 6)
    server.on("GET", "/rep3d/cases/a/history", [])
    bench.ask("history", image_id="a")
    time.sleep(0.3)
    bench.poll()
    assert len(bench.worker.pending) == 7
    for job in hanging:
        bench.worker.drop(job)
    assert bench.result(3) == ()


def test_a_submission_that_is_dropped_goes_on(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    """Nobody knows how much of it the server has; the next one waits for it."""
    server.on("PUT", "/rep3d/voxels/labels/a", {"label": "a"}, delay=0.7)
    server.on("DELETE", "/rep3d/leases/b", {})
    job = bench.ask("submit", image_id="a", **draft(tmp_path / "draft.seg.nrrd"))
    bench.until(lambda: any(how == "progress" for _, how, _ in bench.came))
    bench.worker.drop(job)
    bench.ask("release", image_id="b")
    assert bench.finish()[-1][0] == "release"
    assert [request.path for request in server.received] == ["/rep3d/voxels/labels/a", "/rep3d/leases/b"]
    label = unpacked(server.received[0].body)[1]["label"]
    assert np.array_equal(np.argwhere(label == 3).max(0), (3, 2, 1)) and np.count_nonzero(label) == 24


def test_how_far_a_job_is(bench: Bench, server: FakeServer, tmp_path: Path) -> None:
    server.on("POST", "/activelearning/random", {"id": "a", "name": "a.nii", "used_strategy": "first", "reason": "why"})
    server.on("GET", "/rep3d/voxels/images/a", CONTENT, pause=0.3, headers=VOXELS)
    bench.ask("next_sample", strategy="random", folder=str(tmp_path))
    ((_, _, fetched),) = bench.finish()
    assert fetched.sample == Sample("a", "a.nii", "first", "why")
    told = [event[2] for event in bench.came if event[1] == "progress"]
    assert any(0 < one["done"] < one["total"] == IMAGE.nbytes for one in told if one["stage"] == "downloading")
    stages = [one["stage"] for one in told]
    assert list(dict.fromkeys(stages)) == ["asking", "downloading", "decoding"]
