"""What the command line prints in a terminal of 80 columns: nothing wider, nothing cut off, no markup left."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from rep3d.active.simulate.summary import interval
from rep3d.active.strategies import STRATEGIES
from rep3d.checkpoint import Checkpoint
from rep3d.cli.main import app
from rep3d.cli.tables import show_strategies, show_summary, show_task, show_tasks
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.registry import TASKS
from rep3d.terminal import print_scores
from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore

WIDTH = 80
COMMANDS = (
    "demo",
    "simulate",
    "plan",
    "convert",
    "train",
    "segment",
    "predict",
    "evaluate",
    "compare",
    "tune",
    "explain",
    "export",
    "tasks",
    "versions",
    "keys",
    "audit",
    "dicom-map",
)
ORGANS = list(TASKS["amos_ct"].label_names)


def _terminal(colour: bool = False) -> Console:
    return Console(file=io.StringIO(), width=WIDTH, force_terminal=colour, color_system="truecolor" if colour else None)


def _printed(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def _fits(text: str) -> None:
    """No line is wider than the terminal, and no cell was cut off."""
    assert text.strip()
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "…" not in text


def _help(*command: str) -> str:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_help_says_what_the_program_is_for_and_lists_all_commands() -> None:
    text = _help()
    _fits(text)
    said = [line.strip() for line in text.splitlines() if line.strip()]
    assert said[1] == "Segment 3D medical images, and learn from each correction."
    listed = re.findall(r"^│ (\w[\w-]*) {2,}(\S.*?) *│$", text, re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(COMMANDS)
    assert all(words.endswith(".") for _, words in listed), "a command's line ends in the middle of a sentence"


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_is_readable(command: tuple[str, ...]) -> None:
    text = _help(*command)
    _fits(text)
    assert not re.search(r"`|\[/|\[bold|\\\[", text), "markup is left"


def test_defaults_that_depend_on_other_options_are_shown() -> None:
    assert "8; 16 with --data" in _help("demo")


@pytest.mark.parametrize("colour", [False, True])
def test_tasks(colour: bool) -> None:
    console = _terminal(colour)
    show_tasks(console)
    text = re.sub(r"\x1b\[[\d;]*m", "", _printed(console))
    _fits(text)
    for task in TASKS.values():
        for name, value in task.labels.items():
            assert re.search(rf"{'■ ' if colour else '(^|  )'}{re.escape(name)}={value}\b", text), name
    assert colour or "■" not in text, "squares say nothing without colours"


@pytest.mark.parametrize("name", TASKS)
def test_a_task_with_its_codes(name: str) -> None:
    console = _terminal()
    show_task(console, name)
    text = _printed(console)
    _fits(text)
    for term in TASKS[name].terms.values():
        assert all(f"{code.meaning} ({code.scheme} {code.value})" in text for code in term.codes.values())


def test_strategies() -> None:
    console = _terminal()
    show_strategies(console, STRATEGIES)
    _fits(_printed(console))
    assert all(name in _printed(console) for name in STRATEGIES)


def test_a_simulation_of_five_strategies() -> None:
    labels = [2, 4, 8, 12, 20]
    value = interval([0.71, 0.78, 0.8])
    reached = {"reached": 3, "of": 3, "seeds": {"0": 5.6, "1": 5.9, "2": 13.5}, "mean": 8.3}
    entry = {"dice": [value] * len(labels), "area": value, "labels_to_95": reached}
    summary = {"strategies": dict.fromkeys(list(STRATEGIES)[:5], entry), "interval": "95 % interval", "full": value}
    settings = {"labels": labels, "held_out": 20, "seeds": [0, 1, 2], "pool": 60}
    console = _terminal()
    show_summary(console, {"summary": summary, "settings": settings})
    text = _printed(console)
    _fits(text)
    assert text.count("0.763") == 5 * (len(labels) + 1) + 1 and all(name in text for name in list(STRATEGIES)[:5])


def test_scores_of_many_labels_are_parted_into_tables_that_fit() -> None:
    rows = {
        (f"a_case_with_a_long_name_{case}", "0.500"): {name: (index + case) / 100 for index, name in enumerate(ORGANS)}
        for case in range(2)
    }
    console = _terminal()
    print_scores(console, "Dice", ORGANS, ("Case", "Mean"), rows)
    text = _printed(console)
    _fits(text)
    assert all(f"{index / 100:.3f}" in text for index in range(len(ORGANS) + 1))
    assert text.count("Dice, labels") > 1 and f"to {len(ORGANS)}" in text


def test_scores_of_few_labels_stay_in_one_table() -> None:
    console = _terminal()
    print_scores(console, "Dice", ["Head", "[b]Tail"], ("Case",), {("[a]",): {"Head": 0.5, "[b]Tail": float("nan")}})
    (row,) = [line for line in _printed(console).splitlines() if "[a]" in line]
    assert row.split() == ["│", "[a]", "│", "0.500", "│", "-", "│"]
    assert "[b]Tail" in _printed(console)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Return a studies folder with two versions of a model of fifteen labels."""
    store = VersionStore(tmp_path / "rep3d" / "models" / "rep3d")
    config = Rep3DConfig(
        in_channels=1,
        out_channels=len(ORGANS) + 1,
        dims=(4, 4, 4, 4),
        depths=(1, 1, 1, 1),
        hidden_size=4,
        kernel_size=3,
        generator_kernel=3,
    )
    scores = {name: (index + 1) / 100 for index, name in enumerate(ORGANS)}
    for reason in ("kept: no better than v1", "published: mean Dice 0.650 against 0.450 of v1 on the same 4 cases"):
        record = VersionRecord(scores=scores, case_scores={"case_7": scores}, decision={"reason": reason})
        trained = Checkpoint(Rep3D(config), TASKS["amos_ct"], {"created": "2026-01-02T03:04:05", "cases": ["a", "b"]})
        store.add(trained, record)
    store.publish("v2", "anna", "better")
    return tmp_path


@pytest.mark.parametrize("action", [(), ("show", "v2")])
def test_versions_of_a_model_with_many_labels(studies: Path, action: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, ["versions", str(studies), *action], env={"COLUMNS": str(WIDTH), "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    _fits(shown.output)
    numbers = [(index + 1) / 100 for index in range(len(ORGANS))] if action else [0.08]
    assert all(f"{number:.3f}" in shown.output for number in numbers)
