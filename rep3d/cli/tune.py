"""``rep3d tune``: which faster way of computing a model stands, by its Dice on cases that it was not trained on."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import DECATHLON, console, show_left_out
from rep3d.errors import Rep3DError

if TYPE_CHECKING:
    from rep3d.inference.tuned import Way

__all__ = ["tune"]


def tune(
    checkpoint: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file; what is found is kept in it.")],
    data: Annotated[Path, typer.Option(help=DECATHLON)],
    cases: Annotated[int, typer.Option(min=2, help="Measure so many cases at most, always the same.")] = 8,
) -> None:
    """Make a model faster on CPUs, where its Dice stays as it is.

    Cases that the model was not trained on are segmented plainly and in faster ways: bfloat16, windows that overlap
    less or are larger, only around what a first look found. A way whose mean Dice differs by less than 0.002 is kept
    in the model file and used from then on, which predict, segment, evaluate and the server say. `--engine torch` or
    `--engine openvino` computes plainly.
    """
    from rep3d.checkpoint import TUNED, load_checkpoint, save_checkpoint
    from rep3d.cli.evaluate import same_values
    from rep3d.data.cases import read_data_set
    from rep3d.evaluation.seen import Seen
    from rep3d.inference.tuned import PLAIN
    from rep3d.output import check_output
    from rep3d.predicting.tuning import LEAST_CASES, LEAST_DICE
    from rep3d.predicting.tuning import tune as run
    from rep3d.tasks.dataset_json import channels_from_dataset_json, ignore_from_dataset_json
    from rep3d.training.start import check_channels
    from rep3d.training.validation import shuffled

    description = data / "dataset.json"
    check_output(checkpoint, (".pt",), (description,), option="MODEL")
    model = load_checkpoint(checkpoint)
    found = read_data_set(data)
    show_left_out(found.left_out)
    labels = same_values(dict(model.task.labels), data)
    if description.is_file():
        check_channels(model.task, channels_from_dataset_json(description))
        ignore = ignore_from_dataset_json(description)
        model = dataclasses.replace(model, task=dataclasses.replace(model.task, ignore=ignore))
    seen = Seen([model.info])
    if not seen.known:
        raise Rep3DError(f"{checkpoint} does not say which cases it was trained on, so none can be measured on.")
    fresh = (case for case in shuffled(found.cases) if not seen(case))  # images are read for that
    usable = sorted(islice(fresh, cases or None), key=lambda case: case.id)
    if len(usable) < LEAST_CASES:
        raise Rep3DError(
            f"--data: {data} has {len(usable)} cases that the model was not trained on, and {LEAST_CASES} are needed. "
            f"Give a data set with others."
        )
    console.print(f"{len(usable)} cases: {escape(', '.join(case.id for case in usable))}", soft_wrap=True)

    def tell(way: Way, dice: float, seconds: float) -> None:
        name = way.words or "plainly"
        console.print(f"{name}: Dice {dice:.4f}, {seconds:.1f} processor seconds", soft_wrap=True, highlight=False)

    tuned = run(model, usable, labels, tell=tell)
    if tuned is None:
        raise Rep3DError(
            f"Fewer than {LEAST_CASES} cases could be measured, or their mean Dice is below {LEAST_DICE:g}, so that "
            f"there is nothing to lose: nothing was kept in {checkpoint}."
        )
    model = load_checkpoint(checkpoint)  # anew: the data set's value to ignore is none of the model's
    save_checkpoint(checkpoint, model.model, model.task, {**model.info, TUNED: tuned.to_dict()}, model.fine)
    words = "No way was faster with the same Dice: it computes plainly." if tuned.way == PLAIN else tuned.words
    console.print(f"Wrote {escape(str(checkpoint))}. {words}", soft_wrap=True, highlight=False)
