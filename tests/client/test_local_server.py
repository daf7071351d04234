"""A server on this computer: real child processes, from start to stop, with nothing left of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from Rep3DLabelLib import processes
from Rep3DLabelLib.local import notes as local_notes
from Rep3DLabelLib.local.log import LogReader
from Rep3DLabelLib.local.pythons import candidate_pythons, find_app, python_of
from Rep3DLabelLib.local.server import FAILED, RUNNING, STARTING, STOPPED, STOPPING, LocalServer, leftovers
from Rep3DLabelLib.processes import clean_environment, process_command, process_mark

from tests.app.data import write_image
from tests.app.server import APP_DIR

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for a server is a script for Unix")

# In place of Python: called with the arguments of a server, it does what the file `behaviour` beside it says.
FAKE = """#!{python}
import json, os, pathlib, signal, subprocess, sys, time
pathlib.Path({folder!r}, "arguments.json").write_text(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]))
exec(pathlib.Path({folder!r}, "behaviour").read_text())
"""
READY = "print('[now] [INFO] Uvicorn running on http://127.0.0.1:1 (Press CTRL+C to quit)', flush=True)\n"
FOREVER = "time.sleep(600)\n"


class Place:
    """Folders for a server, a stand-in for Python, and the servers to stop afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.studies, self.own, self.app = folder, folder / "images", folder / "own", folder / "app"
        self.studies.mkdir()
        self.app.mkdir()
        (self.app / "main.py").touch()
        self.python = folder / "python"
        self.python.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        self.servers: list[LocalServer] = []

    def server(self, behaviour: str = READY + FOREVER, **settings: object) -> LocalServer:
        (self.folder / "behaviour").write_text(behaviour)
        given = {"app": self.app, **settings}
        made = LocalServer(given.pop("python", self.python), given.pop("studies", self.studies), self.own, **given)
        self.servers.append(made)
        return made


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    yield made
    for server in made.servers:
        if server._child is not None:
            server._child.kill()
            wait(lambda server=server: server.poll() in (STOPPED, FAILED))


def wait(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.02)


def reached(server, *states, seconds=60.0):
    wait(lambda: server.poll() in states, seconds)
    return server.state


