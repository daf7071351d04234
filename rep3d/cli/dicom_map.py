"""``rep3d dicom-map``: from a de-identified image back to its patient and its UIDs, for whoever may read the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rep3d.cli.common import console
from rep3d.errors import Rep3DError

__all__ = ["dicom_map"]


def dicom_map(
    word: Annotated[
        str,
        typer.Argument(help="A code (of a patient, or after DICOM-), a UID, or the name of an image or a folder."),
    ],
    studies: Annotated[Path, typer.Option(help="Studies folder of the server.")],
) -> None:
    """Say which patient a de-identified image is of.

    What is printed names patients: it is read from files that only the server's user may read, and noted nowhere.
    """
    from rep3d.imaging.dicom.pseudonyms import Pseudonyms

    if not (studies / "rep3d").is_dir():
        raise Rep3DError(f"--studies: {studies} is no folder that a server has been started on.")
    names = Pseudonyms(studies / "rep3d")
    found = names.find(word)
    for record in found:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
    place = names.find_place(studies, word.removeprefix("DICOM-").removeprefix("file "))
    if place:
        console.print(str(place), soft_wrap=True, markup=False, highlight=False)
    if not (found or place):
        raise Rep3DError(f"Nothing in {studies} has the code, UID or name {word[:200]!r}.")
