"""The sliding window: how it is laid over an image, which windows are computed, and what happens when memory is short.

Windows are computed one turn at a time, so that two requests alternate instead of waiting for each other's end, and
each turn asks first whether the request is still wanted. Where a GPU's memory does not suffice, the batch of windows is
made smaller, then the CPU takes over, and the result says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from rep3d.errors import InferenceCancelled
from rep3d.fair_lock import device_turn
from rep3d.imaging.grid import Place
from rep3d.inference.engines import Engine
from rep3d.inference.slab import Slab, clipped, moved, slab_bytes, starts_along
from rep3d.memory import require_memory

__all__ = ["OVERLAP", "WindowTurns", "check_memory", "count_windows", "fit_window", "sliding_probabilities"]

OVERLAP = 0.5  # of neighbouring windows, as a share of their sides; as in nnU-Net; docs/results/overlap.json
BATCH = 2  # windows at a time


def fit_window(roi_size: tuple[int, ...], shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Return the sliding window for an image: ``roi_size``, but no larger than the image needs at the network's stride.

    Args:
        roi_size: the task's window (D, H, W) in voxels.
        shape: the image (D, H, W) in voxels.
        stride: side lengths must be multiples of this.
    """
    window = tuple(
        min(math.ceil(side / stride), math.ceil(length / stride)) * stride
        for side, length in zip(roi_size, shape, strict=True)
    )
    # The network's deepest stage is normalised over its voxels, so it needs more than one.
    return window if max(window) > stride else (2 * stride, *window[1:])


def count_windows(window: tuple[int, ...], shape: tuple[int, ...], overlap: float = OVERLAP) -> int:
    """Return how many sliding windows (D, H, W) cover an image (D, H, W), ``overlap`` being a share of their sides."""
    return math.prod(len(starts_along(side, length, overlap)) for side, length in zip(window, shape, strict=True))


def check_memory(
    channels: int, shape: tuple[int, ...], maps: int = 1, *, each: int = 4, window: tuple[int, ...] = (0, 0, 0)
) -> None:
    """Refuse an image whose result would not fit into memory, before any time is spent on it.

    Args:
        channels: classes of the model, background included.
        shape: the image (D, H, W) on the task's grid, padded to the window.
        maps: how many maps of all classes are held at a time.
        each: bytes of one probability in them.
        window: the sliding window (D, H, W); as many slices as it has are gathered at a time, see
            :func:`sliding_probabilities`.

    Raises:
        OutOfMemoryError: saying how much is needed, how much there is, and what to do.
    """
    # Besides the maps: the image itself, and a map of one number for each voxel, such as the entropy.
    needed = math.prod(shape) * (each * channels * maps + 8) + slab_bytes(channels, shape, window)
    require_memory(
        needed,
        f"for an image of {'x'.join(map(str, shape))} voxels and {channels} classes",
        "Segment a box of it, or use a machine with more memory.",
    )


