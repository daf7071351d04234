"""Training in several processes: equal weights, averaged gradients, and no process left behind.

There may be no GPU: two processes on the CPU run the same code with another backend.
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed

from rep3d.errors import ConfigError, NoCasesError, TrainingError
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.predictor import Predictor
from rep3d.training.distributed import Launch, launched, parse_gpus, train_on, training_devices
from rep3d.training.loop import run
from rep3d.training.plan import TrainPlan
from rep3d.training.train import TrainProgress, TrainSettings
from rep3d.training.worker import Worker, leave_group
from tests.conftest import ROOT
from tests.rep3d.balls import TASK, ball_case, small_checkpoint

SETTINGS = TrainSettings(iterations=20, crops=1, learning_rate=5e-3, device="cpu", precision="float32")


def _plan(folder: Path, **changes: object) -> TrainPlan:
    cases = tuple(ball_case(folder, seed) for seed in (1, 2))
    plan = TrainPlan(cases, TASK, SETTINGS, folder / "model.pt", small_checkpoint())
    return replace(plan, **changes)  # type: ignore[arg-type]


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True) if _was_spawned(child)}


def _was_spawned(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in str(child.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it has ended, as other tests' processes may have just now
        return False


def test_two_processes_learn_one_network_and_validate_it(tmp_path: Path) -> None:
    seen: list[TrainProgress] = []
    plan = _plan(tmp_path, validation=(ball_case(tmp_path, 7),), state=tmp_path / "run")
    trained = train_on(["cpu", "cpu"], plan, seen.append)  # each run ends with a check that their weights are the same
    steps = [p for p in seen if p.phase == "training"]
    assert [p.iteration for p in steps] == list(range(1, 21))
    assert steps[0].loss is not None and steps[-1].loss is not None and steps[-1].loss < 0.9 * steps[0].loss
    assert steps[9].epoch == 10 and steps[-1].epochs == 20  # a pass over two cases is one step of two processes
    assert trained.info["validation"]["Ball"] > 0.5 and trained.info["parent"] == "v1"
    other = ball_case(tmp_path, 9)
    Predictor.load(tmp_path / "model.pt", "cpu").segment(other.image, tmp_path / "found.nii.gz")
    assert dice_of_files(tmp_path / "found.nii.gz", other.label, TASK.labels)["Ball"] > 0.5
    assert not (tmp_path / "run").exists() and not _children()
    # One process with the doubled batch, a patch at a time as each of the two had it, has the same losses.
    losses: list[float | None] = []

    def first_five(progress: TrainProgress) -> None:
        losses.extend([progress.loss] * (progress.phase == "training"))
        if len(losses) == 5:
            raise KeyboardInterrupt

    doubled = replace(plan, settings=replace(SETTINGS, batch=2, micro_batch=1), state=None, validation=())
    with pytest.raises(KeyboardInterrupt):
        run(doubled, Worker(torch.device("cpu")), first_five)
    assert losses == pytest.approx([p.loss for p in steps[:5]], rel=1e-4)


def _step(rank: int, folder: str) -> None:
    """One step of two processes, each on its own input; they write their gradients."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    worker = Worker(torch.device("cpu"), rank, 2)
    network = worker.prepare(_linear(0))
    joined = worker.joined(network)
    _loss(joined, rank).backward()
    torch.save([parameter.grad for parameter in network.parameters()], f"{folder}/{rank}.pt")
    assert worker.agree(float(rank + 5), 2.0) == [5.0, 2.0]
    worker.check_same(network)
    with pytest.raises(TrainingError, match="its 2 processes came to different weights"):
        worker.check_same(_linear(rank))
    leave_group()


