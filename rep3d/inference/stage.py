"""One network of a version, folded and ready to compute: what a predictor and its fine stage have in common."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from rep3d.checkpoint import Checkpoint
from rep3d.inference.engines import FLOAT32, Engine, choose_engine
from rep3d.inference.sliding import WindowTurns, count_windows, fit_window
from rep3d.inference.tuned import Way
from rep3d.nn.fold import reparameterize

__all__ = ["Stage", "kept_type"]

_HALF_FROM = 1_000_000_000  # bytes of a map of all classes in single precision


def kept_type(channels: int, shape: tuple[int, ...]) -> torch.dtype:
    """Return in which type to keep a map of all classes: a large one in half precision, off by 0.0003 at most.

    Args:
        channels: classes, background included.
        shape: the map (D, H, W) in voxels.
    """
    return torch.float16 if 4 * channels * math.prod(shape) >= _HALF_FROM else torch.float32


class Stage:
    """A trained network and its task.

    May be used from several threads at once: their windows are then computed in turn.

    Attributes:
        task: what it is for.
        model: the network, folded.
        stride: side lengths of what it sees are multiples of this.
        device: where it computes.
        engine: what runs it, see :mod:`rep3d.inference.engines`; the same for all images, so that an image always gives
            the same result (with ``single_image`` it is settled by that image).
        way: how it computes.

    Args:
        checkpoint: the model and its task.
        device: where to compute.
        engine: as :func:`~rep3d.inference.engines.choose_engine` takes it.
        single_image: whether only one image will be segmented.
        way: how to compute.

    Raises:
        ConfigError: if the engine is unknown or not there.
    """

    engine: Engine

    def __init__(
        self, checkpoint: Checkpoint, device: torch.device, engine: str | None, single_image: bool, way: Way
    ) -> None:
        self.task = checkpoint.task
        self.device = device
        self.stride = checkpoint.model.stride
        self.model = reparameterize(checkpoint.model).to(device).eval().requires_grad_(False)
        self._engine_name = engine
        # What was measured faster is OpenVINO's: one image gives the same as among many.
        self._single_image = single_image and way.precision == FLOAT32
        self.way = way
        self.engine = self._chosen(0 if self._single_image else math.inf)
        self._users_guard = threading.Lock()
        self._users = 0

    def turns(self, cancelled: Callable[[], bool] | None = None) -> WindowTurns:
        """Return what computes the windows of one request."""
        return WindowTurns(self.engine, self.device, self._spare_engine, cancelled)

    def settle_engine(self, turns: WindowTurns, voxels: int) -> None:
        """Take a faster engine for the one image, if it has so many voxels in all its windows that it pays."""
        if self._single_image and self.engine.name == "torch":
            self.engine = turns.engine = self._chosen(voxels)

    def window(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sliding window for an image (D, H, W) in voxels."""
        sides = tuple(round(side * self.way.window) for side in self.task.roi_size)
        return fit_window(sides, shape, self.stride)

    def work(self, shape: tuple[int, ...]) -> int:
        """Return how many voxels all windows of an image (D, H, W) have together."""
        window = self.window(shape)
        return count_windows(window, shape, self.way.overlap) * math.prod(window)

    def _chosen(self, voxels: float) -> Engine:
        return choose_engine(self.model, self.device, self._engine_name, voxels, self.way.precision)

    def _spare_engine(self) -> Engine:
        cpu = torch.device("cpu")
        return choose_engine(copy.deepcopy(self.model).to(cpu), cpu, "auto")

    @contextmanager
    def in_use(self, engine: Engine) -> Iterator[None]:
        """Keep the engine's buffers for as long as any request uses it."""
        with self._users_guard:
            self._users += 1
        try:
            yield
        finally:
            with self._users_guard:
                self._users -= 1
                if not self._users:
                    engine.release()
