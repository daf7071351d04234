"""One training: at its voxel size, on its devices, from a plan to a checkpoint."""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed

from rep3d.checkpoint import Checkpoint
from rep3d.training.distributed import Launch, enter_group, launched, train_on, training_devices
from rep3d.training.loop import run
from rep3d.training.minutes.resolution import at_resolution
from rep3d.training.plan import TrainPlan, first_network
from rep3d.training.settings import AUTO, TrainProgress
from rep3d.training.worker import Worker, leave_group

__all__ = ["at_its_resolution", "give_back_memory", "train_one"]


def at_its_resolution(plan: TrainPlan) -> TrainPlan:
    """Return a plan whose task has the voxel size and patch that are worked at; measured where they are to be chosen.

    Raises:
        ConfigError: if a device is not there.
    """
    if plan.settings.resolution != AUTO or plan.resolution is not None:
        return plan
    device = torch.device(training_devices(plan.settings)[0])
    task, facts = at_resolution(
        plan.task, plan.cases, plan.settings, device, lambda: first_network(plan), plan.start, plan.state
    )
    return dataclasses.replace(plan, task=task, resolution=facts)


def train_one(plan: TrainPlan, report: Callable[[TrainProgress], None]) -> Checkpoint:
    """Train.

    Args:
        plan: what to train.
        report: called with the progress, from this thread; may raise to stop.

    Returns:
        The trained model, as written. Of the processes that torchrun started, all but the first one end here.

    Raises:
        Rep3DError: see :func:`rep3d.training.train.train`.
    """
    devices = training_devices(plan.settings)
    try:
        if (launch := launched()) is not None:
            return _train_together(launch, torch.device(devices[0]), plan, report)
        plan = at_its_resolution(plan)
        if len(devices) > 1:
            return train_on(devices, plan, report)
        trained = run(plan, Worker(torch.device(devices[0])), report)
        assert trained is not None
        return trained
    finally:
        give_back_memory()


def _train_together(
    launch: Launch, device: torch.device, plan: TrainPlan, report: Callable[[TrainProgress], None]
) -> Checkpoint:
    """Train as one of the processes that torchrun started; the first one's choice of the voxel size is that of all."""
    enter_group(launch, device)
    worker = Worker(device, launch.rank, launch.size)
    if worker.leads:
        plan = at_its_resolution(plan)
    chosen: list[Any] = [plan.task, plan.resolution]
    torch.distributed.broadcast_object_list(chosen, src=0, device=device)
    plan = dataclasses.replace(plan, task=chosen[0], resolution=chosen[1])
    trained = run(plan, worker, report if worker.leads else lambda progress: None)
    worker.agree(0.0)  # until the first one has written: what is removed at the end is its, too
    if trained is None:
        leave_group()
        sys.exit(0)
    return trained


def give_back_memory() -> None:
    """Give back what a training that is over took of the machine's memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
