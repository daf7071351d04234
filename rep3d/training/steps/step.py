"""One optimizer step: gradients of a batch, in parts where it does not fit into memory, and the averaged weights.

A batch is cut into micro-batches whose gradients add up to its own. Where memory does not suffice, micro-batches are
halved, down to one patch, and the step is done again; the training goes on with what fits. What is normalised over a
batch (batch norm's statistics, Dice over a batch) is then normalised over a micro-batch, so the result is near that of
the whole batch, and not the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.utils import CommonKeys
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rep3d.errors import OutOfMemoryError
from rep3d.memory import give_back
from rep3d.training.worker import Worker

__all__ = ["Step", "averaged", "lacks_memory"]

logger = logging.getLogger(__name__)

_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, whose scratch pads did not fit
    "CUDA out of memory",
    "STATUS_ALLOC_FAILED",
)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed: Python's, PyTorch's on a CPU, or on a GPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def averaged(network: torch.nn.Module, decay: float) -> AveragedModel:
    """Return what averages a network's weights and statistics over its steps; it begins with the first step's.

    Args:
        network: as it is trained.
        decay: what stays of the average at each step: 0.999 averages over about 1000 steps.
    """
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


class Step:
    """The steps of one process.

    Args:
        worker: the process.
        network: maps images (B, C, D, H, W) to what the loss takes.
        optimizer: of its parameters.
        loss: takes that and a label map (B, 1, D, H, W).
        inferer: calls the network on images, as ``inferer(images, network)``.
        micro_batch: patches at a time at most; 0 for all of a batch.
        average: see :func:`averaged`; None for none.

    Attributes:
        micro_batch: patches at a time, as far as they fit; 0 as long as all do.
        note: what did not fit, in words; None as long as all does.
    """

    def __init__(
        self,
        worker: Worker,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: torch.nn.Module,
        inferer: Callable[..., Any],
        micro_batch: int = 0,
        average: AveragedModel | None = None,
    ) -> None:
        self.micro_batch = micro_batch
        self.note: str | None = None
        self._worker = worker
        self._network = network
        self._joined = worker.joined(network)
        self._optimizer = optimizer
        self._loss = loss
        self._inferer = inferer
        self._average = average
        self._tried = worker.size == 1
        self._said = ""  # the last error for want of memory

    def __call__(self, engine: object, batch: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Make a step; what an ignite engine calls.

        Returns:
            The loss, mean over the batches of all processes.

        Raises:
            OutOfMemoryError: if not even one patch fits, or, of several processes, after the first step.
        """
        device = self._worker.device
        image, label = (batch[key].to(device) for key in (CommonKeys.IMAGE, CommonKeys.LABEL))
        if not self._tried:
            self._try_out(image, label)
        while (loss := self._gradients(self._joined, image, label)) is None:
            if self._worker.size > 1:  # the others wait for this one's gradients of this very step
                raise OutOfMemoryError(
                    f"Memory did not suffice on {device} of process {self._worker.rank}, and several processes cannot "
                    f"change their step once it has begun. Go on with a smaller micro-batch (--micro-batch "
                    f"{max(1, self._size(image) // 2)})."
                )
            self._halve(image)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        return {CommonKeys.LOSS: self._worker.mean(loss)}

    def _gradients(self, network: torch.nn.Module, image: torch.Tensor, label: torch.Tensor) -> float | None:
        """Take down the gradients of a batch, and return its loss; None where memory did not suffice."""
        self._optimizer.zero_grad(set_to_none=True)
        size, total = self._size(image), 0.0
        parts = list(zip(image.split(size), label.split(size), strict=True))
        try:
            for number, (images, labels) in enumerate(parts, 1):
                waits = number < len(parts) and isinstance(network, torch.nn.parallel.DistributedDataParallel)
                with network.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                    loss = self._loss(self._inferer(images, network), labels)
                    if len(parts) > 1:
                        loss = loss * (len(images) / len(image))
                    loss.backward()
                total += float(loss.detach())
        except (MemoryError, RuntimeError) as error:
            if not lacks_memory(error):
                raise
            self._said = str(error).partition("\n")[0][:200]
        else:
            return total
        self._optimizer.zero_grad(set_to_none=True)
        if self._worker.device.type == "cuda":
            torch.cuda.empty_cache()
        give_back()
        return None

    def _size(self, image: torch.Tensor) -> int:
        return min(self.micro_batch or len(image), len(image))

    def _halve(self, image: torch.Tensor) -> None:
        size = self._size(image)
        if size == 1:
            sides = " x ".join(map(str, image.shape[2:]))
            raise OutOfMemoryError(
                f"Not enough memory on {self._worker.device} for a training step on a single patch of {sides} voxels "
                f"({self._said}). Take a smaller network (--preset) or larger voxels (--spacing), or try again when "
                f"less is running."
            )
        self._take(size // 2, len(image))

    def _take(self, size: int, batch: int) -> None:
        self.micro_batch = size
        patches = f"{size} patch{'es' if size > 1 else ''}"
        self.note = (
            f"Memory does not suffice for the {batch} patches of a step at once: their gradients are added up, "
            f"{patches} at a time."
        )
        logger.warning("training: %s", self.note)

    def _try_out(self, image: torch.Tensor, label: torch.Tensor) -> None:
        """Find out which micro-batch fits in all processes, by gradients that no step is made of.

        In eval mode nothing is averaged over processes, so one that fails lets no other one wait; no statistics change,
        and the network takes about the memory that it takes in training.
        """
        self._tried = True
        asked = self._size(image)
        self._network.eval()
        try:
            while self._gradients(self._network, image, label) is None:
                self._halve(image)
        finally:
            self._network.train()
            self._optimizer.zero_grad(set_to_none=True)
        size = self._worker.least(self._size(image))
        if size < asked:
            self._take(size, len(image))
