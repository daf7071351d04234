"""``rep3d simulate``: annotation replayed with several strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import DECATHLON, Device, Folder, Preset, console, stop_on_terminate
from rep3d.errors import Rep3DError

__all__ = ["simulate"]


def simulate(
    data: Annotated[
        Path | None, typer.Argument(help=f"{DECATHLON} If not given, images are generated.", show_default=False)
    ] = None,
    out: Folder = Path("simulation"),
    strategies: Annotated[str, typer.Option(help="Strategies, by comma. The word help lists them.")] = (
        "random,entropy,hybrid"
    ),
    seeds: Annotated[
        str, typer.Option(help="Seeds, by comma. Each has its own split, first cases and trainings.")
    ] = "0,1,2",
    labels: Annotated[str, typer.Option(help="Labels there are after each round, by comma.")] = "2,4,8,12,20",
    pool: Annotated[int, typer.Option(help="Cases that may be annotated.")] = 60,
    held_out: Annotated[int, typer.Option(help="Other cases, to measure on.")] = 20,
    iterations: Annotated[int, typer.Option(help="Training steps per round.")] = 100,
    new_weight: Annotated[float, typer.Option(help="Draw a new case so many times as often as an old one.")] = 3.0,
    preset: Preset = "tiny",
    device: Device = None,
    jobs: Annotated[int, typer.Option(help="Runs at the same time; they share the cores.")] = 1,
) -> None:
    """Find out which strategy needs the fewest labels.

    Annotation is replayed on a data set whose labels are known, with several strategies. The result is Dice at each
    number of labels, and how many labels give 95 % of what all of them give. The same command goes on with an
    interrupted simulation.
    """
    from rep3d.active.simulate.schedule import SimulationPlan
    from rep3d.active.simulate.schedule import simulate as run
    from rep3d.active.strategies import STRATEGIES
    from rep3d.cli.tables import show_strategies, show_summary

    if strategies == "help":
        show_strategies(console, STRATEGIES)
        return
    stop_on_terminate()
    plan = SimulationPlan(
        labels=_whole_numbers(labels, "--labels"),
        pool=pool,
        held_out=held_out,
        iterations=iterations,
        preset=preset,
        new_weight=new_weight,
        device=device,
    )
    names = [name.strip() for name in strategies.split(",")]
    results = run(
        data, out, names, _whole_numbers(seeds, "--seeds"), plan, jobs, lambda line: console.print(escape(line))
    )
    show_summary(console, results)
    console.print(f"Wrote {escape(str(out / 'results.json'))} and curves.png", soft_wrap=True)


def _whole_numbers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise Rep3DError(f"{option}: expected whole numbers with commas between them, got {text!r}") from error
