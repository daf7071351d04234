"""How the convolution works off channels: in chunks that fit a processor core's cache, several chunks at a time.

On a CPU each thread takes chunks of its own and computes them on one core. That is faster than all cores sharing each
small matrix product: nothing waits for the slowest core after each of a dozen steps, and a chunk stays in the cache of
one core. On a GPU there are few, large chunks, one after the other.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["BUFFERS", "ChannelChunks", "lend_buffers", "plan_chunks"]

BUFFERS = 6  # spectra that the most demanding pass, the backward one, has at a time
CPU_CHUNK_BYTES = 1 << 20  # of one spectrum: with the matrices a core's cache (1 to 2 MiB) holds what one step touches
GPU_CHUNK_BYTES = 256 << 20  # a GPU wants few, large calls
MAX_THREADS = 16  # Python starts the steps; more threads than this would wait for it


@dataclass(frozen=True)
class ChannelChunks:
    """The channels of each chunk, and how many threads work on them."""

    chunks: tuple[slice, ...]
    threads: int

    def run(self, work: Callable[[Iterable[slice]], None]) -> None:
        """Call ``work`` in each thread with the chunks it shall do; return when all are done.

        Args:
            work: Takes chunks from its argument until none is left. It writes into tensors made before.
        """
        if self.threads == 1:
            work(self.chunks)
            return
        left = deque(self.chunks)

        def in_thread() -> None:
            with torch.inference_mode():  # so that results may be inference tensors; nothing is recorded in here anyway
                work(_taken(left))

        futures: list[Future[None]] = []
        try:
            for _ in range(self.threads):
                futures.append(_pool(self.threads).submit(in_thread))
        except RuntimeError:  # the interpreter is ending, or no thread can be started: this one does what is left
            work(_taken(left))
        wait(futures)  # all of them: none may go on writing after an error in another
        for future in futures:
            future.result()


def plan_chunks(channels: int, channel_bytes: int, device: torch.device, max_bytes: int | None) -> ChannelChunks:
    """Split channels into chunks of about equal size.

    Args:
        channels: Number of channels.
        channel_bytes: Bytes of one channel's spectrum.
        device: Where they are computed.
        max_bytes: Bound on all buffers of all threads together; a single channel at a time is always allowed.
    """
    available = min(torch.get_num_threads(), MAX_THREADS) if device.type == "cpu" else 1
    chunk_bytes = CPU_CHUNK_BYTES if device.type == "cpu" else GPU_CHUNK_BYTES
    if max_bytes is not None:
        most_channels = max(1, max_bytes // (BUFFERS * channel_bytes))  # at a time, in all threads together
        available = min(available, most_channels)
        chunk_bytes = min(chunk_bytes, most_channels // available * channel_bytes)
    number = math.ceil(channels / max(1, chunk_bytes // channel_bytes))
    if channels >= available:
        number = min(channels, math.ceil(number / available) * available)  # as many for each thread
    bounds = [channels * index // number for index in range(number + 1)]
    chunks = tuple(slice(start, end) for start, end in zip(bounds[:-1], bounds[1:], strict=True))
    # With fewer chunks than threads it is better if all cores share each product.
    return ChannelChunks(chunks, available if number >= available else 1)


def lend_buffers(count: int, shape: tuple[int, ...], like: torch.Tensor) -> list[torch.Tensor]:
    """Lend this thread ``count`` buffers of the given shape; they are lent anew at the next call.

    On a CPU the memory belongs to the thread and is kept: fresh pages cost more than the arithmetic. On a GPU PyTorch's
    allocator does that better.

    Args:
        count: Number of buffers.
        shape: Shape of each.
        like: Gives type and device.
    """
    size = count * math.prod(shape)
    if like.device.type != "cpu":
        return list(like.new_empty(count, *shape).unbind())
    kept = getattr(_kept, "buffer", None)
    if kept is None or kept.numel() < size or kept.dtype != like.dtype:
        with torch.inference_mode(False):  # later calls may not be in inference mode
            kept = torch.empty(size, dtype=like.dtype, device=like.device)
        _kept.buffer = kept
    return list(kept[:size].view(count, *shape).unbind())


_kept = threading.local()


def _taken(left: deque[slice]) -> Iterator[slice]:
    """Hand out items until none is left; each thread iterates on its own, and an item goes to one of them."""
    with suppress(IndexError):
        while True:
            yield left.popleft()


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the pool of that many threads, each of which computes on one core; made once."""
    with _pools_lock:
        if threads not in _pools:
            _pools[threads] = _single_core_threads(threads)
        return _pools[threads]


def _single_core_threads(threads: int) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="rep3d-channels")
    all_started = threading.Barrier(threads)

    def start(_: Any) -> None:
        # PyTorch gives a new thread its process-wide setting when that thread first asks for it, over what the thread
        # has set itself before. So ask first, then set.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_started.wait(timeout=60)

    before = torch.get_num_threads()
    try:
        list(pool.map(start, range(threads)))
    except BaseException:
        all_started.abort()  # else those that did start would wait for ever
        pool.shutdown(wait=False)
        raise
    finally:
        torch.set_num_threads(before)  # the call in the threads changed the setting for threads that start later, too
    return pool


def _forget_pools() -> None:
    """In a forked process there are no such threads."""
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
