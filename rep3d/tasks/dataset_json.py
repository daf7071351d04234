"""What a data set says of itself in its ``dataset.json``, in the decathlon's form or nnU-Net's: labels and channels.

People write these files, so numbers come as texts, and names twice. What can mean one thing only is taken for it; what
could mean two is refused, since a wrong value of a label falsifies every label map.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rep3d.errors import TaskError
from rep3d.json_text import parse_json

__all__ = [
    "IGNORE",
    "Annotated",
    "annotated_from_dataset_json",
    "channels_from_dataset_json",
    "ignore_from_dataset_json",
    "label_table",
    "labels_and_ignore",
    "labels_from_dataset_json",
    "modality_from_dataset_json",
    "plain_name",
    "read_dataset_json",
    "several",
    "require_folder",
]

_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,9}(\.0*)?\s*")
_HIGHEST = 65535
_LONGEST_NAME = 128
# What is no structure, whatever a table says: nnU-Net's two reserved names, and other programs' names of the value 0.
IGNORE = "ignore"
"""Name of the voxels of which nothing is known."""
_BACKGROUND = frozenset({"background", "bg"})
_NAMES_OF_0 = _BACKGROUND | {"clear label", "none", "unknown", "unlabeled", "unlabelled"}


def require_folder(folder: Path | str) -> None:
    """Refuse a data set that is not there.

    Raises:
        TaskError: naming the folder.
    """
    if not Path(folder).is_dir():
        raise TaskError(f"There is no folder {folder}. Is the name of the data set right?")


def read_dataset_json(path: Path | str) -> dict[str, Any]:
    """Return the content of a ``dataset.json``.

    Raises:
        TaskError: if it cannot be read, or is no JSON object.
    """
    try:
        content = parse_json(Path(path).read_bytes())
    except OSError as error:
        require_folder(Path(path).parent)
        raise TaskError(
            f"{path} cannot be read ({error.strerror}). It says what the labels of a data set are; of two folders, "
            f"rep3d convert IMAGES NEW_FOLDER --label-maps LABELS --labels NAME=VALUE,... makes a data set with one."
        ) from error
    except ValueError as error:
        raise TaskError(f"{path} cannot be read as the dataset.json of a data set ({error}). Correct it.") from error
    if not isinstance(content, dict):
        raise TaskError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def labels_from_dataset_json(path: Path | str) -> dict[str, int]:
    """Foreground labels of a ``dataset.json``.

    Args:
        path: the ``dataset.json`` file.

    Returns:
        Label name to voxel value, without background, and without nnU-Net's ``ignore`` (see
        :func:`ignore_from_dataset_json`).

    Raises:
        TaskError: if the file is unreadable, or its ``labels`` are no table of names and values; see
            :func:`label_table`.
    """
    return _labels_and_ignore(path)[0]


def ignore_from_dataset_json(path: Path | str) -> int | None:
    """Return the voxel value of which nothing is known, called ``ignore`` among the labels; None where there is none.

    Raises:
        TaskError: as :func:`labels_from_dataset_json`.
    """
    return _labels_and_ignore(path)[1]


def _labels_and_ignore(path: Path | str) -> tuple[dict[str, int], int | None]:
    labels = read_dataset_json(path).get("labels")
    if not isinstance(labels, dict):
        raise TaskError(
            f'{path}: expected "labels": {{"background": 0, NAME: 1, ...}} or {{"0": "background", "1": NAME, ...}}, '
            f"got {labels!r:.200}."
        )
    try:
        return labels_and_ignore(_name_and_value(key, value) for key, value in labels.items())
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error


def labels_and_ignore(pairs: Iterable[tuple[Any, Any]]) -> tuple[dict[str, int], int | None]:
    """Return a table of labels as :func:`label_table` does, and the value called ``ignore``; None where there is none.

    Raises:
        TaskError: as :func:`label_table`, or if that value is the background's or a label's.
    """
    given = list(pairs)
    values = {_checked_value(IGNORE, value) for name, value in given if plain_name(name) == IGNORE}
    table = label_table(pair for pair in given if plain_name(pair[0]) != IGNORE)
    if len(values) > 1 or values & {0, *table.values()}:
        raise TaskError(
            f"{IGNORE!r} has the value {' and '.join(map(str, sorted(values)))}; expected one that no label and not "
            f"the background has."
        )
    return table, next(iter(values), None)


@dataclass(frozen=True)
class Annotated:
    """Which labels were annotated in the cases of a data set.

    Attributes:
        everywhere: their names, in cases of which nothing else is said; None for all labels.
        by_case: case id to the names.
    """

    everywhere: tuple[str, ...] | None = None
    by_case: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, case: str) -> tuple[str, ...] | None:
        """Return the labels that were annotated in a case; None for all."""
        return self.by_case.get(case, self.everywhere)


def annotated_from_dataset_json(path: Path | str) -> Annotated:
    """Return which labels were annotated, where a ``dataset.json`` says that it was not all of them.

    Either for the whole data set, ``"annotated": [NAME, ...]``, or by case, ``"annotated": {CASE: [NAME, ...]}``; in a
    case that is not named there, all labels were annotated.

    Raises:
        TaskError: if that is something else, or names what is no label.
    """
    given = read_dataset_json(path).get("annotated")
    if given is None:
        return Annotated()
    labels = labels_from_dataset_json(path)

    def names(value: Any, of: str) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise TaskError(f'{path}: "annotated"{of}: expected a list of label names, got {value!r:.200}.')
        unknown = [name for name in value if name not in labels]
        if unknown:
            raise TaskError(
                f'{path}: "annotated"{of} names {unknown[0]!r}, which is none of the labels ({", ".join(labels)}).'
            )
        return tuple(name for name in labels if name in value)

    if isinstance(given, dict):
        return Annotated(None, {case: names(value, f" of {case}") for case, value in given.items()})
    return Annotated(names(given, ""))


def _name_and_value(key: str, value: Any) -> tuple[Any, Any]:
    """Return an entry's name and value: the decathlon writes ``{"1": "Liver"}``, nnU-Net writes ``{"Liver": 1}``."""
    if not _NUMBER.fullmatch(key):
        return key, value
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return value, key
    if isinstance(value, (int, float, str)) and not isinstance(value, bool) and float(value) == float(key):
        return key, value
    raise TaskError(
        f"the labels have {key!r}: {value!r:.100}, of which neither can be told to be the name. Write {{NAME: VALUE}}, "
        f"with names that are no numbers."
    )


