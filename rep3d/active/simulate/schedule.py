"""Replays annotation on a labelled data set, to see which strategy needs the fewest labels.

A simulation is made of units (see ``unit``): for each seed the first batch, one unit per strategy, and one training
on the whole pool to compare with. Each unit's result is a file; a unit whose file is there is not
done again, so that a simulation that was interrupted goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from importlib.metadata import version
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from rep3d import __version__
from rep3d.active.simulate.figures import write_curves
from rep3d.active.simulate.summary import summarise
from rep3d.active.simulate.unit import (
    FIRST_BATCH,
    REFERENCE,
    SCRATCH_SUFFIX,
    SimulationPlan,
    Unit,
    plain_file,
    play_unit,
)
from rep3d.active.strategies import STRATEGIES, check_strategy
from rep3d.data.cohort import Cohort, decathlon_cohort, phantom_cohort, require_described
from rep3d.errors import ConfigError, TrainingError, said
from rep3d.output import check_output_folder
from rep3d.training.preparing import why_unusable

__all__ = ["SimulationPlan", "simulate"]

Say = Callable[[str], None]
RESULTS, CURVES = "results.json", "curves.png"
_ROOM = 20_000_000  # bytes, for the models of the first batches and the results


def simulate(
    data: Path | None,
    out: Path,
    strategies: Sequence[str],
    seeds: Sequence[int],
    plan: SimulationPlan,
    jobs: int = 1,
    say: Say = print,
) -> dict[str, Any]:
    """Play all strategies with all seeds and write ``results.json`` and ``curves.png``.

    Args:
        data: a folder in the decathlon's layout; None for generated phantoms.
        out: folder to write into; what is there already of this simulation is not computed again.
        strategies: some of :data:`rep3d.active.strategies.STRATEGIES`.
        seeds: each is another split, first batch and initialisation.
        plan: how many cases, labels and steps.
        jobs: units to work on at the same time, each in a process with its share of the cores.
        say: called with each line for the user.

    Returns:
        The content of ``results.json``.

    Raises:
        OutputError, DiskFullError: if ``out`` cannot be written.
        ConfigError: if a name or number is impossible, or ``out`` holds results of another simulation.
        TaskError: if the data set is not usable or too small.
        TrainingError: if a unit failed; what was finished stays.
    """
    _check(strategies, seeds, jobs)
    if data is not None:
        require_described(data)
    units = [Unit(seed, name) for seed in seeds for name in (FIRST_BATCH, REFERENCE, *strategies)]
    check_output_folder(out, (RESULTS, CURVES), room=_ROOM)
    runs = check_output_folder(out / "runs")
    cohorts = {seed: _cohort(data, out, plan, seed) for seed in seeds}
    for seed, cohort in cohorts.items():
        say(f"seed {seed}: {cohort.summary()}")
        for entry in cohort.left_out:
            say(f"  {entry}")
    _check_same(runs / "settings.json", {**plan.identity(), "data": next(iter(cohorts.values())).name})
    _Schedule(plan, cohorts, units, runs, jobs, say).run()
    results = _collect(plan, cohorts, strategies, seeds, runs, jobs)
    plain_file(out / RESULTS, begins_anew=True).write(results, allow_nan=False)
    name = results["data"]
    write_curves(results["summary"], f"{name}: which case to annotate next ({plan.preset} network)", out / CURVES)
    return results


def _check(strategies: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    if not strategies or len(set(strategies)) != len(strategies):
        raise ConfigError(f"strategies: expected different ones of {', '.join(STRATEGIES)}, got {list(strategies)}")
    for name in strategies:
        check_strategy(name)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ConfigError(f"seeds: expected different whole numbers, got {list(seeds)}")
    if not 1 <= jobs <= 64:
        raise ConfigError(f"jobs: expected a whole number from 1 to 64, got {jobs}")


def _cohort(data: Path | None, out: Path, plan: SimulationPlan, seed: int) -> Cohort:
    if data is None:
        return phantom_cohort(out / "phantoms" / f"seed{seed}", plan.pool, plan.held_out, seed)
    return decathlon_cohort(data, plan.pool, plan.held_out, seed, why_unusable)


def _check_same(path: Path, identity: dict[str, Any]) -> None:
    """Results of different settings must not end up in one curve."""
    file = plain_file(path, begins_anew=False)
    if before := file.read():
        changed = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        if changed:
            told = ", ".join(f"{key} {before.get(key)!r} (now {identity.get(key)!r})" for key in changed)
            raise ConfigError(f"--out: {path.parent.parent} holds a simulation with {told}. Give another --out.")
    file.write(identity)


@dataclass
class _Schedule:
    """Works through the units that have no result yet; a strategy waits for its seed's first batch."""

    plan: SimulationPlan
    cohorts: dict[int, Cohort]
    units: list[Unit]
    folder: Path
    jobs: int
    say: Say
    started: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        for leftover in self.folder.glob(f".*{SCRATCH_SUFFIX}"):  # of processes that were killed
            shutil.rmtree(leftover, ignore_errors=True)
        todo = [unit for unit in self.units if not self._done(unit)]
        if len(todo) < len(self.units):
            self.say(f"{len(self.units) - len(todo)} of {len(self.units)} runs are there already")
        if self.jobs == 1:
            for unit in todo:
                play_unit(self.plan, self.cohorts[unit.seed], unit, self.folder, self.say)
                self._finished(unit)
        else:
            self._in_processes(todo)

    def _done(self, unit: Unit) -> bool:
        if unit.name == FIRST_BATCH and not unit.model(self.folder).exists():
            return False
        return bool(unit.rounds(self.folder))

    def _ready(self, unit: Unit) -> bool:
        return unit.name in (FIRST_BATCH, REFERENCE) or self._done(Unit(unit.seed, FIRST_BATCH))

    def _finished(self, unit: Unit) -> None:
        count = sum(self._done(other) for other in self.units)
        minutes = (time.monotonic() - self.started) / 60
        self.say(f"[{count}/{len(self.units)}] seed {unit.seed}, {unit.name} done after {minutes:.1f} min")

    def _in_processes(self, todo: list[Unit]) -> None:
        context = multiprocessing.get_context("spawn")  # a forked PyTorch may hang
        lines = context.SimpleQueue()
        threads = max(1, (os.cpu_count() or 1) // self.jobs)
        others = multiprocessing.active_children()
        running: dict[Future[None], Unit] = {}
        with ProcessPoolExecutor(self.jobs, context, _begin, (lines, threads)) as pool:
            try:
                while todo or running:
                    for unit in [unit for unit in todo if self._ready(unit)]:
                        todo.remove(unit)
                        running[pool.submit(_play, self.plan, self.cohorts[unit.seed], unit, self.folder)] = unit
                    ended = wait(running, timeout=0.5, return_when=FIRST_COMPLETED).done
                    while not lines.empty():
                        self.say(lines.get())
                    for future in ended:
                        self._end(running[future], future.exception())
                        del running[future]
            except BaseException:  # Ctrl-C too: what is finished is written, the rest begins anew next time
                for process in set(multiprocessing.active_children()) - set(others):
                    process.terminate()
                raise

    def _end(self, unit: Unit, error: BaseException | None) -> None:
        if error is not None:
            raise TrainingError(
                f"The simulation stopped: seed {unit.seed}, {unit.name} failed: {said(error)}"
            ) from error
        self._finished(unit)


_lines: SimpleQueue[str]  # of the process that started this one


def _begin(lines: SimpleQueue[str], threads: int) -> None:
    """Prepare a process for units."""
    import torch

    from rep3d.training.worker import end_with_parent

    global _lines
    _lines = lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends us
    torch.set_num_threads(threads)
    end_with_parent()


def _play(plan: SimulationPlan, cohort: Cohort, unit: Unit, folder: Path) -> None:
    play_unit(plan, cohort, unit, folder, _lines.put)


def _collect(
    plan: SimulationPlan,
    cohorts: dict[int, Cohort],
    strategies: Sequence[str],
    seeds: Sequence[int],
    runs: Path,
    jobs: int,
) -> dict[str, Any]:
    def rounds(seed: int, name: str) -> list[dict[str, Any]]:
        return Unit(seed, name).rounds(runs)

    played = {name: {seed: rounds(seed, name) for seed in seeds} for name in strategies}
    full = {seed: rounds(seed, REFERENCE)[0] for seed in seeds}
    return {
        "data": next(iter(cohorts.values())).name,
        "command": shlex.join(["rep3d", *sys.argv[1:]]),
        "settings": {**plan.identity(), "strategies": list(strategies), "seeds": list(seeds), "jobs": jobs},
        "reference": f"one training from nothing on all {plan.pool} cases of the pool, "
        f"{plan.iterations * len(plan.labels)} steps in one run: as many as all rounds together",
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
        "versions": {
            "rep3d": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "monai", "numpy")},
        },
        "summary": summarise(played, full),
        "held_out": {str(seed): [case.id for case in cohorts[seed].held_out] for seed in seeds},
        "left_out": {str(seed): [entry.to_dict() for entry in cohorts[seed].left_out] for seed in seeds},
        "full": {str(seed): record for seed, record in full.items()},
        "runs": {name: {str(seed): list(record) for seed, record in by.items()} for name, by in played.items()},
    }
