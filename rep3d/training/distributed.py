"""Training on several devices at once: one process each, with averaged gradients.

The first process measures, reports and writes. On one machine, the caller's process starts the others and only watches:
it passes progress on, ends all of them when one dies or the caller wants to stop, and they end themselves when the
caller's process is gone. Where torchrun (or a job that sets the same variables) started this process as one of several,
on one machine or on many, it is one of those that train, and torchrun watches.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.errors import ConfigError, Rep3DError, TrainingError, machine_error
from rep3d.inference.predictor import choose_device
from rep3d.training.loop import run
from rep3d.training.plan import TrainPlan
from rep3d.training.settings import AUTO, TrainProgress, TrainSettings
from rep3d.training.worker import Worker, end_with_parent, leave_group

__all__ = ["Launch", "enter_group", "launched", "parse_gpus", "train_on", "training_devices"]

# One process waits for another while that one validates. A process that died is noticed by the caller, not by this.
_TIMEOUT = timedelta(hours=6)
_SETTLE_SECONDS = 2.0  # after the first failure, for the one that caused it to be told


@dataclass(frozen=True)
class Launch:
    """What torchrun says to a process that it starts.

    Attributes:
        rank: its number among all.
        size: how many there are.
        local_rank: its number on its machine.
    """

    rank: int
    size: int
    local_rank: int


def launched() -> Launch | None:
    """Return what this process was told (RANK, WORLD_SIZE, LOCAL_RANK); None where it is alone.

    Raises:
        ConfigError: if it was told a part only, or what cannot be.
    """
    told = {name: os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if not told["WORLD_SIZE"] or told["WORLD_SIZE"] == "1":
        return None
    if not all(value.isascii() and value.isdigit() for value in told.values()) or int(told["RANK"]) >= int(
        told["WORLD_SIZE"]
    ):
        raise ConfigError(
            f"The environment says that this is one of several processes, but not which: {told}. Start it with "
            f"torchrun, or unset WORLD_SIZE."
        )
    return Launch(*(int(value) for value in told.values()))


def enter_group(launch: Launch, device: torch.device) -> None:
    """Meet the other processes that torchrun started."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        _backend(device), init_method="env://", rank=launch.rank, world_size=launch.size, timeout=_TIMEOUT
    )


