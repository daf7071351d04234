"""``rep3d evaluate``: a model's Dice on annotated cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import Device, Engine, console, show_left_out
from rep3d.errors import Rep3DError

__all__ = ["evaluate"]


def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Model file.")],
    data: Annotated[Path, typer.Option(help="Data set to measure on: a folder with imagesTr and labelsTr.")],
    skip: Annotated[int, typer.Option(help="Leave out so many cases, the first by name.", min=0)] = 0,
    device: Device = None,
    engine: Engine = None,
) -> None:
    """Measure a model's Dice on annotated cases.

    Cases that the model was trained on are marked and left out of the mean. A case that cannot be measured is named,
    and the others are measured all the same; the command then ends with status 1.
    """
    import tempfile

    from rep3d.data.cases import Case, LeftOut, listed, read_data_set
    from rep3d.evaluation.metrics import dice_of_files, mean_dice
    from rep3d.inference.predictor import Predictor
    from rep3d.terminal import print_scores
    from rep3d.training.preparing import each_case

    found = read_data_set(data)
    cases = found.cases[skip:]
    console.print(f"{escape(str(data))}: {found.found} cases found, {len(cases)} to measure", soft_wrap=True)
    show_left_out(found.left_out)
    if not cases:
        raise Rep3DError(
            f"--data: {data} has no case to measure on. Needed are files of the same name in imagesTr and labelsTr."
        )
    predictor = Predictor.load(checkpoint, device, engine)
    seen = set(predictor.info.get("trained_on", predictor.info.get("cases", [])))
    failed: list[LeftOut] = []

    with tempfile.TemporaryDirectory() as folder:

        def measure(case: Case) -> dict[str, float]:
            output = Path(folder) / "found.nii.gz"
            predictor.segment(case.image, output)
            dice = dice_of_files(output, case.label, predictor.task.labels)
            console.print(f"{escape(case.id)}: {mean_dice({case.id: dice}):.3f}", soft_wrap=True, highlight=False)
            return dice

        scores = {case.id: dice for case, dice in each_case(cases, measure, failed)}
    rows = {}
    for case, dice in scores.items():
        shown = f"{case} (trained on)" if case in seen else case
        rows[shown, f"{mean_dice({case: dice}):.3f}"] = dice
    if scores:
        title = f"Dice of {checkpoint.name} ({predictor.version})"
        print_scores(console, title, predictor.task.label_names, ("Case", "Mean"), rows)
    fresh = {case: score for case, score in scores.items() if case not in seen}
    if fresh:
        console.print(f"Mean over {len(fresh)} cases not trained on: {mean_dice(fresh):.3f}")
    if len(fresh) < len(scores):
        console.print(f"{len(scores) - len(fresh)} cases were trained on: their Dice says nothing about new images.")
    if failed:
        which = f"{len(failed)} of {len(cases)} cases" if scores else f"None of the {len(cases)} cases"
        told = "could not be measured" if scores else "could be measured"
        raise Rep3DError(f"{which} {told}: {listed(failed)}")
