"""A damaged label map made anew, as far as it is certain what it said.

The server writes its map into what it makes: the records of versions that it trained, the facts about predictions. What
these say is certain. A checkpoint from elsewhere may have voxel values of its own, and so may what a client sent. And a
value that some label file has, but none of these records names, must not be given to another name by chance.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lib.errors import StartupError
from lib.labels.label_map import LabelMap
from lib.labels.reasons import ORIGINAL
from lib.names import split_suffix
from lib.paths import Workspace
from rep3d.errors import LabelError
from rep3d.imaging.labels import label_counts
from rep3d.imaging.nifti import IMAGE_SUFFIXES, read_label
from rep3d.versions.store import VersionStore

__all__ = ["check_recovered", "recovered_map"]

logger = logging.getLogger(__name__)


def recovered_map(workspace: Workspace, damage: StartupError) -> LabelMap:
    """Return the map that records of the server say, in place of a damaged one.

    Args:
        workspace: where the records are.
        damage: what is raised where they contradict each other.
    """
    values: dict[str, int] = {}
    models: dict[str, tuple[str, ...]] = {}
    for model, labels in _recorded(workspace):
        models[model] = tuple(labels)
        for name, value in labels.items():
            if values.setdefault(name, value) != value:
                raise damage
    if len(set(values.values())) < len(values):
        raise damage
    served = tuple(models) if len(models) == 1 else ()
    return LabelMap(workspace.labels, values, models, served, recovered=True)


def check_recovered(stored: LabelMap, wanted: Collection[str], stated: Mapping[str, int], damage: StartupError) -> None:
    """Refuse a map made anew that could give a value in the label files another meaning.

    Args:
        stored: as :func:`recovered_map` made it.
        wanted: the labels that are to be served.
        stated: label name to value as the user or the data set says.
        damage: what is raised then.
    """
    known = {**stated, **stored.values}
    unsure = sorted(set(wanted) - set(known))
    nameless = sorted(_values_in_use(Workspace(stored.path.parent)) - {0, *known.values()})
    if unsure or nameless:
        logger.error("labels whose value is on no record: %s; values without a name: %s", unsure, nameless)
        raise damage
    logger.error("%s: made anew from what versions, predictions and settings say: %s", stored.path, known)


def _recorded(workspace: Workspace) -> Iterator[tuple[str, dict[str, int]]]:
    for folder in sorted(workspace.models.glob("*")):
        for record in VersionStore(folder).records():
            if record.origin == "trained" and record.labels:
                yield folder.name, record.labels
    for file in sorted(workspace.predictions.glob("*.json")):
        facts = _facts(file)
        labels = facts.get("label_names", dict(facts.get("params") or {}).get("label_names"))
        if isinstance(labels, dict) and labels:
            yield str(facts.get("model")), labels


def _values_in_use(workspace: Workspace) -> set[int]:
    """Return the voxel values of all label files that a server stored or may restore."""
    kept = [workspace.root.parent / "labels", workspace.history, *workspace.removed.glob("*/*")]
    found: set[int] = set()
    for folder in kept:
        for file in folder.rglob("*"):
            stem, suffix = split_suffix(file.name, IMAGE_SUFFIXES)
            if not suffix or file.name.startswith("."):
                continue
            if _facts(file.with_name(f"{stem}.json")).get("reason") == ORIGINAL:
                continue  # it has a client's values
            with suppress(LabelError):
                found |= set(label_counts(read_label(file)[0]))
    return found


def _facts(file: Path) -> dict[str, Any]:
    """Return a file beside a label, for this purpose only: what cannot be read says nothing."""
    with suppress(OSError, ValueError):
        content = json.loads(file.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}