def running_in(folder):
    """Return processes that work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_from_start_to_stop(place):
    server = place.server(labels=" a,b ", conf={"device": "cpu"})
    assert (server.state, server.url, server.pid) == (STOPPED, "", None)
    assert server.poll() == STOPPED and server.log_lines(5) == []
    begin = time.monotonic()
    server.start()
    assert time.monotonic() - begin < 1 and server.state == STARTING
    server.start()  # a second time does nothing
    assert reached(server, RUNNING, FAILED) == RUNNING and server.url in server.message
    arguments, environment, folder = json.loads((place.folder / "arguments.json").read_text())
    port = server.url.rpartition(":")[2]
    assert arguments[:3] == ["-m", "monailabel.main", "start_server"]
    assert arguments[3:11] == [
        *["--app", str(place.app), "--studies", str(place.studies), "--host", "127.0.0.1", "--port", port]
    ]
    assert arguments[11:] == ["--conf", "labels", "a,b", "--conf", "device", "cpu"]
    assert folder == str(place.own) and environment["PYTHONUNBUFFERED"] == "1"
    assert server.log_lines(9) == ["[now] [INFO] Uvicorn running on http://127.0.0.1:1 (Press CTRL+C to quit)"]
    server.stop()
    assert server.state == STOPPING
    assert reached(server, STOPPED, FAILED) == STOPPED
    assert not running_in(place.own) and not list(place.own.glob("*.json"))
    server.stop()
    assert server.poll() == STOPPED
    server.start()  # and once more
    assert reached(server, RUNNING, FAILED) == RUNNING


def test_one_that_does_not_end_in_order_is_killed_with_its_children(place):
    child = (
        f"subprocess.Popen([{sys.executable!r}, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(600)'])\n"
    )
    server = place.server("signal.signal(15, signal.SIG_IGN)\n" + child + READY + FOREVER, grace=0.5)
    server.start()
    reached(server, RUNNING)
    wait(lambda: len(running_in(place.own)) == 2)
    server.stop()
    assert server.poll() == STOPPING
    reached(server, STOPPED)
    wait(lambda: not running_in(place.own), 5)


def test_children_of_one_that_dies_do_not_stay(place):
    child = (
        f"subprocess.Popen([{sys.executable!r}, '-c', 'import signal, time; signal.signal(15, 1); time.sleep(600)'])\n"
    )
    server = place.server(
        child + READY + "time.sleep(1)\nprint('[a] [b] (x:1) - out of memory', flush=True)\nos._exit(7)\n"
    )
    server.start()
    assert reached(server, FAILED) == FAILED
    assert "exit code 7" in server.message and "last line was: out of memory" in server.message
    assert str(server.log_file) in server.message
    wait(lambda: not running_in(place.own), 5)


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("os._exit(3)", "exit code 3. It wrote nothing."),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('/usr/bin/python: No module named monailabel'); sys.exit(1)", "is not installed in the environment"),
        ("print('x (ModuleNotFoundError: No module named \\'monailabel\\')'); sys.exit(1)", "is not installed"),
        ("print('ERROR: [Errno 98] error while binding: address already in use'); sys.exit(1)", "Another program uses"),
        (
            "print('[t] [CRITICAL] (main:1) - Rep3D Label cannot start: It knows no label names. Say --conf'); "
            "print('later'); sys.exit(3)",
            "The server cannot start: It knows no label names. Say --conf",
        ),
    ],
)
def test_why_it_did_not_start(place, behaviour, words):
    server = place.server(behaviour)
    server.start()
    assert reached(server, FAILED, RUNNING) == FAILED
    assert words in server.message
    assert not list(place.own.glob("*.json"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"python": ""}, "Choose the Python"),
        ({"python": "no-such-python-anywhere"}, "There is no Python at 'no-such-python-anywhere'"),
        ({"python": __file__}, "There is no Python at"),
        ({"python": "/"}, "There is no Python at"),
        ({"studies": "/no/such/folder"}, "There is no folder '/no/such/folder'"),
        ({"studies": ""}, "There is no folder"),
        ({"app": "/etc"}, "has no main.py"),
    ],
)
def test_what_can_be_known_before(place, settings, words):
    server = place.server(**settings)
    server.start()
    assert server.state == FAILED and words in server.message
    assert not (place.folder / "arguments.json").exists()


def test_a_python_that_cannot_be_started(place):
    place.python.write_text("#!/no/such/interpreter\n")
    server = place.server()
    server.start()
    assert server.state == FAILED and "cannot be started with" in server.message
    server = place.server(app="")
    server.start()
    assert reached(server, FAILED) == FAILED and "cannot be started" in server.message


# ---- the app of an environment


def said(**answer):
    return f"print({json.dumps(json.dumps({'version': [3, 14], 'monailabel': True, 'distutils': True, **answer}))})"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("print('no json')", "does not answer as a Python does"),
        ("print('[1]')", "does not answer as a Python does"),
        ("sys.exit(1)", "does not answer as a Python does"),
        (said(version=[3, 9], app="/"), "needs Python 3.10 to 3.14, but "),
        (said(version=[3, 15], app="/"), "is 3.15"),
        (said(monailabel=False), "is not installed in the environment"),
        (said(distutils=False, app="/"), "pip install setuptools"),
        (said(error="ImportError: x"), "ImportError: x"),
        (said(app="/no/such"), "/no/such"),
    ],
)
def test_an_environment_without_the_app(place, answer, words):
    server = place.server(answer, app="")
    server.start()
    assert reached(server, FAILED, RUNNING) == FAILED and words in server.message


def test_stopped_while_the_app_is_looked_for(place):
    server = place.server(FOREVER, app="")
    server.start()
    server.stop()
    assert reached(server, STOPPED) == STOPPED
    assert not running_in(place.own)


def test_a_python_that_does_not_answer(tmp_path):
    now = [0.0]
    from Rep3DLabelLib.local.pythons import AppSearch

    (tmp_path / "python").write_text("#!/bin/sh\nsleep 600\n")
    (tmp_path / "python").chmod(0o755)
    search = AppSearch(tmp_path / "python", dict(os.environ), tmp_path, lambda: now[0])
    assert not search.poll()
    now[0] = 1000.0
    assert search.poll() and "did not answer" in search.message and search.app is None


def test_find_app_of_this_environment(tmp_path):
    search = find_app(sys.executable, clean_environment(), tmp_path)
    wait(search.poll)
    assert (search.app, search.message) == (APP_DIR, "")
    assert find_app("no-such-python", {}, tmp_path) is None


def test_candidates(tmp_path, monkeypatch):
    for name in (".venv/bin/python", "conda/bin/python", "path/python3.10"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    environment = {"CONDA_PREFIX": str(tmp_path / "conda"), "PATH": str(tmp_path / "path")}
    found = candidate_pythons(environment, tmp_path / "apps" / "rep3d_label")
    assert found[0] == tmp_path / ".venv" / "bin" / "python"
    assert {tmp_path / "conda" / "bin" / "python", tmp_path / "path" / "python3.10"} <= set(found)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))
    slicer = candidate_pythons({**environment, "SLICER_HOME": str(tmp_path)}, tmp_path / "apps" / "rep3d_label")
    assert tmp_path / "conda" / "bin" / "python" not in slicer
    assert python_of(tmp_path) is None and python_of(" ") is None
    assert python_of("python3.10", environment) == tmp_path / "path" / "python3.10"
    assert python_of("python3.10", {}) is None
    assert python_of(tmp_path / "conda") == tmp_path / "conda" / "bin" / "python"


# ---- its surroundings


def test_nothing_of_slicer_leaks():
    environment = clean_environment(
        {
            **{"PYTHONHOME": "/s/lib", "PYTHONPATH": "/s", "LD_LIBRARY_PATH": "/s/lib", "QT_PLUGIN_PATH": "/s/p"},
            **{"SLICER_HOME": "/opt/Slicer", "QML2_IMPORT_PATH": "/q", "DYLD_LIBRARY_PATH": "/d", "HOME": "/home/a"},
            "PATH": os.pathsep.join(["/opt/Slicer/bin", "/usr/bin", "/opt/Slicer2/bin", "/opt/Slicer"]),
        }
    )
    assert set(environment) == {"HOME", "PATH", "OMP_WAIT_POLICY", "PYTHONUNBUFFERED", "PYTHONUTF8"}
    assert environment["PATH"] == os.pathsep.join(["/usr/bin", "/opt/Slicer2/bin"])


def test_log_is_read_once(tmp_path):
    path = tmp_path / "log"
    reader = LogReader(path)
    assert reader.read() == [] and reader.last(3) == []
    path.write_bytes(b"eins\r\nzw")
    assert reader.read() == ["eins"] and reader.last(3) == ["eins", "zw"]
    with path.open("ab") as log:
        log.write("ölf\nthree".encode()[:-1])
    assert reader.read() == ["zwölf"] and reader.last(2) == ["zwölf", "thre"] and reader.last(0) == []
    with path.open("ab") as log:
        log.write(b"x" * 1_000_000 + b"\n" + b"end\n")
    assert [line[-3:] for _ in range(5) for line in reader.read()] == ["xxx", "end"]
    assert max(map(len, reader.last(9))) <= 1 << 14


# ---- servers that outlive who started them

PARENT = """
import pathlib, sys, time
sys.path.insert(0, {path!r})
from Rep3DLabelLib.local.server import LocalServer
server = LocalServer({python!r}, {studies!r}, {own!r}, app={app!r})
server.start()
while server.poll() == "starting":
    time.sleep(0.05)