def label_table(pairs: Iterable[tuple[Any, Any]]) -> dict[str, int]:
    """Return a table of labels as people gave it, checked.

    Args:
        pairs: names and voxel values. A value may be written as ``"1"`` or ``1.0``, or as a list of one value.

    Returns:
        Label name, without white space around it, to voxel value; without background.

    Raises:
        TaskError: if a name is none, a value is no whole number from 1 to 65535 (0 for the background), a name has two
            values or a value two names, names differ only in capitals and white space, or a label is a region of
            several values or nnU-Net's ``ignore``.
    """
    found: dict[str, int] = {}
    names: dict[int, str] = {}
    spelled: dict[str, str] = {}
    for given, number in pairs:
        name = _checked_name(given)
        value = _checked_value(name, number)
        plain = plain_name(name)
        if spelled.setdefault(plain, name) != name:
            raise TaskError(
                f"the labels {spelled[plain]!r} and {name!r} differ only in capitals or white space, so one would be "
                f"taken for the other. Rename one, or leave it out if they are one."
            )
        if found.setdefault(name, value) != value:
            raise TaskError(
                f"the label {name!r} has two values, {found[name]} and {value}. Give each value a name of its own, or "
                f"make one value of them in the label maps."
            )
        if names.setdefault(value, name) != name:
            raise TaskError(f"the value {value} has two names, {names[value]!r} and {name!r}. Give each its own value.")
        _check_meaning(name, value, plain)
    table = {name: value for name, value in found.items() if value}
    if not table:
        raise TaskError("there must be at least one label beside the background.")
    return table