def _linear(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


def _loss(network: torch.nn.Module, rank: int) -> torch.Tensor:
    torch.manual_seed(10 + rank)
    return network(torch.randn(4, 3)).square().mean()


@pytest.mark.slow
def test_gradients_are_averaged_and_weights_that_differ_are_noticed(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_step, args=(str(tmp_path),), nprocs=2)
    network = _linear(0)
    ((_loss(network, 0) + _loss(network, 1)) / 2).backward()
    for rank in (0, 1):
        for got, parameter in zip(torch.load(tmp_path / f"{rank}.pt"), network.parameters(), strict=True):
            torch.testing.assert_close(got, parameter.grad)


# Trains as `rep3d train` under torchrun, or alone with the batch that is given; a network without batch statistics.
SCRIPT = """
import sys
from pathlib import Path
from rep3d.checkpoint import Checkpoint
from rep3d.nn.zoo import build_model
from rep3d.training.train import TrainSettings, train
from rep3d.training.worker import leave_group
from tests.conftest import ROOT
from tests.rep3d.balls import TASK, ball_case
import torch

folder, batch = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
torch.set_num_threads(1)
info = {"version": "v1", "generation": 1, "preset": "segresnet"}
start = Checkpoint(build_model("segresnet").eval(), TASK, info)
settings = TrainSettings(iterations=6, batch=batch, loss="dice_ce", preset="segresnet", device="cpu", val_interval=3)
from rep3d.data.cases import Case
cases = [Case(f"case_{i}", folder / f"case_{i}_image.nii.gz", folder / f"case_{i}_label.nii.gz") for i in (1, 2, 7)]
model, table = folder / f"{batch}.pt", folder / f"{batch}.csv"
made = train(cases[:2], TASK, settings, model, start, validation=cases[2:], table=table)
print("trained", made.info["validation_measured"], flush=True)
leave_group()
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_have_the_losses_of_one_with_the_doubled_batch(tmp_path: Path) -> None:
    for seed in (1, 2, 7):
        ball_case(tmp_path, seed)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = ("-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d")
    ports = ("--rdzv-endpoint=localhost:0",)
    for command, batch in (((*torchrun, *ports, script), 1), ((script,), 2)):
        line = [sys.executable, *map(str, command), str(tmp_path), str(batch)]
        done = subprocess.run(line, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("trained ['case_7']") == 1  # one process speaks for both
    losses = {}
    for batch in (1, 2):
        with (tmp_path / f"{batch}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses[batch] = [float(row["loss"]) for row in rows]
        assert [row["step"] for row in rows] == list("123456") and float(rows[5]["validation_dice"]) >= 0
    assert losses[1] == pytest.approx(losses[2], rel=1e-4) and losses[1][5] < losses[1][0]


def test_what_torchrun_says_to_a_process_decides_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launched() == Launch(3, 4, 1)
    assert training_devices(TrainSettings()) == ["cuda:1"] and training_devices(TrainSettings(device="cpu")) == ["cpu"]
    for changes in ({"gpus": 2}, {"stages": "auto"}, {"device": "cuda:0"}):
        with pytest.raises(ConfigError, match="torchrun gives each process its GPU"):
            training_devices(TrainSettings(**changes))  # type: ignore[arg-type]
    monkeypatch.setenv("LOCAL_RANK", "")
    with pytest.raises(ConfigError, match="one of several processes, but not which"):
        launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is None


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    def kill_the_second(progress: TrainProgress) -> None:
        if progress.phase == "training" and progress.iteration == 2:
            os.kill(max(_children()), signal.SIGKILL)

    plan = _plan(tmp_path, settings=replace(SETTINGS, iterations=100_000))
    with pytest.raises(TrainingError, match="ended with code -9"):
        train_on(["cpu", "cpu"], plan, kill_the_second)
    assert not _children() and not (tmp_path / "model.pt").exists()


@pytest.mark.slow
def test_stopping_ends_all_processes_and_errors_keep_their_words(tmp_path: Path) -> None:
    def stop(progress: TrainProgress) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    plan = _plan(tmp_path, settings=replace(SETTINGS, iterations=100_000))
    with pytest.raises(KeyboardInterrupt):
        train_on(["cpu", "cpu"], plan, stop)
    assert not _children()
    misfit = replace(plan, task=replace(TASK, labels={"Ball": 4}))
    with pytest.raises(NoCasesError, match=r"None of the 2 cases.*case_1_label.*unexpected values: \[3\]"):
        train_on(["cpu", "cpu"], misfit, lambda progress: None)
    assert not _children() and not (tmp_path / "model.pt").exists()


def test_gpus_are_named_by_all_or_by_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert parse_gpus("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert parse_gpus(" 0, cuda:2") == ["cuda:0", "cuda:2"]
    assert training_devices(TrainSettings(gpus=2)) == ["cuda:0", "cuda:1"]
    assert training_devices(TrainSettings(gpus=[2, "cuda:1"])) == ["cuda:2", "cuda:1"]
    assert training_devices(TrainSettings(device="cuda:1")) == ["cuda:1"]
    for text, words in (("0,0", "once"), ("1,", "numbers"), ("many", "numbers"), ("-1", "numbers"), ("3", "3 CUDA")):
        with pytest.raises(ConfigError, match=words):
            parse_gpus(text)
    with pytest.raises(ConfigError, match="3 CUDA devices"):
        training_devices(TrainSettings(gpus=4))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="this machine has no CUDA GPU"):
        parse_gpus("all")


def test_batch_statistics_are_shared_on_gpus_and_the_weights_fit_the_plain_network() -> None:
    network = small_checkpoint().model
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    plain = small_checkpoint().model
    plain.load_state_dict(converted.state_dict())
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in converted.modules())
