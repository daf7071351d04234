"""One process of a training, alone or one of several that average their gradients."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from rep3d.errors import TrainingError

__all__ = ["Worker", "end_with_parent", "leave_group"]


@dataclass(frozen=True)
class Worker:
    """A process and its device.

    Attributes:
        device: where it trains.
        rank: its number; 0 leads: it validates, reports, decides and writes.
        size: how many processes there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that decides."""
        return self.rank == 0

    def prepare(self, network: torch.nn.Module) -> torch.nn.Module:
        """Move a network to the device; with several GPUs its batch statistics are those of all patches."""
        if self.size > 1 and self.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
        return network.to(self.device)

    def joined(self, network: torch.nn.Module) -> torch.nn.Module:
        """Return the network as it is trained: where there are several processes, its gradients are averaged."""
        if self.size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return torch.nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def agree(self, *values: float) -> list[float]:
        """Return the leader's values, in every process."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return shared.tolist()

    def mean(self, value: float) -> float:
        """Return the mean of a value over the processes."""
        return value if self.size == 1 else self._reduced(value, torch.distributed.ReduceOp.SUM) / self.size

    def least(self, value: int) -> int:
        """Return the smallest of the processes' values."""
        return value if self.size == 1 else int(self._reduced(value, torch.distributed.ReduceOp.MIN))

    def _reduced(self, value: float, how: Any) -> float:
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(shared, how)
        return float(shared)

    def check_same(self, network: torch.nn.Module) -> None:
        """Make sure that all processes have the same weights.

        Raises:
            TrainingError: if they have not.
        """
        if self.size == 1:
            return
        with torch.no_grad():
            total = torch.stack([parameter.double().abs().sum() for parameter in network.parameters()]).sum()
        totals = [torch.zeros_like(total) for _ in range(self.size)]
        torch.distributed.all_gather(totals, total)
        if len({float(value) for value in totals}) > 1:
            raise TrainingError(
                f"The training failed: its {self.size} processes came to different weights (sums {totals}). Nothing "
                f"was saved. Train again on one device."
            )


def leave_group() -> None:
    """Leave the other processes, if there are any, when the work is done; a process on a CPU ends here.

    The destructor of gloo's process group waits, while it holds Python's lock, for a thread that may just then wait for
    that lock (https://github.com/pytorch/pytorch/issues/56297): a finished training would hang once in a long while.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    if torch.distributed.get_backend() == "gloo":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    torch.distributed.destroy_process_group()


def end_with_parent() -> None:
    """End this process when the one that started it is gone, even while it waits for another one's gradients."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