def plain_name(name: Any) -> str:
    """Return a label's name without what may differ where it is the same: capitals, white space, forms of letters."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split()) if isinstance(name, str) else ""


def _checked_name(name: Any) -> str:
    text = name.strip() if isinstance(name, str) else ""
    if not text or len(text) > _LONGEST_NAME or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text):
        raise TaskError(
            f"a label is called {name!r:.100}; expected a name of 1 to {_LONGEST_NAME} characters, without line breaks "
            f"and the like. Rename it."
        )
    return text


def _checked_value(name: str, value: Any) -> int:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        raise TaskError(
            f"the label {name!r} is a region of several values, {value!r:.100}, but a voxel of a label map has one, "
            f"and so has a label here. Give each value a name of its own; regions can be joined after segmentation."
        )
    number = None
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = int(float(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        number = int(value)
    if number is None or not 0 <= number <= _HIGHEST:
        raise TaskError(
            f"the label {name!r} has the value {value!r:.100}; expected a whole number from 1 to {_HIGHEST}."
        )
    return number


def _check_meaning(name: str, value: int, plain: str) -> None:
    if plain == IGNORE:
        raise TaskError(
            f"{name!r} ({value}) is nnU-Net's name for voxels of which nothing is known, and no structure. Here it can "
            f"be named in the dataset.json of a data set only."
        )
    if value == 0 and plain not in _NAMES_OF_0:
        raise TaskError(
            f"the label {name!r} has the value 0, which is the background's in every label map. Give it another one, "
            f"in the label maps, too."
        )
    if value and plain in _BACKGROUND:
        raise TaskError(
            f"{name!r} has the value {value}, but the background is 0, and no structure. Leave it out, or give that "
            f"value the name of what it is."
        )


def modality_from_dataset_json(path: Path | str) -> str | None:
    """Return the modality named by a ``dataset.json`` (``"MRI"``, ``"CT"``), or None where it names none.

    Raises:
        TaskError: if the file is unreadable, or names several channels.
    """
    names = channels_from_dataset_json(path)
    if len(names) > 1:
        raise TaskError(
            f"{path} names {len(names)} channels ({', '.join(names)}), but only images of one channel can be used "
            f"here. Make a data set of one of them."
        )
    return next(iter(names), None)


def channels_from_dataset_json(path: Path | str) -> tuple[str, ...]:
    """Return the names of an image's channels in a ``dataset.json``, in their order; none where it says nothing.

    The decathlon has them under ``modality``, nnU-Net under ``channel_names``; of a single channel it is the modality.

    Raises:
        TaskError: if the file is unreadable, both are there and contradict each other, or the order cannot be told.
    """
    content = read_dataset_json(path)
    found = {key: _channels(content[key], key, path) for key in ("modality", "channel_names") if content.get(key)}
    kinds = [tuple(name.upper().replace("MRI", "MR") for name in names) for names in found.values()]
    if len(kinds) == 2 and (len(kinds[0]) != len(kinds[1]) or {"CT", "MR"} in map(set, zip(*kinds, strict=True))):
        raise TaskError(
            f"{path} names two kinds of image, modality {', '.join(found['modality'])!r} and channel_names "
            f"{', '.join(found['channel_names'])!r}. Correct one of them."
        )
    return next(iter(found.values()), ())


def several(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of an image's channels, as :func:`channels_from_dataset_json` gives them, but none of a single
    one: that is the modality."""
    return tuple(names) if len(names) > 1 else ()


def _channels(given: Any, key: str, path: Path | str) -> tuple[str, ...]:
    entries = given if isinstance(given, dict) else dict(enumerate(given if isinstance(given, list) else [given]))
    pairs = [
        (name, number) if isinstance(name, int) and not isinstance(name, bool) else (number, name)  # {"CT": 0}
        for number, name in entries.items()
    ]
    if not all(isinstance(name, str) and name.strip() for _, name in pairs) or (
        len(pairs) > 1 and sorted(str(number) for number, _ in pairs) != sorted(map(str, range(len(pairs))))
    ):
        raise TaskError(f'{path}: expected "{key}": {{"0": NAME, "1": NAME, ...}}, got {given!r:.200}.')
    ordered = sorted(pairs, key=lambda pair: int(pair[0]) if len(pairs) > 1 else 0)
    return tuple(str(name).strip() for _, name in ordered)
