"""``rep3d demo``: the whole loop, played and measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rep3d.cli.common import DECATHLON, Folder, console, stop_on_terminate
from rep3d.errors import Rep3DError

if TYPE_CHECKING:
    from rep3d.starter.models import Starter

__all__ = ["demo"]

_OUT = Path("demo_output")
_DEMO_ROOM = 100_000_000  # bytes: images, predictions, models


def demo(
    out: Folder = _OUT,
    data: Annotated[Path | None, typer.Option(help=f"{DECATHLON} If not given, images are generated.")] = None,
    submit: Annotated[
        int | None, typer.Option(help="Labels to submit in all.", show_default="8; 16 with --data")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Trainings, spread evenly over the submitted labels.")] = 4,
    held_out: Annotated[
        int | None,
        typer.Option(
            help="Cases to measure on, which the server never sees.",
            show_default="8; 20 with --data; 12 with --starter",
        ),
    ] = None,
    starter: Annotated[
        str,
        typer.Option(
            help="Begin with the starter model for the labels of --data: on, off, or a folder with one. Cases that it "
            "was trained on are not used."
        ),
    ] = "off",
    iterations: Annotated[
        int | None, typer.Option(help="Training steps in all.", show_default="400; 1200 with --data")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of training in all.", show_default="6; 22 with --data")
    ] = None,
    strategy: Annotated[str, typer.Option(help="How the server chooses the next case.")] = "uncertainty",
    seed: Annotated[int, typer.Option(help="Seed of the generated images, the split and the training.")] = 0,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Play nothing: start the server on the latest demo's images, or on new ones, and open its page for "
            "annotating.",
        ),
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the server; 0 for a free one.")] = 0,
) -> None:
    """Play the whole loop with a real server, and measure it.

    An automatic clinician fetches cases, has them segmented, corrects and submits them, and lets the model train again.
    Each new model is measured on cases that the server never sees. Without options this takes 6 to 10 minutes on
    generated images. With --serve you are the clinician, in a browser.
    """
    from datetime import datetime

    from rep3d.data.cohort import decathlon_cohort, phantom_cohort, require_described
    from rep3d.demo.play import DemoPlan, Player
    from rep3d.demo.screen import Screen
    from rep3d.demo.serve import serve_page
    from rep3d.demo.server import ServerProcess
    from rep3d.files import copy_whole
    from rep3d.output import check_output_folder
    from rep3d.training.preparing import why_unusable

    stop_on_terminate()
    latest = max(out.glob("run_*/studies"), default=None) if serve and data is None else None
    if latest is not None:
        serve_page(console, latest, port)
        return
    real = data is not None
    if data is not None:
        require_described(data)
    plan = DemoPlan(
        submit=submit if submit is not None else (16 if real else 8),
        rounds=rounds,
        iterations=iterations if iterations is not None else (1200 if real else 400),
        minutes=minutes if minutes is not None else (22.0 if real else 6.0),
        strategy=strategy,
        seed=seed,
    )
    begins_with = _starter(starter, data)
    measured = held_out if held_out is not None else (12 if begins_with else 20 if real else 8)
    if measured < 1:
        raise typer.BadParameter(f"at least 1 is needed, got {measured}", param_hint="--held-out")
    report = check_output_folder(out, ("report.html",), (data,)) / "report.html"
    pool = plan.submit + plan.submit // 2  # some choice for the strategy
    seen = begins_with.trained_on if begins_with else ()
    real_cohort = decathlon_cohort(data, pool, measured, seed, why_unusable, seen) if data is not None else None
    folder = check_output_folder(out / datetime.now().strftime("run_%Y-%m-%d_%H-%M-%S"), room=_DEMO_ROOM)
    cohort = real_cohort or phantom_cohort(folder / "phantoms", pool, measured, seed)
    if serve:
        Player(cohort, plan, folder, starter=begins_with).prepare()
        serve_page(console, folder / "studies", port, starter)
        return
    with Screen(console, cohort, plan) as screen:
        player = Player(cohort, plan, folder, screen, begins_with)
        player.prepare()
        with ServerProcess(player.studies, folder / "server.log", port, {"starter": starter}) as server:
            try:
                player.play(server)
            finally:
                if any(result.dice for result in player.rounds):
                    player.write_report(folder / "report.html")
                    copy_whole(folder / "report.html", report)
                    screen.finish(player.rounds, report)
    where = "" if out == _OUT else f" --out {out}"
    console.print(f"Now paint a label yourself, in a browser: [bold]rep3d demo --serve{where}[/]", soft_wrap=True)


def _starter(asked: str, data: Path | None) -> Starter | None:
    """Return the starter model to begin with; None for none.

    Raises:
        Rep3DError: if there is none for the labels.
    """
    from rep3d.starter.models import FOLDER, matching_starter
    from rep3d.tasks.dataset_json import labels_from_dataset_json, modality_from_dataset_json

    if asked == "off":
        return None
    if data is None:
        raise Rep3DError("--starter: the generated images have labels of their own. Give --data, or leave it out.")
    labels = labels_from_dataset_json(data / "dataset.json")
    folder = FOLDER if asked == "on" else Path(asked)
    found = matching_starter(labels, modality_from_dataset_json(data / "dataset.json"), folder)
    if found is None:
        raise Rep3DError(f"--starter: in {folder} there is no starter model for the labels {', '.join(labels)}.")
    return found