def _backend(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _launched_device(launch: Launch, settings: TrainSettings) -> str:
    """Return the device of a process that torchrun started: the GPU of its number on its machine, or the CPU."""
    if settings.gpus is not None or settings.stages == AUTO or settings.device not in (None, "cpu", "cuda"):
        raise ConfigError(
            "torchrun gives each process its GPU, and trains one stage. Leave --gpus and --stages auto out, and of "
            "devices name cpu or cuda only."
        )
    if settings.device == "cpu" or (settings.device is None and not torch.cuda.is_available()):
        return "cpu"
    return str(choose_device(f"cuda:{launch.local_rank}"))


def parse_gpus(text: str) -> list[str]:
    """Return the devices meant by ``"all"``, ``"0,1"`` or ``"cuda:0,cuda:1"``.

    Raises:
        ConfigError: if the text is none of these, names a GPU twice, or one that is not there.
    """
    present = torch.cuda.device_count()
    if not present:
        raise ConfigError(f"gpus {text!r}: this machine has no CUDA GPU. Leave gpus out.")
    if text.strip().lower() == "all":
        return [f"cuda:{index}" for index in range(present)]
    found = []
    for part in text.split(","):
        number = part.strip().lower().removeprefix("cuda:")
        if not (number.isascii() and number.isdigit()):
            raise ConfigError(f"gpus: expected 'all' or numbers such as '0,1', got {text!r}")
        found.append(f"cuda:{int(number)}")
    if len(set(found)) != len(found):
        raise ConfigError(f"gpus {text!r}: name each GPU once.")
    for name in found:
        choose_device(name)
    return found


def training_devices(settings: TrainSettings) -> list[str]:
    """Return the devices that this process trains on, one unless ``settings.gpus`` asks for several.

    Raises:
        ConfigError: if one of them is not there.
    """
    if (launch := launched()) is not None:
        return [_launched_device(launch, settings)]
    if settings.gpus is None:
        return [str(choose_device(settings.device))]
    gpus = range(settings.gpus) if isinstance(settings.gpus, int) else settings.gpus
    return parse_gpus(",".join(map(str, gpus)))


def train_on(devices: Sequence[str], plan: TrainPlan, report: Callable[[TrainProgress], None]) -> Checkpoint:
    """Trains with one process per device.

    Args:
        devices: their names.
        plan: what to train.
        report: called with the first process's progress, from this thread; may raise to stop.

    Raises:
        Rep3DError: that one of the processes raised.
        TrainingError: if one of them died.
    """
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, BaseProcess] = {}
    with tempfile.TemporaryDirectory(prefix="rep3d_train_") as folder:
        start = None
        if plan.start is not None:
            # A file, since a network handed to a process goes through shared memory, of which containers have little.
            start = Path(folder) / "start.pt"
            save_checkpoint(start, plan.start.model, plan.start.task, plan.start.info)
        bare = dataclasses.replace(plan, start=None)
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        try:
            for rank in range(len(devices)):
                receiver, sender = context.Pipe(duplex=False)
                arguments = (rank, list(devices), bare, start, rendezvous, sender)
                worker = context.Process(target=_work, args=arguments, name=f"training-{rank}", daemon=True)
                worker.start()
                running[receiver] = worker
                sender.close()  # so that the pipe ends when the process does
            _watch(dict(running), report)
        finally:
            for process in running.values():
                process.kill()
                process.join()
    return load_checkpoint(plan.output)


def _watch(running: dict[Connection, BaseProcess], report: Callable[[TrainProgress], None]) -> None:
    """Pass progress on until all processes have ended; raise the cause if one failed."""
    failures: list[tuple[int, Exception]] = []
    until = float("inf")
    while running and time.monotonic() < until:
        for receiver in wait(list(running), timeout=0.5):
            assert isinstance(receiver, Connection)
            process = running[receiver]
            try:
                message = receiver.recv()
            except (EOFError, OSError):
                del running[receiver]
                process.join()
                if process.exitcode:
                    words = f"the process of {process.name} ended with code {process.exitcode}"
                    message = (1 if process.exitcode < 0 else 3, TrainingError(f"training: {words}; nothing was saved"))
                else:
                    continue
            if isinstance(message, TrainProgress):
                if not failures:
                    report(message)
            else:
                failures.append(message)
                until = min(until, time.monotonic() + _SETTLE_SECONDS)
    if failures:
        raise min(failures, key=lambda failure: failure[0])[1]


def _work(
    rank: int, devices: list[str], plan: TrainPlan, start: Path | None, rendezvous: str, sender: Connection
) -> None:
    """One process. A failure is sent with its rank among causes: 0 our own words, 1 a death, 2 anything else."""
    end_with_parent()
    try:
        if start is not None:
            plan = dataclasses.replace(plan, start=load_checkpoint(start))
        device = torch.device(devices[rank])
        if device.type == "cuda":
            torch.cuda.set_device(device)
        else:
            torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
        torch.distributed.init_process_group(
            _backend(device),
            init_method=rendezvous,
            rank=rank,
            world_size=len(devices),
            timeout=_TIMEOUT,
        )
        run(plan, Worker(device, rank, len(devices)), sender.send if rank == 0 else lambda progress: None)
        leave_group()
    except Rep3DError as error:
        sender.send((0, error))
        sys.exit(1)
    except Exception as error:
        if (lacking := machine_error(error)) is not None:
            sender.send((0, lacking))
            sys.exit(1)
        sender.send((2, TrainingError(f"training on {devices[rank]}: {type(error).__name__}: {error}")))
        sys.exit(1)
