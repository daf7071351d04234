"""Prepared cases in memory: never more than the bound, what is drawn most first, and the same patches as from files."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset

from rep3d.checkpoint import load_checkpoint
from rep3d.errors import DiskFullError
from rep3d.imaging.transforms import augmentation
from rep3d.training import plan as training_plan
from rep3d.training import sampling
from rep3d.training import snapshots as run_state
from rep3d.training.sampling import Patches, Widening
from rep3d.training.train import TrainProgress, train
from rep3d.training.volumes import store
from rep3d.training.volumes.held import HeldVolumes
from rep3d.training.volumes.prepared import Prepared
from rep3d.training.volumes.store import volume_store
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_checkpoint


@pytest.fixture
def volumes(tmp_path: Path) -> list[Prepared]:
    """Return four cases of the same size, in files."""
    with volume_store(tmp_path / "kept", TASK, (), True) as kept:
        return [kept.get(ball_case(tmp_path, seed)) for seed in range(4)]


def _in_memory(held: HeldVolumes) -> int:
    """Return the bytes of the cases that are in memory, whoever holds them."""
    return sum(volume.nbytes for volume in (held[index] for index in range(len(held))) if not volume.mapped)


def test_never_more_is_held_than_the_bound_and_what_is_drawn_most_for_its_size_first(volumes: list[Prepared]) -> None:
    size = max(volume.nbytes for volume in volumes)
    shares = [1.0, 3.0, 1.0, 2.0]
    for most, indices in ((0, []), (size - 1000, []), (2 * size, [1, 3]), (3 * size - 1000, [1, 3]), (9 * size, None)):
        held = HeldVolumes(volumes, shares, most)
        if indices is not None:
            assert held.held == indices
        assert _in_memory(held) == sum(volumes[index].nbytes for index in held.held) <= most
    assert sorted(held.held) == [0, 1, 2, 3] and len(held) == 4
    # A small case that is drawn as often as a large one costs less for as many patches.
    half = replace(volumes[0], image=volumes[0].image[:, :16], label=volumes[0].label[:16])
    assert HeldVolumes([volumes[1], half], [1.0, 1.0], size).held == [1]


def test_a_case_is_read_once_when_it_is_first_asked_for(volumes: list[Prepared]) -> None:
    held = HeldVolumes(volumes, [1.0] * 4, 10**9)
    assert isinstance(held._cache, CacheDataset) and held._cache._cache == [None] * 4
    first = held[2]
    assert held[2] is first and not first.mapped and held._cache._cache.count(None) == 3
    for name in ("image", "label", "positions"):
        one, other = getattr(first, name), getattr(volumes[2], name)
        assert one.dtype == other.dtype and one.base is None  # its own memory, not a view of the file
        np.testing.assert_array_equal(one, other)
    assert (first.counts, first.known) == (volumes[2].counts, volumes[2].known)


def test_what_the_disk_has_no_room_for_counts_in_the_bound(
    tmp_path: Path, volumes: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise DiskFullError("full")

    monkeypatch.setattr(store, "write_volume", full)
    with volume_store(tmp_path / "other", TASK, (), True) as kept:
        unkept = kept.get(ball_case(tmp_path, 4))
    assert not unkept.mapped
    size = max(volume.nbytes for volume in [*volumes, unkept])
    held = HeldVolumes([unkept, *volumes], [1.0] * 5, 2 * size)
    assert held[0] is unkept and len(held.held) == 1 and _in_memory(held) <= 2 * size
    assert HeldVolumes([unkept, *volumes], [1.0] * 5, size // 2).held == []


@pytest.mark.parametrize("sides", [32, 16])
def test_patches_are_the_same_bit_for_bit(volumes: list[Prepared], sides: int) -> None:
    def drawn(most: int) -> list[dict[str, torch.Tensor]]:
        augment = Widening(partial(augmentation, TASK))
        made: Any = Patches(volumes, [1.0] * 4, augment, (sides,) * 3, SETTINGS, held_most=most)
        return [patch for [patch] in islice(made, 12)]

    for one, other in zip(drawn(0), drawn(2 * volumes[0].nbytes), strict=True):
        assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in ("image", "label"))


def test_a_training_is_the_same_with_and_without_and_an_interrupted_one_goes_on_with_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_state, "_SECONDS", 0.0)
    monkeypatch.setattr(run_state, "_COST", 0.0)
    made: list[HeldVolumes] = []
    monkeypatch.setattr(sampling, "HeldVolumes", lambda *given: made.append(HeldVolumes(*given)) or made[-1])
    cases = [ball_case(tmp_path, seed) for seed in (1, 2)]
    settings = replace(SETTINGS, iterations=6)

    def stop(progress: TrainProgress) -> None:
        if progress.iteration == 3:
            raise KeyboardInterrupt

    def weights(name: str, held_most: int, state: str | None = None) -> dict[str, torch.Tensor]:
        output, folder = tmp_path / f"{name}.pt", tmp_path / state if state else None
        train(cases, TASK, settings, output, small_checkpoint(), state=folder, held_most=held_most)
        return load_checkpoint(output).model.state_dict()

    with pytest.raises(KeyboardInterrupt):
        train(cases, TASK, settings, tmp_path / "c.pt", small_checkpoint(), stop, state=tmp_path / "run", held_most=0)
    one = weights("a", 0)
    for other in (weights("b", 10**9), weights("c", 10**9, "run")):
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert [len(each.held) for each in made] == [0, 0, 2, 2]
    assert _in_memory(made[0]) == 0 < _in_memory(made[2])
    assert load_checkpoint(tmp_path / "c.pt").info["resumed_from"] == 3


def test_what_a_step_needs_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = training_plan.TrainPlan([], TASK, replace(SETTINGS, crops=2), tmp_path / "model.pt", held_most=3 * 10**9)
    memory = training_plan.step_memory("tiny", 1, 2)
    step = memory.fixed + 2 * (memory.of(TASK.roi_size) - memory.fixed)  # two patches
    for free, on_cpu, expected in (
        (10**11, True, 3 * 10**9),
        (4 * 10**9, False, 3 * 10**9),
        (4 * 10**9, True, 3 * 10**9 - step),
        (10**9, True, 0),
    ):
        monkeypatch.setattr(training_plan, "free_and_total", lambda free=free: (free, 10**12))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            room = training_plan.room_to_hold(plan, 1, on_cpu)
        assert room == pytest.approx(expected, abs=1)
        assert ("are held in memory, not 3.0" in caplog.text) == (expected < 3 * 10**9)
    assert training_plan.room_to_hold(replace(plan, held_most=0), 1, True) == 0