@dataclass
class WindowTurns:
    """What the sliding window calls for each batch of windows, for one request.

    Attributes:
        engine: what runs the network.
        device: where it does.
        spare: makes an engine on the CPU, for when the GPU's memory does not suffice even for one window.
        cancelled: asked before each turn, and meanwhile; the request ends where it says True.
        fallback: what was done for want of memory, in words; None where nothing was.
        computed_on: the device that computed last.
    """

    engine: Engine
    device: torch.device
    spare: Callable[[], Engine]
    cancelled: Callable[[], bool] | None = None
    fallback: str | None = None
    computed_on: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.computed_on = self.device
        self._at_once = BATCH
        self._on_spare = False

    def check(self) -> None:
        """Raise InferenceCancelled where the request is no longer wanted."""
        if self.cancelled is not None and self.cancelled():
            raise InferenceCancelled("The segmentation was cancelled; nothing was written.")

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Map windows (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W) on the same device."""
        done: list[torch.Tensor] = []
        start = 0
        while start < len(windows):
            part = windows[start : start + self._at_once]
            try:
                with device_turn(self.computed_on):
                    self.check()  # here: others may have taken their turns meanwhile
                    done.append(self.engine(part.to(self.computed_on), self.check).to(windows.device))
            except torch.cuda.OutOfMemoryError:
                if self._on_spare:  # what the CPU computed did not fit back onto the windows' own device
                    raise
                self._use_less(len(part))
                continue
            start += len(part)
        return done[0] if len(done) == 1 else torch.cat(done)

    def _use_less(self, windows: int) -> None:
        """Use less memory, after ``windows`` at a time did not fit."""
        _free_cached()
        if windows > 1:
            self._at_once = 1
            self.fallback = f"GPU out of memory at batch size {windows}; continued with 1."
            return
        self._on_spare = True
        self.engine = self.spare()
        self.computed_on = torch.device("cpu")
        self.fallback = "GPU out of memory even at batch size 1; continued on the CPU."


def sliding_probabilities(
    image: torch.Tensor,
    window: tuple[int, ...],
    turns: WindowTurns,
    channels: int,
    *,
    wanted: Callable[[Place], bool] | None = None,
    beside: Callable[[Place], torch.Tensor] | None = None,
    correct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    finish: Callable[[torch.Tensor, Place], torch.Tensor] | None = None,
    dtype: torch.dtype = torch.float32,
    overlap: float = OVERLAP,
) -> torch.Tensor:
    """Class probabilities of an image, windows blended with Gaussian weights.

    What is gathered in single precision is only as many slices as a window has, along the longest side; what no further
    window will change becomes probabilities at once.

    Args:
        image: (1, D, H, W), scaled as the task says, on the CPU. Where it is smaller than a window, zeros surround it.
        window: the sliding window (D, H, W).
        turns: computes the windows.
        channels: classes of the model, background included.
        wanted: says of a place in the image whether to compute the window there. A voxel of which no window is computed
            is background with probability 1. None for all.
        beside: further input channels (K, d, h, w) of a window by its place, which may reach over the image's rim.
        correct: takes logits (B, C, d, h, w) and the windows (B, 1 + K, d, h, w) that they are of, and returns others.
        finish: takes finished probabilities (C, d, h, w) and their place, and returns what to keep of them.
        dtype: of the result.
        overlap: of neighbouring windows, as a share of their sides.

    Returns:
        (C, D, H, W) softmax output on the CPU. One such map is held in memory, no second one.

    Raises:
        InferenceCancelled: if the request was cancelled.
    """
    shape = tuple(image.shape[1:])
    missing = [max(side - length, 0) for side, length in zip(window, shape, strict=True)]
    before = [total // 2 for total in missing]
    sides = [(total // 2, total - total // 2) for total in reversed(missing)]
    padded = torch.nn.functional.pad(image, [width for pair in sides for width in pair])
    result = torch.empty((channels, *shape), dtype=dtype)

    def gather_on(device: torch.device) -> None:
        slab = Slab(window, tuple(padded.shape[1:]), channels, device)
        for start, places in slab.rounds(overlap):
            found = [(place, moved(place, before)) for place in places]
            todo = [pair for pair in found if wanted is None or wanted(pair[1])]
            for first in range(0, len(todo), BATCH):
                batch = todo[first : first + BATCH]
                parts = [padded[(slice(None), *place)] for place, _ in batch]
                if beside is not None:
                    parts = [torch.cat([part, beside(at)]) for part, (_, at) in zip(parts, batch, strict=True)]
                windows = torch.stack(parts).to(device)
                logits = turns(windows) if correct is None else correct(turns(windows), windows)
                for (place, _), each in zip(batch, logits, strict=True):
                    slab.add(each, place, start)
            for probabilities, place in slab.finished(start):
                at = moved(place, before)
                inside = clipped(at, shape)
                kept = probabilities[(slice(None), *moved(inside, [part.start for part in at]))]
                result[(slice(None), *inside)] = finish(kept.cpu(), inside) if finish else kept

    # Windows go to the engine's device one batch at a time. Where a slab of the result fits there, it is gathered there
    done = False
    if slab_bytes(channels, tuple(padded.shape[1:]), window) <= _free_on(turns.device):
        with suppress(torch.cuda.OutOfMemoryError):  # not the network's, which is dealt with: of what is gathered
            gather_on(turns.device)
            done = True
    if not done:  # outside the handling of the error, which keeps what was gathered so far in memory
        _free_cached()
        turns.fallback = turns.fallback or "GPU out of memory for the whole result; kept it in main memory."
        # The turns move each window, and deal with a device that has no room even for that.
        gather_on(torch.device("cpu"))
    return result


def _free_on(device: torch.device) -> float:
    """Return the free bytes of a GPU; of main memory, :func:`check_memory` has made sure."""
    if device.type != "cuda":
        return math.inf
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _free_cached() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
