"""What the demo and the training draw on a terminal, with rich."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from rep3d.data.cohort import Cohort
from rep3d.demo.play import DemoPlan, Listener, TrainStatus
from rep3d.demo.report import RoundResult
from rep3d.evaluation.gate import label_means
from rep3d.evaluation.metrics import mean_dice
from rep3d.terminal import print_scores

if TYPE_CHECKING:
    from rep3d.training.train import TrainProgress

__all__ = ["Screen", "train_progress"]


def _progress(console: Console) -> Progress:
    phase = TextColumn("{task.description}", table_column=Column(no_wrap=True, min_width=len("validating")))
    columns = (phase, BarColumn(20), TaskProgressColumn(), TextColumn("{task.fields[note]}"))
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _note(iteration: int | None, iterations: int | None, loss: float | None, eta: float | None) -> str:
    parts = []
    if iteration:
        parts.append(f"step {iteration}/{iterations}")
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if eta is not None:
        left = f"{eta:.0f} s" if eta < 300 else f"{eta // 3600:.0f} h {eta % 3600 // 60:02.0f} min"
        parts.append(f"{left} left")
    return ", ".join(parts)


@contextmanager
def train_progress(console: Console, minutes: float) -> Iterator[Callable[[TrainProgress], None]]:
    """Yield a progress bar for :func:`rep3d.training.train.train`.

    Args:
        console: where it is drawn.
        minutes: that the training may take.
    """
    from rep3d.training.minutes.budget import forecast

    with _progress(console) as progress:
        bars: list[TaskID] = []  # none before there is something to show

        def show(p: TrainProgress) -> None:
            words = forecast(p.steps_expected, p.iterations, minutes)
            note = "; ".join(filter(None, (_note(p.iteration, p.iterations, p.loss, p.eta_seconds), words, p.note)))
            if not bars:
                bars.append(progress.add_task("training", total=None, note=""))
            progress.update(bars[0], description=p.phase, total=p.iterations, completed=p.iteration, note=note)

        yield show


class Screen(Listener):
    """The demo's terminal: a line for each act, a bar for each training, a table of Dice."""

    def __init__(self, console: Console, cohort: Cohort, plan: DemoPlan) -> None:
        self.console = console
        self.cohort = cohort
        self.plan = plan
        self.progress = _progress(console)
        self.bars: dict[int, int] = {}

    def __enter__(self) -> Screen:
        self.progress.start()
        self.say(
            f"[bold]{escape(self.cohort.name)}[/]: {len(self.cohort.pool)} images, {self.plan.submit} labels to submit "
            f"in {self.plan.rounds} rounds, {len(self.cohort.held_out)} held out. Starting the server ..."
        )
        if self.cohort.left_out:
            self.say(escape(self.cohort.summary()))
            for entry in self.cohort.left_out:
                self.say(f"  {escape(str(entry))}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        self.progress.console.print(text, highlight=False)

    def training(self, round_: int, status: TrainStatus) -> None:
        if round_ not in self.bars:
            self.bars[round_] = self.progress.add_task(f"round {round_}", total=1.0, note="starting")
        note = (
            _note(status.iteration, status.iterations, status.loss, status.eta_seconds) or status.phase or status.state
        )
        self.progress.update(self.bars[round_], completed=status.progress, note=note)  # type: ignore[arg-type]

    def measured(self, result: RoundResult) -> None:
        if result.dice:
            means = ", ".join(f"{escape(name)} {value:.3f}" for name, value in label_means(result.dice).items())
            self.say(
                f"[bold]Round {result.round}[/]: {result.submitted} labels, {result.version}; held-out Dice {means}"
            )

    def finish(self, rounds: Sequence[RoundResult], report: Path) -> None:
        """Print the table of Dice and where the report is."""
        self.progress.stop()
        held_out = len(self.cohort.held_out)
        title = f"Dice on {held_out} held-out cases"
        rows = {}
        for result in rounds:
            mean = f"{mean_dice(result.dice):.3f}" if result.dice else "no model yet"
            seconds = f"{result.train_seconds:.0f} s" if result.train_seconds else "-"
            cells = str(result.round), str(result.submitted), result.version or "-", seconds, mean
            rows[cells] = label_means(result.dice)
        heads = ("Round", "Labels", "Version", "Training", "Mean")
        print_scores(self.console, title, list(self.cohort.labels), heads, rows)
        self.console.print(f"Report: {report.resolve()}", soft_wrap=True)
