"""Whether the bench runs on this computer; where it does not, this is what says that tests are missing, and why."""

from __future__ import annotations


def test_the_bench_runs_here(slicer_process) -> None:
    assert slicer_process.scene is not None