print(server.pid, flush=True)
time.sleep(600)
"""


def test_a_server_whose_slicer_crashed_is_found_again(place):
    place.server()  # for its behaviour
    path = str(Path(local_notes.__file__).parents[2])
    given = {"python": str(place.python), "studies": str(place.studies), "own": str(place.own), "app": str(place.app)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(path=path, **given)], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    try:
        assert leftovers(place.own) == ()  # its owner runs: it is not ours to touch
        parent.kill()
        parent.wait()
        (found,) = leftovers(place.own)
        assert (found.pid, found.studies) == (pid, str(place.studies)) and found.url.startswith("http://127.0.0.1:")
        local_notes.tidy(place.own)
        assert leftovers(place.own) == (found,)
        assert found.end()
        wait(lambda: not found.is_alive(), 10)
        assert not found.end() and leftovers(place.own) == ()
        local_notes.tidy(place.own)
        assert not list(place.own.glob("*.json"))
    finally:
        parent.kill()
        parent.stdout.close()
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def test_another_process_of_the_same_number_is_never_touched(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        while not process_command(other.pid):  # for a moment after its start, on a busy machine
            time.sleep(0.01)
        mark = process_mark(other.pid)
        assert mark and mark == process_mark(other.pid) and process_mark(0) != mark and process_mark(2**22 + 1) == ""
        for known in (mark, mark[:-1] + "x", "", " "):  # even the right time: it is no server
            note = {"pid": other.pid, "url": "http://127.0.0.1:1", "studies": "", "mark": known}
            (tmp_path / "server-1.json").write_text(json.dumps({**note, "owner": 2**22 + 1, "owner_mark": "gone"}))
            assert leftovers(tmp_path) == ()
            assert not local_notes.Leftover("", other.pid, "", known).end(by_force=True)
        for rubbish in ("", "[]", "{}", '{"pid": "x"}', "\x00"):
            (tmp_path / "server-1.json").write_text(rubbish)
            assert leftovers(tmp_path) == ()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    assert process_mark(other.pid) == ""


def test_old_logs_go(tmp_path):
    for number in range(9):
        (tmp_path / f"server-{number}.log").touch()
        os.utime(tmp_path / f"server-{number}.log", (number, number))
    (tmp_path / "other.log").touch()
    local_notes.tidy(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other.log", *(f"server-{n}.log" for n in range(4, 9))]


def test_ended_processes_are_looked_at_without_waiting(tmp_path):
    with (tmp_path / "log").open("wb") as log:
        child = processes.Child([sys.executable, "-c", "print('x')"], dict(os.environ), tmp_path, log)
    wait(lambda: child.poll() is not None)
    assert child.poll() == 0 and child.read_output() == b""
    child.kill()
    child.terminate()


# ---- the real server


def test_the_real_server(place):
    write_image(place.studies / "case_0.nii.gz")
    settings = {"python": sys.executable, "app": "", "labels": "head=1,tail=3", "conf": {"device": "cpu"}}
    server = place.server(environment={**os.environ, "PYTHONHOME": "/nowhere", "PYTHONPATH": "/nowhere"}, **settings)
    server.start()
    assert reached(server, RUNNING, FAILED, seconds=180) == RUNNING, server.log_lines(30)
    info = requests.get(f"{server.url}/info/", timeout=60).json()
    assert info["rep3d"]["labels"] == {"head": 1, "tail": 3}
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    server.stop()
    assert reached(server, STOPPED, FAILED) == STOPPED, server.message
    assert not any(process.is_running() for process in family) and not running_in(place.own)
    with socket.socket() as probe:  # its port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))


@pytest.mark.slow
def test_a_second_real_server_on_the_same_folder(place):
    settings = {"python": sys.executable, "app": "", "labels": "head=1,tail=3", "conf": {"device": "cpu"}}
    write_image(place.studies / "case_0.nii.gz")
    first, second = place.server(**settings), place.server(**settings)
    first.start()
    assert reached(first, RUNNING, FAILED, seconds=180) == RUNNING, first.log_lines(30)
    second.start()
    assert reached(second, RUNNING, FAILED, seconds=180) == FAILED
    assert "Another server runs on the studies folder" in second.message
    first.stop()
    assert reached(first, STOPPED, FAILED) == STOPPED, first.message


@pytest.mark.slow
def test_the_real_server_without_labels_or_with_a_port_that_is_taken(place):
    write_image(place.studies / "case_0.nii.gz")
    server = place.server(python=sys.executable, app=APP_DIR)
    server.start()
    assert reached(server, RUNNING, FAILED, seconds=180) == FAILED
    assert "It does not know the label names" in server.message and "--conf labels a,b" in server.message
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = place.server(python=sys.executable, app=APP_DIR, labels="a", port=taken.getsockname()[1])
        server.start()
        assert reached(server, RUNNING, FAILED, seconds=180) == FAILED
    assert "Another program uses that port" in server.message
