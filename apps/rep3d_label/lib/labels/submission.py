"""A label file as a client sends it, made one that may be stored: checked, and changed only as was asked for.

A number means nothing without the names, so where a client says which value it used for which name, the file is brought
to the server's values by name. Nothing is guessed: what cannot be told for certain is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.channels import Channels
from lib.errors import RequestError
from lib.labels.expected import Expected
from lib.labels.facts import LabelFacts
from lib.labels.formats import LABEL_SUFFIXES, as_nifti
from lib.labels.segments import one_map
from lib.names import split_suffix
from rep3d.errors import LabelError
from rep3d.imaging.grid import Geometry, resample_label, same_grid
from rep3d.imaging.labels import check_grid, check_values, label_counts
from rep3d.imaging.nifti import IMAGE_SUFFIXES, is_written_like, read_label, write_label

__all__ = ["PreparedLabel", "SubmitOptions", "described_values", "prepare_label", "with_shown_name"]

_BACKGROUND = "background"


@dataclass(frozen=True)
class SubmitOptions:
    """What a client allows to be done, or means to do.

    Attributes:
        empty: a label without a single voxel is meant: the image has none of the structures.
        resample: a label on another grid may be brought to the image's, by nearest neighbour.
        expected: what has to be there for the label to be stored.
    """

    empty: bool = False
    resample: bool = False
    expected: Expected = Expected()


@dataclass(frozen=True)
class PreparedLabel:
    """A label that may be stored.

    Attributes:
        file: the NIfTI file to store.
        facts: what it contains.
        changes: what was changed of the file as it was sent. If nothing, ``file`` is that file, or has its voxels where
            the image has them, where its header was not the image's own or its values were no plain whole numbers.
    """

    file: Path
    facts: LabelFacts
    changes: Mapping[str, Any] = field(default_factory=dict)


def described_values(params: Mapping[str, Any]) -> dict[str, int | None]:
    """Return which voxel value a client used for which label name.

    Args:
        params: what came with the label. Its ``label_info`` is ``[{"name": "liver", "idx": 1}]``, as MONAI Label's
            clients send it, or a mapping ``{"liver": 1}``, which may also be called ``labels``.

    Returns:
        Label name to value, None where the name came without one.

    Raises:
        RequestError: for anything else, and for values that contradict each other.
    """
    found: dict[str, int | None] = {}
    for key in ("label_info", "labels"):
        for name, value in _given(params, key).items():
            other = found.get(name)
            if other is not None and value not in (None, other):
                raise RequestError(f"{name!r} has the value {other} in label_info and {value} in labels. Give it one.")
            found[name] = other if value is None else value
    return found


def _given(params: Mapping[str, Any], key: str) -> dict[str, int | None]:
    given = params.get(key) or {}
    form = f'{key} must be [{{"name": NAME, "idx": VALUE}}, ...] or {{NAME: VALUE, ...}}'
    if isinstance(given, Mapping):
        pairs = list(given.items())
    elif isinstance(given, list) and all(isinstance(item, Mapping) and "name" in item for item in given):
        pairs = [(item["name"], item.get("idx")) for item in given]
    elif isinstance(given, list) and all(isinstance(item, str) for item in given):
        pairs = [(name, None) for name in given]
    else:
        raise RequestError(f"{form}, not {str(given)[:200]}.")
    found: dict[str, int | None] = {}
    for name, value in pairs:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        plain = value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)
        if not isinstance(name, str) or not plain:
            raise RequestError(f"{form} with whole numbers from 0 on, not {name!r}: {value!r}.")
        if found.get(name, value) != value:
            raise RequestError(f"{key} gives {name!r} two values, {found[name]} and {value}. Give it one.")
        found[name] = value
    return found


def prepare_label(
    submitted: Path,
    image: Path,
    channels: Channels,
    labels: Mapping[str, int],
    described: Mapping[str, int | None],
    options: SubmitOptions,
    scratch: Path,
) -> PreparedLabel:
    """Check a label file, and make of it what may be stored.

    Args:
        submitted: the file as it was sent; it is not changed.
        image: the image that it was drawn on.
        channels: of that image.
        labels: label name to the server's voxel value.
        described: label name to the value in the file, as :func:`described_values` gives it.
        options: what may be done.
        scratch: an empty folder for files on the way.

    Raises:
        LabelError: if it may not be stored, with the reason.
    """
    changes: dict[str, Any] = {}
    file = submitted
    stem, suffix = split_suffix(submitted.name, LABEL_SUFFIXES)
    if not suffix:
        raise LabelError(
            f"{submitted.name} has the type {Path(submitted.name).suffix!r}, which is none of "
            f"{', '.join(LABEL_SUFFIXES)}. Export it as NIfTI."
        )
    if suffix in IMAGE_SUFFIXES:
        values, grid = read_label(file)
    else:
        values, grid, described, joined = _converted(submitted, image, described, scratch)
        changes["converted"] = {"from": suffix, **({"joined": joined} if joined else {})}
    target = channels.grid(image)
    if not same_grid(grid, target):
        values, changes["resampled"] = _resampled(values, grid, target, submitted.name, image.name, options)
    values, moved = _with_server_values(values, labels, described, submitted.name)
    if moved:
        changes["remapped"] = {str(old): new for old, new in moved.items()}
    facts = LabelFacts.of(values)
    _check_values(facts.counts, labels, submitted.name, options)
    if changes or not is_written_like(file, image):  # every label lies where its image does, to the bit
        file = scratch / f"stored-{stem}.nii.gz"
        write_label(values, image, file)
    return PreparedLabel(file, facts, changes)


def _converted(
    submitted: Path, image: Path, described: Mapping[str, int | None], scratch: Path
) -> tuple[np.ndarray, Geometry, Mapping[str, int | None], list[str]]:
    """Return the one label map that a file of another format is, what its values mean, and which segments were joined
    of several values or layers."""
    converted = as_nifti(submitted, image, scratch)
    read = [read_label(file) for file in converted.layers]
    values, grid = read[0]
    if not converted.segments:
        if converted.nameless and set(label_counts(values)) - {0, *described.values()}:
            raise LabelError(
                f"{submitted.name} {converted.nameless}, so nothing says what its voxel values mean. Send label_info "
                f"with it, or export it as NIfTI with the server's values."
            )
        return values, grid, described, []
    known = {segment.name for segment in converted.segments}
    strangers = sorted(set(described) - known - {_BACKGROUND})
    if strangers:
        raise LabelError(
            f"{submitted.name} has the segments {', '.join(sorted(known))}, but came with values for "
            f"{', '.join(strangers)}. Send it with its own names, or with none."
        )
    # What the file itself says of its values is certain.
    values, own, joined = one_map([layer for layer, _ in read], converted.segments, submitted.name)
    return values, grid, own, joined


def _resampled(
    values: np.ndarray, grid: Geometry, target: Geometry, name: str, image: str, options: SubmitOptions
) -> tuple[np.ndarray, dict[str, Any]]:
    if not options.resample:
        try:
            check_grid(grid, target, name, image)
        except LabelError as error:
            raise LabelError(f'{error} Or let the server resample it: params {{"resample": true}}.') from error
    before = np.count_nonzero(values)
    result = resample_label(values, grid, target)
    after = np.count_nonzero(result)
    if before and not after:
        raise LabelError(f"{name} has all its structures outside of image {image}. Was it drawn on another image?")
    facts = {
        "from": {"shape": list(grid.shape), "affine": np.round(grid.affine, 6).tolist()},
        "ml_before": round(before * grid.voxel_ml, 4),
        "ml_after": round(after * target.voxel_ml, 4),
    }
    return result, facts


def _with_server_values(
    values: np.ndarray, labels: Mapping[str, int], described: Mapping[str, int | None], name: str
) -> tuple[np.ndarray, dict[int, int]]:
    """Return the map with the server's values, and which values were changed, old to new."""
    known = {**labels, _BACKGROUND: 0}
    unknown = sorted(set(described) - set(known))
    if unknown:
        spelled = {name.casefold(): name for name in known}
        near = [f"{name!r} is {spelled[plain]!r} here" for name in unknown if (plain := name.casefold()) in spelled]
        raise LabelError(
            f"{name} has segments that this server does not know: {', '.join(unknown)}. It knows "
            f"{', '.join(sorted(labels))}{' (' + ', '.join(near) + ')' if near else ''}. Rename or remove these "
            f"segments, or start the server with their labels."
        )
    meaning: dict[int, str] = {}
    for label, value in described.items():
        if value is None:
            continue
        if value in meaning:
            raise LabelError(
                f"{name} has two names for the voxel value {value}, {meaning[value]!r} and {label!r}. Give each one."
            )
        meaning[value] = label
    change = {value: known[label] for value, label in meaning.items() if known[label] != value}
    present = set(label_counts(values)) - {0} if change else set()
    moved = {value: new for value, new in change.items() if value in present or value == 0}
    if not moved:
        return values, {}
    if 0 in moved:
        raise LabelError(f"{name} has the voxel value 0 for {meaning[0]!r}. That value is for the background.")
    nameless = sorted(present - set(meaning))
    if nameless:
        # Some values are the client's own, so these could be the client's or the server's: a guess may swap organs.
        raise LabelError(
            f"{name} has the voxel values {nameless[:10]} without a name, and others that are not the server's "
            f"({', '.join(f'{label} {value}' for label, value in labels.items())}). Send label_info for all segments."
        )
    table = np.arange(max(present) + 1, dtype=np.uint16)
    for value, new in moved.items():
        table[value] = new
    return table[values], moved


def _check_values(counts: Mapping[int, int], labels: Mapping[str, int], name: str, options: SubmitOptions) -> None:
    check_values(counts, labels, name)
    if not set(counts) - {0} and not options.empty:
        raise LabelError(
            f"{name} is empty. Did the export lose the segments? If the image has none of the structures, submit it as "
            f'empty: params {{"empty": true}}.'
        )


def with_shown_name(message: str, file: Path, shown: str) -> str:
    """Return a message without the name of a temporary file, which says nothing to the client."""
    converted = split_suffix(file.name, LABEL_SUFFIXES)[0] + ".nii.gz"
    words = message.replace(file.name, shown).replace(converted, shown)
    return words[:1].upper() + words[1:]
