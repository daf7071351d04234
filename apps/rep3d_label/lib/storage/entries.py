"""What an image and its labels are to the registry: files, and what is known of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.names import split_suffix
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["FINAL", "CaseFiles", "files_of", "found_file", "images_folder"]

FINAL = str(DefaultLabelTag.FINAL.value)


@dataclass(frozen=True)
class CaseFiles:
    """An image and what belongs to it.

    Attributes:
        id: the image's id.
        image: its file.
        label: the file of its final label, or None.
        info: what is known about that label.
        tags: the tags of all its labels.
    """

    id: str
    image: Path
    label: Path | None
    info: dict[str, Any]
    tags: tuple[str, ...]


def images_folder(studies: Path) -> str:
    """Return where the images of a studies folder are, relative to it.

    That is the folder itself, or ``imagesTr`` in a folder of the decathlon's layout without images at its top.
    """
    if any(split_suffix(file.name, IMAGE_SUFFIXES)[1] and not file.name.startswith(".") for file in studies.iterdir()):
        return "."
    return "imagesTr" if (studies / "dataset.json").is_file() and (studies / "imagesTr").is_dir() else "."


def files_of(image_id: str, known: ImageLabelModel, images: Path, final: Path) -> CaseFiles:
    """Return an image with what belongs to it, from the folders of images and of final labels."""
    label, tags = known.labels.get(FINAL), tuple(known.labels)
    file = final / f"{image_id}{label.ext}" if label else None
    return CaseFiles(image_id, images / f"{image_id}{known.image.ext}", file, dict(label.info) if label else {}, tags)


def found_file(name: str, suffix: str) -> DataModel:
    """Return what is known about a file that was found."""
    return DataModel(info={"ts": int(time.time()), "name": name}, ext=suffix)
