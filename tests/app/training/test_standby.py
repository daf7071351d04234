"""The process that waits for the next training: when it is taken, when not, and that none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from lib.training import standby as module
from lib.training.standby import Standby
from lib.training.standby_process import READY, TAKEN
from monailabel.utils.async_tasks import utils

from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import APP_DIR, ROOT, AppServer, until

HARDLY = {"iterations": 1, "learning_rate": 1e-9, "score_minutes": 0}


def _waiting(server: AppServer) -> list[psutil.Process]:
    family = psutil.Process(server.pid).children(recursive=True)
    return [each for each in family if "lib.training.standby_process" in each.cmdline()]


def _ready(server: AppServer, number: int) -> psutil.Process:
    """Return the one that waits, when the server knows that it is ready for the so-manieth time."""
    until(lambda: server.log.count("a process waits for the next training") >= number, 60)
    (process,) = _waiting(server)
    return process


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_next_training_is_the_process_that_waited(tmp_path: Path) -> None:
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    scratch.mkdir()
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
        write_label(studies / "labels" / "final" / f"case_{number}.nii.gz", number)
    publish_small_model(studies)
    with AppServer(studies, scratch, {**CONF, "standby": "on"}) as server:
        waited = _ready(server, 1)
        assert server.post("/train/rep3d", json=HARDLY).ok
        stats = server.wait_for_training()
        assert (stats["phase"], stats["version_made"]) == ("done", "v2")
        assert stats["process"] == {"pid": waited.pid, "created": waited.create_time()}
        task = server.get("/train/").json()
        assert task["status"] == "DONE" and any('"version": "v2"' in line for line in task["details"])
        # Another one waits, until the server is gone.
        waits = _ready(server, 2)
        psutil.Process(server.pid).kill()
        waits.wait(5)


def _command(env: Mapping[str, str], method: str = "train") -> tuple[list[str], dict[str, Any]]:
    command = [sys.executable, "-m", "monailabel.interfaces.utils.app", "-m", method, "-r", "{}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "universal_newlines": True}
    return command, {**pipes, "env": dict(env)}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that are started in the ordinary way; what would wait is a process that only says so."""
    commands: list[list[str]] = []

    def popen(command: list[str], **options: Any) -> Any:
        commands.append(command)
        told = f"print({READY!r}, flush=True); given = input(); print({TAKEN!r}, given, sep='\\n')"
        return subprocess.Popen([sys.executable, "-c", told], **{"stdin": subprocess.DEVNULL, **options})

    monkeypatch.setattr(utils, "subprocess", SimpleNamespace(Popen=popen, PIPE=-1, STDOUT=-2))
    return commands


def test_only_a_training_that_may_see_the_same_takes_it(started: list[list[str]]) -> None:
    standby = Standby(lambda: False, lambda: 1 << 40)
    standby.start(seconds=1e6)
    standby._look()
    (own,) = started
    env = {**os.environ, "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false", "MASTER_PORT": "1300"}
    for command, options in (_command(env, "scoring"), _command({**env, "CUDA_VISIBLE_DEVICES": "1"})):
        with utils.subprocess.Popen(command, **options) as process:
            process.communicate()
        assert started.pop() == command
    command, options = _command(env)
    with utils.subprocess.Popen(command, **options) as process:
        given = json.loads(process.stdout.readline())
    assert given == {"arguments": ["-m", "train", "-r", "{}"], "environment": {"MASTER_PORT": "1300"}}
    assert (started, process.returncode) == ([own], 0)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_does_not_answer_costs_no_training(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(module, "_ANSWER_SECONDS", 0.2)
    standby = Standby(lambda: False, lambda: 1 << 40)
    standby.start(seconds=1e6)
    standby._look()
    assert standby._ready is not None
    os.kill(standby._ready.pid, number)
    command, options = _command({**os.environ, "MONAI_LABEL_DATASTORE_AUTO_RELOAD": "false"})
    with utils.subprocess.Popen(command, **options) as process:
        process.communicate()
    assert started[1:] == [command] and standby._ready is None


def test_none_waits_where_memory_is_short_or_a_training_runs(started: list[list[str]]) -> None:
    free, runs = [3 << 30], [False]
    standby = Standby(lambda: runs[0], lambda: free[0])
    standby.start(seconds=1e6)
    standby._look()
    assert not started
    free[0], runs[0] = 5 << 30, True
    standby._look()
    assert not started
    runs[0] = False
    standby._look()
    assert len(started) == 1 and standby._ready is not None
    process = standby._ready
    free[0] = 3 << 30
    standby._look()
    assert standby._ready is process and process.poll() is None
    free[0] = 1 << 30
    standby._look()
    assert (standby._ready, process.returncode, len(started)) == (None, -9 if os.name != "nt" else 1, 1)


@pytest.mark.slow
def test_it_imports_all_of_it_asks_for_no_gpu_and_ends_with_its_input() -> None:
    path = os.pathsep.join([str(ROOT), str(APP_DIR)])
    with subprocess.Popen(
        [sys.executable, "-m", "lib.training.standby_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline().strip() == READY
        process.stdin.close()
        assert process.wait(5) == 0
    asked = (
        "import importlib, torch; from lib.training import standby_process as waits\n"
        "def ask(*_): raise SystemExit('it asked for a GPU')\n"
        "for name in ('is_available', 'device_count', '_lazy_init'): setattr(torch.cuda, name, ask)\n"
        "for name in (*waits._NUMBERS, *waits._IMPORTED): importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, "-c", asked], env={**os.environ, "PYTHONPATH": path}, check=True)
