"""A case is an image file with its label file; a data set is a folder of them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Case", "decathlon_cases"]


@dataclass(frozen=True)
class Case:
    """An image file and its label file."""

    id: str
    image: Path
    label: Path


def decathlon_cases(folder: Path | str) -> list[Case]:
    """Return the labelled cases of a decathlon folder, by name: files of one name in imagesTr and labelsTr.

    Hidden files, which macOS leaves beside images, are no cases.
    """
    folder = Path(folder)
    found = []
    for image in sorted((folder / "imagesTr").glob("*.nii*")):
        label = folder / "labelsTr" / image.name
        if not image.name.startswith(".") and label.is_file():
            found.append(Case(image.name.removesuffix(".gz").removesuffix(".nii"), image.resolve(), label.resolve()))
    return found
