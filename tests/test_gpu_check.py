"""`make gpu-check` without a GPU: limits hold, what was measured is kept, what it installs is pinned and no PyTorch."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))

import gpu_check  # noqa: E402

# Starts a process that would outlive its parent, says which, and waits with it.
HANGS = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
time.sleep(60)
"""


def test_a_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    todo = [
        gpu_check.Part("bad", ("-c", "print('the reason'); raise SystemExit(3)"), 60),
        gpu_check.Part("good", ("-c", "print('done')"), 60),
    ]
    outcomes = gpu_check.check(todo, tmp_path, time.monotonic() + 120, {"command": "test"})
    assert [outcome.state for outcome in outcomes] == ["failed", "ok"]
    kept = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert (kept["command"], [part["state"] for part in kept["parts"]]) == ("test", ["failed", "ok"])
    assert "the reason" in kept["parts"][0]["output"]


@pytest.mark.slow
def test_a_part_that_hangs_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    (outcome,) = gpu_check.check([gpu_check.Part("hangs", ("-c", HANGS), 8)], tmp_path, time.monotonic() + 120, {})
    assert outcome.state == "stopped"
    child = int(outcome.output)
    until = time.monotonic() + 10  # it was told to end
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_what_no_longer_fits_is_not_run(tmp_path: Path) -> None:
    part = gpu_check.Part("late", ("-c", "print('done')"), 60)
    assert gpu_check.check([part], tmp_path, time.monotonic() + 1, {})[0].state == "not run"


def test_all_parts_together_end_within_nine_minutes() -> None:
    assert gpu_check.SECONDS < 9 * 60
    assert sum(part.seconds for part in gpu_check.parts("cuda", False, ROOT)) < 1.1 * gpu_check.SECONDS


def test_what_is_installed_is_pinned_and_never_pytorch() -> None:
    for module in gpu_check.NEEDED:
        lines = gpu_check.pins([module])
        assert lines and all("==" in line and not line.startswith("torch==") for line in lines), module


def test_a_device_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--device", "cuda:99", "--out", str(tmp_path / "out")]) == 2
    assert "PyTorch cannot use cuda:99" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_training_that_it_times_writes_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = next(one for one in gpu_check.parts("cpu", True, tmp_path) if one.name == "training_base")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", list(part.command))
    runpy.run_path(str(ROOT / part.command[0]), run_name="__main__")
    found = json.loads((tmp_path / "gpu_training_base.json").read_text(encoding="utf-8"))
    assert found["steps"] == 2 and found["step_ms"]["median"] > 0 and isinstance(found["bfloat16"], bool)


@pytest.mark.slow
def test_the_whole_check_runs_on_a_cpu(tmp_path: Path) -> None:
    assert gpu_check.main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    written = {path.name for path in tmp_path.glob("*.json")}
    expected = {part.command[part.command.index("--output") + 1] for part in gpu_check.parts("cpu", True, tmp_path)[1:]}
    assert written == {Path(name).name for name in expected} | {"gpu_check.json"}
    assert json.loads((tmp_path / "gpu_training_base.json").read_text(encoding="utf-8"))["steps"] == 2
