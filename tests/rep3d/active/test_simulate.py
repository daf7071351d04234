"""Simulated annotation: paired, resumable, and its summary right where it can be computed by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rep3d.active.simulate import unit as simulate_runs
from rep3d.active.simulate.figures import write_curves
from rep3d.active.simulate.schedule import SimulationPlan, _check_same, simulate
from rep3d.active.simulate.summary import interval, labels_to_reach, summarise
from rep3d.active.simulate.unit import FIRST_BATCH, REFERENCE, Unit
from rep3d.cli.main import app
from rep3d.data.phantoms import generate_cohort
from rep3d.errors import ConfigError, DamagedFileError, TaskError
from rep3d.nn.config import Rep3DConfig
from rep3d.training import plan as training_plan

PLAN = SimulationPlan(labels=(1, 2, 3), pool=5, held_out=2, iterations=1, views=2, device="cpu")
SMALL = Rep3DConfig(dims=(4, 8, 8, 16), depths=(1, 1, 1, 1), hidden_size=16, kernel_size=5, generator_kernel=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate_cohort(folder, 7, seed=0)
    return folder


@pytest.fixture
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the ``tiny`` preset a network of a few thousand weights."""
    monkeypatch.setattr(training_plan, "preset_config", lambda word, ins, outs, roi: replace(SMALL, out_channels=outs))


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_network")
@pytest.mark.slow
def test_strategies_are_compared_on_the_same_cases_and_nothing_is_done_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, said = tmp_path / "out", []
    results = simulate(data, out, ["random", "hybrid"], [0], PLAN, say=said.append)
    assert json.loads((out / "results.json").read_text()) == results
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    held_out = set(results["held_out"]["0"])
    assert len(held_out) == 2
    by_strategy = [results["runs"][name]["0"] for name in ("random", "hybrid")]
    assert by_strategy[0][0] == by_strategy[1][0]  # the first batch and its model are shared
    for rounds in by_strategy:
        assert [round_["labels"] for round_ in rounds] == [1, 2, 3]
        added = [id_ for round_ in rounds for id_ in round_["added"]]
        assert len(set(added)) == 3 and not held_out & set(added)
        for round_ in rounds:
            assert set(round_["dice"]) == held_out
            assert set(round_["per_label"]) == {"Head", "Tail"}
            assert round_["iterations"] == 1
    full = results["full"]["0"]
    assert (full["labels"], full["iterations"], set(full["dice"])) == (5, 3, held_out)

    # Given again, with another strategy: only that one is played.
    played = []
    play = simulate_runs.play_unit

    def watched(plan: SimulationPlan, cohort: object, unit: Unit, *rest: object) -> None:
        played.append(unit.name)
        play(plan, cohort, unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("rep3d.active.simulate.schedule.play_unit", watched)
    more = simulate(data, out, ["random", "hybrid", "tta"], [0], PLAN, say=said.append)
    assert played == ["tta"]
    assert more["runs"]["random"] == results["runs"]["random"]
    assert set(more["runs"]["tta"]["0"][1]["dice"]) == held_out

    # Results of other settings are never mixed in.
    with pytest.raises(ConfigError, match="iterations 1 .now 2."):
        simulate(data, out, ["random"], [0], SimulationPlan((1, 2, 3), 5, 2, 2, views=2, device="cpu"))


@pytest.mark.slow
def test_runs_in_processes_survive_an_interruption(data: Path, tmp_path: Path) -> None:
    """A polite kill ends all processes; the same command goes on where it was and gets to the end."""
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "rep3d.cli.main",
        "simulate",
        str(data),
        "--out",
        str(out),
        "--strategies",
        "entropy",
    ]
    command += ["--seeds", "0", "--labels", "1,2", "--pool", "3", "--held-out", "1", "--iterations", "1"]
    command += ["--jobs", "2", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        first = Unit(0, FIRST_BATCH).result(out / "runs")
        deadline = time.monotonic() + 200
        while not first.exists():
            assert process.poll() is None and time.monotonic() < deadline, "the first batch did not get done"
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert not (out / "results.json").exists()
    stamp = first.stat().st_mtime_ns
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert first.stat().st_mtime_ns == stamp
    results = json.loads((out / "results.json").read_text())
    assert results["command"].startswith("rep3d simulate")
    assert results["summary"]["strategies"]["entropy"]["labels"] == [1, 2]
    assert not [path for path in (out / "runs").iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("small_network")
@pytest.mark.slow
def test_phantoms_where_no_data_are_given(tmp_path: Path) -> None:
    options = ["--strategies", "coreset", "--seeds", "3", "--labels", "1,2", "--pool", "2", "--held-out", "1"]
    shown = CliRunner().invoke(
        app, ["simulate", "--out", str(tmp_path), *options, "--iterations", "1", "--device", "cpu"]
    )
    assert shown.exit_code == 0, shown.output
    assert "coreset" in shown.output and "95 %" in shown.output
    assert len(list((tmp_path / "phantoms" / "seed3" / "imagesTr").iterdir())) == 3


def test_strategies_are_listed() -> None:
    shown = CliRunner().invoke(app, ["simulate", "--strategies", "help"])
    assert shown.exit_code == 0
    for name in ("random", "coreset", "tta", "margin", "hybrid"):
        assert name in shown.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": (4, 2)}, "rising"),
        ({"labels": ()}, "rising"),
        ({"labels": (2, 9)}, "at least as many cases as labels"),
        ({"held_out": 0}, "held-out"),
        ({"preset": "huge"}, "preset"),
    ],
)
def test_impossible_plans_are_refused(change: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        SimulationPlan(**{"labels": (1, 2), "pool": 5, **change})


def test_impossible_requests_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    for strategies, seeds, words in (
        (["hybrid", "hybrid"], [0], "different"),
        (["best"], [0], "expected one of"),
        (["random"], [], "seeds"),
        (["random"], [-1], "seed"),
    ):
        with pytest.raises(ConfigError, match=words):
            simulate(data, tmp_path / "out", strategies, seeds, PLAN)
    with pytest.raises(TaskError, match="too few cases: 102 are needed"):
        simulate(data, tmp_path / "other", ["random"], [0], SimulationPlan((1, 2), 100, 2))
    assert not (tmp_path / "out").exists()


# The summary ----------------------------------------------------------------------------------------------------------


def _rounds(*dice: float) -> list[dict]:
    return [{"labels": labels, "mean": value} for labels, value in zip((4, 8, 16), dice, strict=True)]


def test_labels_to_reach_a_value_by_hand() -> None:
    assert labels_to_reach([4, 8, 16], [0.5, 0.7, 0.9], 0.8) == pytest.approx(12)
    assert labels_to_reach([4, 8, 16], [0.5, 0.7, 0.9], 0.7) == pytest.approx(8)
    assert labels_to_reach([4, 8, 16], [0.8, 0.7, 0.9], 0.75) == 4
    assert labels_to_reach([4, 8, 16], [0.5, 0.7, 0.9], 0.95) is None


def test_interval_is_students() -> None:
    found = interval([0.70, 0.72, 0.74])
    assert found["mean"] == pytest.approx(0.72)
    # t(0.975, 2) = 4.3027, standard deviation 0.02
    assert found["high"] - found["mean"] == pytest.approx(4.3027 * 0.02 / np.sqrt(3), rel=1e-4)
    assert interval([0.5]) == {"mean": 0.5, "low": None, "high": None, "n": 1}


def test_differences_are_paired_and_reached_means_reached_with_every_seed() -> None:
    runs = {
        "random": {0: _rounds(0.5, 0.6, 0.7), 1: _rounds(0.7, 0.8, 0.9)},
        "hybrid": {0: _rounds(0.5, 0.65, 0.76), 1: _rounds(0.7, 0.85, 0.96)},
    }
    reference = {0: {"mean": 0.8}, 1: {"mean": 1.0}}
    summary = summarise(runs, reference)
    hybrid = summary["strategies"]["hybrid"]
    # The seeds differ by 0.2, the strategies within each seed by 0.05 and 0.06: pairing takes out the former.
    assert [point["mean"] for point in hybrid["difference"]] == pytest.approx([0, 0.05, 0.06])
    assert hybrid["difference"][1]["high"] == pytest.approx(0.05)
    assert hybrid["dice"][1]["high"] - hybrid["dice"][1]["low"] > 1
    assert hybrid["labels_to_95"]["seeds"] == {"0": pytest.approx(16), "1": pytest.approx(8 + 8 * 0.1 / 0.11)}
    assert hybrid["labels_to_95"]["mean"] == pytest.approx((16 + 8 + 8 * 0.1 / 0.11) / 2)
    assert summary["strategies"]["random"]["labels_to_95"] == {
        "seeds": {"0": None, "1": None},
        "reached": 0,
        "of": 2,
        "mean": None,
        "low": None,
        "high": None,
        "n": 0,
    }
    assert "difference" not in summary["strategies"]["random"]
    # (0.55 * 4 + 0.65 * 8) / 12 and (0.75 * 4 + 0.85 * 8) / 12
    assert summary["strategies"]["random"]["area"]["mean"] == pytest.approx((7.4 + 9.8) / 24)


def test_figure_of_one_seed_without_random(tmp_path: Path) -> None:
    summary = summarise({"entropy": {0: _rounds(0.5, 0.6, 0.7)}}, {0: {"mean": 0.8}})
    write_curves(summary, "title", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert REFERENCE not in summary["strategies"]
    assert os.listdir(tmp_path) == ["curves.png"]


def test_a_damaged_result_is_played_again_and_damaged_settings_are_named(tmp_path: Path) -> None:
    unit = Unit(0, FIRST_BATCH)
    assert unit.rounds(tmp_path) == []
    unit.result(tmp_path).write_text('{"seed": 0, "rounds": [{"added": ["a"]}]}')
    assert unit.rounds(tmp_path) == [{"added": ["a"]}]
    unit.result(tmp_path).write_text('{"seed": 0, "rou')
    assert unit.rounds(tmp_path) == []
    (kept,) = tmp_path.glob("*.damaged-*")
    assert kept.read_text() == '{"seed": 0, "rou'
    settings = tmp_path / "settings.json"
    _check_same(settings, {"pool": 3})
    with pytest.raises(ConfigError, match="pool 3"):
        _check_same(settings, {"pool": 4})
    settings.write_text("{half")
    with pytest.raises(DamagedFileError, match=r"settings\.json"):
        _check_same(settings, {"pool": 3})
