"""The labelled cases that a model may learn from, each with its role and its weight."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from lib.boot.setup import ModelSetup
from lib.labels.facts import FactsCache
from lib.labels.submission import described_values
from lib.models.served import ServedModel
from lib.storage.datastore import Rep3DDatastore, Submission
from lib.storage.entries import FINAL
from rep3d.checkpoint import read_checkpoint_task
from rep3d.data.cases import Case
from rep3d.errors import CheckpointError, NoCasesError
from rep3d.evaluation.roles import CaseRoles, Split
from rep3d.evaluation.seen import Seen
from rep3d.files import file_hash
from rep3d.imaging.labels import check_grid, check_values
from rep3d.imaging.nifti import stored_grid
from rep3d.training.preparing import left_out_for
from rep3d.training.sampling import NEW_CASE_WEIGHT
from rep3d.versions.record import VersionRecord
from rep3d.versions.store import VersionStore

__all__ = ["LabelledCases", "case_for", "case_weights", "check_split", "find_cases", "models_taught", "split_cases"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledCases:
    """Cases that count for a model.

    Attributes:
        cases: by id.
        hashes: case id to SHA-256 of its label file.
        skipped: ids of labelled cases that do not count or are not usable, with the reason.
    """

    cases: Mapping[str, Case] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def case_for(setup: ModelSetup, case: Case, info: Mapping[str, Any], facts: FactsCache) -> str | None:
    """Check whether a label says anything about a model's structures.

    Several models may share the label files. A file says something about this one's labels if it contains one of them,
    or if whoever submitted it named one of them. A file without a single voxel says that there is nothing to find
    where there is no other model that it could be meant for.

    Args:
        setup: the model.
        case: the case.
        info: what was sent with the label.
        facts: what label files contain; one that is not known there is read.

    Returns:
        Why not, or None where it does.

    Raises:
        LabelError, ImageError: if the case is not usable: files may have been put into the folder by hand.
    """
    found = set(facts.of(case.label).counts) - {0}
    check_grid(stored_grid(case.label), setup.channels.grid(case.image), case.label.name, case.image.name)
    check_values(found - set(setup.other_values), setup.labels, case.label.name)
    if _teaches(setup, found, info):
        return None
    return f"Its label says nothing about {', '.join(setup.labels)}."


def _teaches(setup: ModelSetup, values: Collection[int], info: Mapping[str, Any]) -> bool:
    found = set(values) - {0}
    if found & set(setup.labels.values()) or set(described_values(info)) & set(setup.labels):
        return True
    return not found and not setup.other_values


def find_cases(setup: ModelSetup, datastore: Rep3DDatastore) -> LabelledCases:
    """Return the labelled cases that count for a model, and why others do not."""
    cases, hashes, skipped = {}, {}, {}
    for case in datastore.labelled_cases():
        try:
            info = datastore.get_label_info(case.id, FINAL)
            reason = datastore.misfit(case.id) or case_for(setup, case, info, datastore.label_facts)
            if reason is None:
                cases[case.id], hashes[case.id] = case, file_hash(case.label)
            else:
                logger.warning("training: case %s is not used: %s", case.id, reason)
                skipped[case.id] = reason
        except Exception as error:  # whatever is wrong with one case, the others are used
            skipped[case.id] = left_out_for(case, error).reason
    return LabelledCases(cases, hashes, skipped)


def models_taught(served: Mapping[str, ServedModel], accepted: Submission) -> list[str]:
    """Return the models that a label says something to, by what was found in it when it came."""
    return [name for name, model in served.items() if _teaches(model.setup, accepted.values, accepted.info)]


def split_cases(setup: ModelSetup, versions: VersionStore, found: LabelledCases) -> Split:
    """Return the cases by role; see :class:`rep3d.evaluation.roles.CaseRoles`.

    Whatever any version was ever trained on, here or elsewhere, is a training case; so is what the encoder has seen
    that a first training begins with. What was trained on elsewhere is known by its images, too: it may have had other
    names there.
    """
    records = versions.records()
    roles = CaseRoles(setup.workspace.roles)
    foreign = [versions.checkpoint(one.version) for one in records if one.origin != "trained" and not one.deleted]
    if setup.start_from:
        foreign.append(setup.start_from)
    infos = []
    for file in foreign:
        try:
            infos.append(read_checkpoint_task(file)[1])
        except CheckpointError as error:  # of a version the record still says the names
            logger.warning("training: it is not known which images %s was trained on: %s", file, error)
    seen = Seen(infos)
    new = found.cases.keys() - roles.read().keys()  # once for each case: its image is read for that
    trained = {case for record in records for case in record.cases}
    return roles.assign(found.cases, trained | {id_ for id_ in new if seen(found.cases[id_])})


def case_weights(start: VersionRecord | None, split: Split, found: LabelledCases) -> dict[str, float]:
    """Return how often each training case is drawn: new ones, and those whose label was corrected, more often than old
    ones.

    Args:
        start: the version that training begins from; None where it begins from nothing.
        split: cases by role.
        found: their labels.
    """
    if start is None:
        return dict.fromkeys(split.training, 1.0)
    known = start.label_hashes or dict.fromkeys(start.cases)
    return {
        id_: 1.0 if id_ in known and known[id_] in (None, found.hashes[id_]) else NEW_CASE_WEIGHT
        for id_ in split.training
    }


def check_split(split: Split, found: LabelledCases) -> None:
    """Make sure that there is a case to train on.

    Raises:
        NoCasesError: with the reasons.
    """
    if split.training:
        return
    if split.validation:
        raise NoCasesError(
            f"No case is left to train on: all {len(split.validation)} annotated cases are held out to measure "
            f"({', '.join(split.validation[:5])}), for ever. Submit another label."
        )
    reasons = "; ".join(f"{id_}: {reason}" for id_, reason in found.skipped.items()) or "there are no labels"
    raise NoCasesError(f"No annotated case can be trained on: {reasons}")
