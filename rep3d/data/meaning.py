"""What the numbers of a data set mean: its labels, its channels, and what its ``dataset.json`` says besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rep3d.data.cases import DESCRIPTION
from rep3d.errors import TaskError
from rep3d.tasks.dataset_json import (
    channels_from_dataset_json,
    ignore_from_dataset_json,
    labels_from_dataset_json,
    read_dataset_json,
)

__all__ = ["Meaning", "meaning_of"]

_FACTS = ("name", "description", "reference", "licence", "license", "release")  # of a dataset.json, that are kept


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a data set mean.

    Attributes:
        labels: label name to voxel value, background left out.
        channels: names of the images' channels, in their order; of a single one the modality, such as ``"CT"``.
        ignore: voxel value of which nothing is known; None where there is none.
        facts: what else its ``dataset.json`` says of it, such as its name and licence.
        replaced: the labels of its ``dataset.json``, where others were given in their place.
    """

    labels: Mapping[str, int]
    channels: Sequence[str]
    ignore: int | None
    facts: Mapping[str, Any]
    replaced: Mapping[str, int] = field(default_factory=dict)


def meaning_of(
    folder: Path,
    labels: tuple[Mapping[str, int], int | None] | None = None,
    channels: Sequence[str] | None = None,
) -> Meaning:
    """Return what the numbers of a data set mean, by its ``dataset.json`` where nothing else is said.

    Args:
        folder: the data set.
        labels: its labels and the value to ignore, see :func:`rep3d.tasks.dataset_json.labels_and_ignore`.
        channels: names of its channels.

    Raises:
        TaskError: if neither says it.
    """
    path = folder / DESCRIPTION
    there = path.is_file()
    if labels is None and not there:
        raise TaskError(f"{folder} has no {DESCRIPTION}, so its labels must be named: --labels liver=1,tumour=2.")
    named = channels or (channels_from_dataset_json(path) if there else ())
    if not named:
        raise TaskError(
            f"Nothing says what the channels of the images in {folder} are. Name them: --channels CT, or --channels "
            f"T1,T2 for two. (nnU-Net normalises by these names: what is called CT by its Hounsfield units.)"
        )
    known, ignore = labels or (labels_from_dataset_json(path), ignore_from_dataset_json(path))
    content = read_dataset_json(path) if there else {}
    before: Mapping[str, int] = {}
    if labels is not None and there:
        with suppress(TaskError):  # what cannot be read is what labels are given for
            before = labels_from_dataset_json(path)
    facts = {key: content[key] for key in _FACTS if key in content}
    return Meaning(known, tuple(named), ignore, facts, {} if before == known else before)
