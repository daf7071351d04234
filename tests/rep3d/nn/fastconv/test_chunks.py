"""How the convolution shares channels among threads: all of them, once, within its memory, without side effects."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rep3d.nn.fastconv import chunks as channel_chunks
from rep3d.nn.fastconv.chunks import BUFFERS, CPU_CHUNK_BYTES, MAX_THREADS, ChannelChunks, plan_chunks

CPU = torch.device("cpu")


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5, 64], indirect=True)
@pytest.mark.parametrize("channels", [1, 7, 384])
@pytest.mark.parametrize("channel_bytes", [500, 40_000, 800_000, 5_000_000])
@pytest.mark.parametrize("max_bytes", [None, 1, 30_000_000])
def test_chunks_cover_all_channels_within_the_bound(
    threads: int, channels: int, channel_bytes: int, max_bytes: int | None
) -> None:
    plan = plan_chunks(channels, channel_bytes, CPU, max_bytes)
    covered = [channel for chunk in plan.chunks for channel in range(chunk.start, chunk.stop)]
    assert covered == list(range(channels))
    sizes = [chunk.stop - chunk.start for chunk in plan.chunks]
    assert max(sizes) - min(sizes) <= 1
    assert 1 <= plan.threads <= min(threads, MAX_THREADS, len(sizes))
    assert max(sizes) == 1 or max(sizes) * channel_bytes <= CPU_CHUNK_BYTES
    if max_bytes is not None:
        one_channel = BUFFERS * channel_bytes
        assert plan.threads * max(sizes) * one_channel <= max(max_bytes, one_channel)


@pytest.mark.parametrize("threads", [2], indirect=True)
def test_every_thread_gets_as_many_chunks(threads: int) -> None:
    plan = plan_chunks(384, CPU_CHUNK_BYTES // 150, CPU, None)
    assert (len(plan.chunks), plan.threads) == (4, 2)


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_with_few_channels_all_cores_share_each_product(threads: int) -> None:
    assert plan_chunks(3, 1000, CPU, None).threads == 1


def test_each_chunk_is_done_once_by_one_of_the_threads() -> None:
    plan = ChannelChunks(tuple(slice(i, i + 1) for i in range(20)), threads=3)
    done: list[int] = []
    workers: set[str] = set()

    def work(chunks: Iterable[slice]) -> None:
        for chunk in chunks:
            done.append(chunk.start)
            workers.add(threading.current_thread().name)
            time.sleep(0.002)

    plan.run(work)
    assert sorted(done) == list(range(20))
    assert 2 <= len(workers) <= 3


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def work(chunks: Iterable[slice]) -> None:
        raise ValueError("in a thread")

    with pytest.raises(ValueError, match="in a thread"):
        ChannelChunks((slice(0, 1), slice(1, 2)), threads=2).run(work)


def test_a_thread_that_outlives_the_main_one_can_still_convolve() -> None:
    """At the interpreter's end there are no new threads to be had; the caller then does the work."""
    program = """
import threading, time
from rep3d.nn.fastconv.chunks import ChannelChunks

def late():
    threading.main_thread().join()
    time.sleep(0.2)
    done = []
    ChannelChunks((slice(0, 1), slice(1, 2)), threads=2).run(lambda chunks: done.extend(c.start for c in chunks))
    print(done)

threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[0, 1]", done.stderr


def test_threads_compute_on_one_core_each_and_leave_the_setting_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_chunks, "_pools", {})
    before = torch.get_num_threads()
    inside: list[int] = []
    plan = ChannelChunks((slice(0, 1), slice(1, 2)), threads=2)
    plan.run(lambda chunks: inside.append(torch.get_num_threads()))
    with ThreadPoolExecutor(1) as pool:
        later = pool.submit(torch.get_num_threads).result()
    assert inside == [1, 1]
    assert torch.get_num_threads() == later == before


def _work_in_a_forked_process(queue: multiprocessing.Queue) -> None:
    done: list[int] = []
    ChannelChunks((slice(0, 1), slice(1, 2)), threads=2).run(lambda chunks: done.extend(c.start for c in chunks))
    queue.put(sorted(done))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_starts_threads_of_its_own() -> None:
    """Those of its parent do not exist there: waiting for them would be for ever."""
    ChannelChunks((slice(0, 1), slice(1, 2)), threads=2).run(lambda chunks: None)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_work_in_a_forked_process, args=(queue,), daemon=True)
    process.start()
    try:
        assert queue.get(timeout=30) == [0, 1]
    finally:
        process.terminate()
        process.join()
